//! Batches in a seeded order, augmented on all cores, prepared ahead of the step that uses them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rand::seq::SliceRandom;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::augment::{Augment, AugmentDraw};
use crate::error::{DataError, Result};
use crate::split::Split;
use sora_rng::{Key, Purpose, stream};

/// How a [`Loader`] makes batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images per batch.
    pub batch: usize,
    /// The run's seed: decides order and augmentation.
    pub seed: u64,
    /// A new random order every epoch; otherwise the split's order.
    pub shuffle: bool,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    /// Augmentation; [`Augment::NONE`] for evaluation.
    pub augment: Augment,
    /// Batches prepared ahead by a background thread; 0 prepares each when asked for. Fewer are
    /// kept when they would take more than 256 MiB, but always one.
    pub prefetch: usize,
    /// Threads of its own that decode and augment; 0: rayon's global pool (without prefetch, the
    /// calling thread's pool).
    pub workers: usize,
}

/// Most bytes of batches prepared ahead.
const MAX_AHEAD: usize = 256 << 20;
/// Most threads of its own.
const MAX_WORKERS: usize = 1024;

impl LoaderOptions {
    /// For training: shuffled, full batches only, 4 prepared ahead.
    pub fn train(batch: usize, seed: u64, augment: Augment) -> Self {
        Self { batch, seed, shuffle: true, drop_last: true, augment, prefetch: 4, workers: 0 }
    }

    /// For evaluation: every image once, in order, unchanged.
    pub fn eval(batch: usize) -> Self {
        Self {
            batch,
            seed: 0,
            shuffle: false,
            drop_last: false,
            augment: Augment::NONE,
            prefetch: 2,
            workers: 0,
        }
    }
}

/// A batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch it belongs to.
    pub epoch: u64,
    /// Its number within the epoch, from 0.
    pub index: usize,
    /// `[B, C, H, W]`.
    pub shape: [usize; 4],
    /// Pixels in \[0, 1\] (bytes divided by 255), row-major in `shape`.
    pub images: Vec<f32>,
    /// Class indices, `[B]`.
    pub labels: Vec<u32>,
    /// Sample ids, `[B]`; see [`Split::ids`].
    pub ids: Vec<u32>,
    /// What augmentation drew, `[B]`.
    pub draws: Vec<AugmentDraw>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none; never so for a batch that a [`Loader`] gives.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Makes the batches of an epoch. What a batch holds is a function of (split, seed, epoch, batch
/// number) alone: neither the number of threads, nor the prefetch depth, nor where an epoch was
/// taken up again changes a bit of it.
///
/// One batch at a time is made, its images in parallel, and at most [`LoaderOptions::prefetch`]
/// wait: that bounds the memory whatever the size of the set.
#[derive(Clone, Debug)]
pub struct Loader {
    split: Arc<Split>,
    options: LoaderOptions,
    workers: Option<Arc<ThreadPool>>,
}

impl Loader {
    /// # Errors
    /// [`DataError::Value`] for a batch size of 0, augmentation or workers out of range, or a split
    /// that yields no batch.
    pub fn new(split: Arc<Split>, options: LoaderOptions) -> Result<Self> {
        options.augment.check()?;
        if options.batch == 0 {
            return Err(DataError::value("batch size", 0, "1 or more"));
        }
        let workers = match options.workers {
            0 => None,
            n if n > MAX_WORKERS => {
                return Err(DataError::value("loader threads", n, format!("0 to {MAX_WORKERS}")));
            }
            n => {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(n)
                    .thread_name(|i| format!("sora-loader-{i}"))
                    .build();
                Some(Arc::new(pool.map_err(|e| {
                    DataError::value(
                        "loader threads",
                        n,
                        format!("fewer, the system gives no more ({e})"),
                    )
                })?))
            }
        };
        let loader = Self { split, options, workers };
        if loader.batches_per_epoch() == 0 {
            return Err(DataError::value(
                "batch size",
                options.batch,
                format!("at most the {} images there are", loader.split.len()),
            ));
        }
        Ok(loader)
    }

    /// Batches in an epoch: at least 1.
    pub fn batches_per_epoch(&self) -> usize {
        if self.options.drop_last {
            self.split.len() / self.options.batch
        } else {
            self.split.len().div_ceil(self.options.batch)
        }
    }

    /// The split it reads.
    pub fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The options it was made with.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// The batches of an epoch from number `start_batch` on: the same bits as iterating from 0 and
    /// skipping. Nothing is left when `start_batch` is at or past the end.
    pub fn epoch(&self, epoch: u64, start_batch: usize) -> Epoch {
        let total = self.batches_per_epoch();
        let maker = Maker { loader: self.clone(), epoch, order: self.order(epoch) };
        let bytes = self
            .options
            .batch
            .saturating_mul(self.split.shape().iter().product::<usize>() * size_of::<f32>());
        let most = (MAX_AHEAD / bytes.max(1)).max(1);
        let producer = match self.options.prefetch.min(most) {
            0 => Producer::Here(maker),
            depth if start_batch < total => prefetching(maker, start_batch, total, depth),
            _ => Producer::Here(maker),
        };
        Epoch { producer, next: start_batch, total }
    }

    /// Positions in the split in the order of the epoch.
    fn order(&self, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.split.len() as u32).collect();
        if self.options.shuffle {
            order.shuffle(&mut stream(self.options.seed, Purpose::Shuffle, epoch, 0, 0));
        }
        order
    }
}

/// Makes single batches of one epoch.
struct Maker {
    loader: Loader,
    epoch: u64,
    order: Vec<u32>,
}

impl Maker {
    fn batch(&self, index: usize) -> Result<Batch> {
        match &self.loader.workers {
            Some(pool) => pool.install(|| self.make(index)),
            None => self.make(index),
        }
    }

    fn make(&self, index: usize) -> Result<Batch> {
        let Loader { split, options, .. } = &self.loader;
        let [channels, height, width] = split.shape();
        let first = index * options.batch;
        let positions = &self.order[first..(first + options.batch).min(self.order.len())];
        let key = Key::new(options.seed, Purpose::Augment).at_epoch(self.epoch);
        let at = |p: u32| p as usize;
        let ids: Vec<u32> = positions.iter().map(|&p| split.ids()[at(p)]).collect();
        let mut images = vec![0.0; positions.len() * channels * height * width];
        let draws = images
            .par_chunks_exact_mut(channels * height * width)
            .zip(positions.par_iter().zip(&ids))
            .map(|(out, (&p, &id))| {
                split.augmented(at(p), &options.augment, || key.stream(u64::from(id)), out)
            })
            // All of them first: of several bad images the first in order is named, whichever
            // thread is quickest.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Batch {
            epoch: self.epoch,
            index,
            shape: [positions.len(), channels, height, width],
            images,
            labels: positions.iter().map(|&p| split.label(at(p))).collect(),
            ids,
            draws,
        })
    }
}

/// Where the batches come from.
enum Producer {
    /// Made when asked for.
    Here(Maker),
    /// Made by a background thread, which ends when this end of the channel is dropped.
    Thread(Receiver<Result<Batch>>),
}

fn prefetching(maker: Maker, start: usize, total: usize, depth: usize) -> Producer {
    // The channel holds what is ready beyond the one batch in the making.
    let (sender, receiver) = sync_channel(depth - 1);
    let maker = Arc::new(maker);
    let worker = Arc::clone(&maker);
    let spawned = thread::Builder::new().name("sora-loader".into()).spawn(move || {
        for index in start..total {
            let batch = worker.batch(index);
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    });
    match spawned {
        Ok(_) => Producer::Thread(receiver),
        Err(error) => {
            tracing::warn!(
                "no thread for prefetching ({error}): batches are prepared one at a time"
            );
            let Maker { loader, epoch, order } = &*maker;
            Producer::Here(Maker { loader: loader.clone(), epoch: *epoch, order: order.clone() })
        }
    }
}

/// Iterator over the batches of an epoch. Dropping it ends the background thread.
pub struct Epoch {
    producer: Producer,
    next: usize,
    total: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.total {
            return None;
        }
        let batch = match &self.producer {
            Producer::Here(maker) => maker.batch(self.next),
            // The thread sends every batch or an error before it hangs up, unless it died: an epoch
            // must not end early unnoticed.
            Producer::Thread(receiver) => receiver
                .recv()
                .unwrap_or(Err(DataError::Loader { done: self.next, total: self.total })),
        };
        self.next = if batch.is_ok() { self.next + 1 } else { self.total };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.total.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn split(n: usize) -> Arc<Split> {
        let images = (0..n * 2 * 6 * 5).map(|i| (i * 7 % 251) as u8).collect();
        let labels = (0..n).map(|i| (i % 3) as u32).collect();
        Arc::new(Split::new(images, labels, [2, 6, 5], 3).unwrap())
    }

    fn options(prefetch: usize) -> LoaderOptions {
        let augment = "crop:2,flip,rotate:15".parse().unwrap();
        LoaderOptions {
            batch: 7,
            seed: 5,
            shuffle: true,
            drop_last: false,
            augment,
            prefetch,
            workers: 0,
        }
    }

    fn batches(split: &Arc<Split>, options: LoaderOptions, epoch: u64, start: usize) -> Vec<Batch> {
        Loader::new(Arc::clone(split), options)
            .unwrap()
            .epoch(epoch, start)
            .collect::<Result<_>>()
            .unwrap()
    }

    #[test]
    fn same_bits_for_every_thread_count_and_depth() {
        let split = split(40);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let want = one.install(|| batches(&split, options(0), 3, 0));
        assert_eq!(want.len(), 6);
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        assert_eq!(four.install(|| batches(&split, options(0), 3, 0)), want);
        for (prefetch, workers) in [(1, 0), (2, 0), (9, 0), (0, 1), (2, 1), (3, 5)] {
            assert_eq!(batches(&split, LoaderOptions { workers, ..options(prefetch) }, 3, 0), want);
        }
    }

    #[test]
    fn taken_up_again_it_gives_the_same_batches() {
        let split = split(40);
        let whole = batches(&split, options(2), 1, 0);
        for start in 0..=whole.len() + 1 {
            assert_eq!(batches(&split, options(2), 1, start), whole[start.min(whole.len())..]);
        }
    }

    #[test]
    fn every_sample_once_an_epoch_in_another_order_each_time() {
        let split = split(40);
        let ids = |epoch| -> Vec<u32> {
            batches(&split, options(2), epoch, 0).iter().flat_map(|b| b.ids.clone()).collect()
        };
        let (a, b) = (ids(0), ids(1));
        assert_ne!(a, b);
        for mut order in [a, b] {
            order.sort_unstable();
            assert_eq!(order, (0..40).collect::<Vec<_>>());
        }
    }

    #[test]
    fn augmentation_follows_the_sample_not_its_place() {
        let split = split(40);
        let find = |batches: Vec<Batch>| {
            let batch = batches.into_iter().find(|b| b.ids.contains(&17)).unwrap();
            let at = batch.ids.iter().position(|&id| id == 17).unwrap();
            (batch.draws[at], batch.images[at * 60..(at + 1) * 60].to_vec())
        };
        let reference = find(batches(&split, options(0), 0, 0));
        let other_batch_size = LoaderOptions { batch: 11, shuffle: false, ..options(0) };
        assert_eq!(find(batches(&split, other_batch_size, 0, 0)), reference);
        // In a view of the split the sample keeps its id, and so its draws.
        let view = Arc::new(split.subset(&[30, 17, 2]).unwrap());
        assert_eq!(find(batches(&view, options(0), 0, 0)), reference);
        assert_ne!(find(batches(&split, options(0), 1, 0)).0, reference.0);
    }

    #[test]
    fn the_draws_describe_the_images() {
        let split = split(40);
        let augment = "crop:3,flip".parse().unwrap();
        for batch in batches(&split, LoaderOptions { augment, ..options(3) }, 0, 0) {
            for (i, (draw, &id)) in batch.draws.iter().zip(&batch.ids).enumerate() {
                let plain: Vec<f32> = split
                    .image(id as usize)
                    .unwrap()
                    .iter()
                    .map(|&v| f32::from(v) / 255.0)
                    .collect();
                let mut want = vec![0.0; 60];
                draw.apply(&plain, &mut want, [2, 6, 5]).unwrap();
                assert_eq!(&batch.images[i * 60..(i + 1) * 60], want);
            }
        }
    }

    #[test]
    fn evaluation_sees_every_image_in_order() {
        let split = split(40);
        let all = batches(&split, LoaderOptions::eval(16), 0, 0);
        assert_eq!(all.iter().map(Batch::len).collect::<Vec<_>>(), [16, 16, 8]);
        assert_eq!(all[2].shape, [8, 2, 6, 5]);
        assert_eq!(
            all.iter().flat_map(|b| b.ids.clone()).collect::<Vec<_>>(),
            (0..40).collect::<Vec<_>>()
        );
        assert_eq!(all[1].images[0], f32::from(split.image(16).unwrap()[0]) / 255.0);
        assert_eq!(all[1].labels[0], split.label(16));
    }

    #[test]
    fn short_batches_are_dropped_when_asked() {
        let split = split(40);
        let loader =
            Loader::new(Arc::clone(&split), LoaderOptions { drop_last: true, ..options(2) })
                .unwrap();
        assert_eq!(
            (loader.batches_per_epoch(), loader.epoch(0, 0).len(), loader.epoch(0, 0).count()),
            (5, 5, 5)
        );
        let error = Loader::new(split, LoaderOptions { drop_last: true, batch: 41, ..options(2) })
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "wrong batch size: 41; expected at most the 40 images there are"
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for bad in [
            LoaderOptions { batch: 0, ..options(0) },
            LoaderOptions { workers: MAX_WORKERS + 1, ..options(0) },
            LoaderOptions { augment: Augment { rotate: f32::NAN, ..Augment::NONE }, ..options(0) },
        ] {
            assert!(Loader::new(split(3), bad).is_err());
        }
        assert!(Loader::new(Arc::new(split(3).take(0)), options(0)).is_err());
    }

    #[test]
    fn dropping_the_iterator_ends_the_thread() {
        let split = split(40);
        let loader = Loader::new(Arc::clone(&split), options(2)).unwrap();
        let mut epoch = loader.epoch(0, 0);
        epoch.next().unwrap().unwrap();
        drop((epoch, loader));
        // The thread holds the only other reference to the split.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&split) > 1 {
            assert!(Instant::now() < deadline, "the background thread still runs");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_dead_thread_is_an_error_not_an_early_end() {
        let (sender, receiver) = sync_channel(1);
        drop(sender);
        let mut epoch = Epoch { producer: Producer::Thread(receiver), next: 2, total: 5 };
        let error = epoch.next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("the batch loader stopped after 2 of 5 batches"));
        assert!(epoch.next().is_none());
    }

    /// Order and augmentation are fixed for good: a run recorded with one version replays with the
    /// next.
    #[test]
    fn golden_hash() {
        let mut hash = crc32fast::Hasher::new();
        let augment = "crop:2,flip".parse().unwrap();
        for batch in batches(&split(40), LoaderOptions { augment, ..options(1) }, 2, 0) {
            batch.images.iter().for_each(|v| hash.update(&v.to_le_bytes()));
            batch.labels.iter().chain(&batch.ids).for_each(|v| hash.update(&v.to_le_bytes()));
        }
        assert_eq!(hash.finalize(), 780_707_939);
    }
}
