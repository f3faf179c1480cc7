//! Batches in a seeded order, augmented on all cores, and prepared before the step that uses them.

mod batch;
mod epoch;
mod extra;
mod options;

use std::sync::Arc;

use rand::seq::SliceRandom;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sora_rng::{Purpose, stream};

use crate::error::{DataError, Result};
use crate::memory;
use crate::split::Split;
use batch::Maker;
use epoch::{Producer, prefetching};
use extra::{Place, Set, batches, mixed};

pub use batch::Batch;
pub use epoch::Epoch;
pub use extra::Extra;
pub use options::{LoaderOptions, Share};

/// Most bytes of batches that are prepared ahead.
const MAX_AHEAD: usize = 256 << 20;
/// Most threads that a loader may have of its own.
const MAX_WORKERS: usize = 1024;

/// Makes the batches of an epoch. A batch is a function of (split, seed, epoch, batch number)
/// alone: its bits depend neither on the number of threads, nor on the prefetch depth, nor on the
/// batch at which an epoch was resumed.
///
/// The loader makes one batch at a time, its images in parallel, and at most
/// [`LoaderOptions::prefetch`] batches wait. This bounds the memory whatever the size of the set.
#[derive(Clone, Debug)]
pub struct Loader {
    split: Arc<Split>,
    extra: Option<Extra>,
    /// Images of `split` in a full batch.
    own: usize,
    options: LoaderOptions,
    workers: Option<Arc<ThreadPool>>,
}

impl Loader {
    /// Checks the options and prepares a loader of `split`.
    ///
    /// # Errors
    /// [`DataError::Value`] for a batch size of 0, augmentation or workers out of range, or a split
    /// that yields no batch; [`DataError::Memory`] for a batch that takes more memory than the
    /// machine has.
    pub fn new(split: Arc<Split>, options: LoaderOptions) -> Result<Self> {
        Self::with_extra(split, None, options)
    }

    /// A loader of `split`, into whose batches images of `extra` are mixed.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`DataError::Value`] for extra images of another shape or
    /// of other classes, fewer than a batch takes, or a share that leaves a batch without images of
    /// one of the two sets.
    pub fn with_extra(
        split: Arc<Split>,
        extra: Option<Extra>,
        options: LoaderOptions,
    ) -> Result<Self> {
        options.augment.check()?;
        if options.batch == 0 {
            return Err(DataError::value("batch size", 0, "1 or more"));
        }
        if options.share.rank >= options.share.world {
            let expected = format!("below {}", options.share.world);
            return Err(DataError::value("part of the batch", options.share.rank, expected));
        }
        if options.batch < options.share.world {
            let expected = format!("at least the {} parts of a batch", options.share.world);
            return Err(DataError::value("batch size", options.batch, expected));
        }
        let own = match &extra {
            None => options.batch,
            Some(extra) => options.batch - extra.check(&split, options.batch)?,
        };
        check_memory(&split, options.batch / options.share.world, memory::limit())?;
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
        let loader = Self { split, extra, own, options, workers };
        if loader.batches_per_epoch() == 0 {
            return Err(DataError::value(
                "batch size",
                options.batch,
                format!("at most the {} images there are", loader.split.len()),
            ));
        }
        Ok(loader)
    }

    /// Number of batches in an epoch, at least 1.
    pub fn batches_per_epoch(&self) -> usize {
        batches(self.split.len(), self.own, self.options.drop_last)
    }

    /// The split that the loader reads.
    pub fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The options of the loader.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// The batches of an epoch from number `start_batch` on, with the same bits as iterating from 0
    /// and skipping. Empty when `start_batch` is at or past the end.
    pub fn epoch(&self, epoch: u64, start_batch: usize) -> Epoch {
        let total = self.batches_per_epoch();
        let maker = Maker {
            split: Arc::clone(&self.split),
            extra: self.extra.clone(),
            options: self.options,
            workers: self.workers.clone(),
            epoch,
            order: self.order(epoch),
        };
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

    /// The images of the epoch, in order.
    fn order(&self, epoch: u64) -> Vec<Place> {
        let mut order: Vec<u32> = (0..self.split.len() as u32).collect();
        if self.options.shuffle {
            order.shuffle(&mut stream(self.options.seed, Purpose::Shuffle, epoch, 0, 0));
        }
        match &self.extra {
            Some(extra) => mixed(&order, extra, &self.options, self.own, epoch),
            None => order
                .into_iter()
                .map(|position| Place { set: Set::Own, position, pass: epoch })
                .collect(),
        }
    }
}

/// Refuses batches that do not fit in memory, because the allocation would end the process.
fn check_memory(split: &Split, batch: usize, limit: Option<u64>) -> Result<()> {
    let image = split.shape().iter().product::<usize>() as u64 * size_of::<f32>() as u64;
    let needed = image.saturating_mul(batch.min(split.len()) as u64);
    match limit {
        Some(limit) if needed > limit => Err(DataError::Memory {
            what: format!("a batch of {batch} images of {:?}", split.shape()),
            needed,
            limit,
            fix: "choose a smaller `batch` or `image_size`".into(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod extra_tests;
#[cfg(test)]
mod tests;
