use super::epoch::Producer;
use super::*;
use crate::augment::Augment;
use std::sync::mpsc::sync_channel;
use std::thread;
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
        share: Share::ALL,
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
fn the_parts_of_a_batch_are_the_batch() {
    let split = split(42);
    let options = LoaderOptions { batch: 12, drop_last: true, ..options(2) };
    let whole = batches(&split, options, 2, 0);
    for world in [1, 2, 3, 4] {
        let parts: Vec<_> = (0..world)
            .map(|rank| {
                let share = Share { rank, world };
                batches(&split, LoaderOptions { share, ..options }, 2, 0)
            })
            .collect();
        for (index, whole) in whole.iter().enumerate() {
            let of = |get: fn(&Batch) -> Vec<f32>| {
                parts.iter().flat_map(|part| get(&part[index])).collect::<Vec<_>>()
            };
            assert_eq!(of(|batch| batch.images.clone()), whole.images);
            let ids: Vec<_> = parts.iter().flat_map(|part| part[index].ids.clone()).collect();
            assert_eq!(ids, whole.ids);
        }
    }
    let share = Share { rank: 2, world: 2 };
    assert!(Loader::new(split, LoaderOptions { share, ..options }).is_err());
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
            let plain: Vec<f32> =
                split.image(id as usize).unwrap().iter().map(|&v| f32::from(v) / 255.0).collect();
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
        Loader::new(Arc::clone(&split), LoaderOptions { drop_last: true, ..options(2) }).unwrap();
    assert_eq!(
        (loader.batches_per_epoch(), loader.epoch(0, 0).len(), loader.epoch(0, 0).count()),
        (5, 5, 5)
    );
    let error =
        Loader::new(split, LoaderOptions { drop_last: true, batch: 41, ..options(2) }).unwrap_err();
    assert_eq!(error.to_string(), "wrong batch size: 41; expected at most the 40 images there are");
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

#[test]
fn a_batch_that_cannot_fit_is_refused() {
    let split = split(40);
    // 40 images of 2 x 6 x 5 values of 4 bytes.
    assert!(check_memory(&split, 40, Some(9600)).is_ok());
    assert!(check_memory(&split, usize::MAX, Some(9600)).is_ok(), "there are no more images");
    let error = check_memory(&split, 40, Some(9599)).unwrap_err().to_string();
    assert!(
        error.starts_with("a batch of 40 images of [2, 6, 5] takes 1 MiB of memory"),
        "{error}"
    );
    assert!(error.ends_with("choose a smaller `batch` or `image_size`"));
    assert!(check_memory(&split, 40, None).is_ok());
}
