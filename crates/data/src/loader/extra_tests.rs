use super::*;
use crate::augment::Augment;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One-pixel images in two classes; the pixels are `first`, `first + 1`, ...
fn split(n: usize, first: u8) -> Arc<Split> {
    let images = (0..n).map(|i| first.wrapping_add(i as u8)).collect();
    let labels = (0..n).map(|i| (i % 2) as u32).collect();
    Arc::new(Split::new(images, labels, [1, 1, 1], 2).unwrap())
}

fn options(batch: usize, drop_last: bool) -> LoaderOptions {
    LoaderOptions { drop_last, prefetch: 0, ..LoaderOptions::train(batch, 3, Augment::NONE) }
}

fn loader(own: usize, extra: usize, fraction: f64, options: LoaderOptions) -> Loader {
    let extra = Extra { split: split(extra, 100), fraction };
    Loader::with_extra(split(own, 0), Some(extra), options).unwrap()
}

fn all(loader: &Loader, epoch: u64, start: usize) -> Vec<Batch> {
    loader.epoch(epoch, start).collect::<Result<_>>().unwrap()
}

proptest! {
    /// Every batch has its share of both sets, an epoch is a pass over the own images, and no
    /// extra image comes twice before each has had its turn.
    #[test]
    fn each_set_has_its_share_and_its_turn(
        own in 1usize..90, extra in 1usize..60, batch in 2usize..24, percent in 1u32..100,
        drop_last: bool,
    ) {
        let fraction = f64::from(percent) / 100.0;
        let extra = Extra { split: split(extra, 100), fraction };
        let share = extra.in_batch(batch);
        prop_assume!(share.as_ref().is_ok_and(|&share| share <= extra.split.len()));
        let share = share.unwrap();
        let per_pass = extra.split.len() / share;
        prop_assume!(!drop_last || own >= batch - share);
        let loader = Loader::with_extra(split(own, 0), Some(extra), options(batch, drop_last));
        let loader = loader.unwrap();
        let mut turn = 0;
        let mut seen = BTreeMap::new();
        for epoch in 0..3 {
            let batches = all(&loader, epoch, 0);
            prop_assert_eq!(batches.len(), loader.batches_per_epoch());
            let mut once = Vec::new();
            for made in &batches {
                if turn % per_pass == 0 {
                    seen.clear();
                }
                turn += 1;
                let (mine, more): (Vec<u32>, Vec<u32>) =
                    made.ids.iter().partition(|&&id| (id as usize) < own);
                for id in &more {
                    prop_assert_eq!(seen.insert(*id, turn), None);
                }
                if mine.len() == batch - share {
                    prop_assert_eq!(more.len(), share);
                } else {
                    prop_assert!(!drop_last && made.index + 1 == batches.len());
                    let exact = mine.len() as f64 * share as f64 / (batch - share) as f64;
                    prop_assert!((more.len() as f64 - exact).abs() <= 0.5);
                }
                once.extend(mine);
                for (i, &id) in made.ids.iter().enumerate() {
                    let (pixel, label) = match (id as usize).checked_sub(own) {
                        None => (id as u8, id % 2),
                        Some(id) => (100 + id as u8, id as u32 % 2),
                    };
                    prop_assert_eq!(made.images[i], f32::from(pixel) / 255.0);
                    prop_assert_eq!(made.labels[i], label);
                }
            }
            once.sort_unstable();
            once.dedup();
            let whole = if drop_last { own / (batch - share) * (batch - share) } else { own };
            prop_assert_eq!(once.len(), whole);
        }
    }

    /// A batch is a function of its epoch and number: wherever an epoch begins, its bits are those
    /// of the whole.
    #[test]
    fn taken_up_again_it_gives_the_same_batches(
        own in 10usize..60, extra in 9usize..40, epoch in 0u64..50, start in 0usize..12,
    ) {
        let loader = loader(own, extra, 0.4, options(10, false));
        let whole = all(&loader, epoch, 0);
        let rest = whole.get(start..).unwrap_or_default();
        prop_assert_eq!(all(&loader, epoch, start), rest);
        let ahead = LoaderOptions { prefetch: 3, workers: 2, ..options(10, false) };
        prop_assert_eq!(all(&self::loader(own, extra, 0.4, ahead), epoch, start), rest);
    }
}

#[test]
fn the_own_images_come_in_the_order_that_they_have_alone() {
    let mixed = all(&loader(30, 20, 0.5, options(12, true)), 4, 0);
    let alone = Loader::new(split(30, 0), options(6, true)).unwrap();
    for (mixed, alone) in mixed.iter().zip(all(&alone, 4, 0)) {
        let own: Vec<u32> = mixed.ids.iter().copied().filter(|&id| id < 30).collect();
        assert_eq!(own, alone.ids);
    }
    assert_eq!(mixed.len(), 5);
}

#[test]
fn the_two_sets_alternate_within_a_batch() {
    let batch = &all(&loader(40, 40, 0.25, options(8, true)), 0, 0)[0];
    let extra: Vec<bool> = batch.ids.iter().map(|&id| id >= 40).collect();
    assert_eq!(extra, [false, false, false, true, false, false, false, true]);
}

#[test]
fn an_extra_image_is_augmented_anew_in_each_pass() {
    let images: Vec<u8> = (0..8 * 64).map(|i| i as u8).collect();
    let own = Arc::new(Split::new(images, [0, 1].repeat(4), [1, 8, 8], 2).unwrap());
    let extra = Extra { split: Arc::new(own.take(4)), fraction: 0.5 };
    let augment = "crop:4".parse().unwrap();
    let options = LoaderOptions { augment, ..options(2, true) };
    let loader = Loader::with_extra(own, Some(extra), options).unwrap();
    let mut draws = Vec::new();
    // Four batches of one extra image each are a pass: there are two in an epoch.
    for batch in all(&loader, 0, 0) {
        let place = batch.ids.iter().position(|&id| id == 8);
        draws.extend(place.map(|place| batch.draws[place]));
    }
    assert_eq!(draws.len(), 2);
    assert_ne!(draws[0], draws[1]);
}

#[test]
fn extra_images_that_do_not_fit_are_refused() {
    let told = |extra: Split, fraction: f64| {
        let extra = Extra { split: extra.into(), fraction };
        Loader::with_extra(split(20, 0), Some(extra), options(10, true)).unwrap_err().to_string()
    };
    let plain = |n: usize| Split::clone(&split(n, 100));
    for fraction in [0.0, 0.01, 0.99, 1.0, -1.0, 2.0, f64::NAN] {
        let text = told(plain(20), fraction);
        assert!(text.contains("share of extra images") && text.contains("both sets"), "{text}");
    }
    assert!(told(plain(4), 0.5).contains("number of extra images: 4; expected at least the 5"));
    let wide = Split::new(vec![0; 40], vec![0; 20], [1, 1, 2], 2).unwrap();
    assert!(told(wide, 0.5).contains("1x1x2; expected 1x1x1"));
    let named = plain(20).with_class_names(vec!["a".into(), "b".into()]).unwrap();
    assert!(told(named, 0.5).contains("the 2 classes of the other images"));
}

/// Which images are drawn is fixed for good, like the order of the own ones.
#[test]
fn golden_order() {
    let loader = loader(12, 9, 0.4, options(5, true));
    let ids: Vec<Vec<u32>> =
        (0..2).flat_map(|epoch| all(&loader, epoch, 0)).map(|batch| batch.ids).collect();
    let golden = [
        [7, 10, 16, 3, 17],
        [1, 5, 14, 4, 18],
        [6, 9, 19, 0, 20],
        [8, 2, 12, 11, 13],
        [0, 1, 12, 10, 14],
        [6, 8, 16, 5, 20],
        [11, 7, 18, 2, 15],
        [3, 4, 17, 9, 13],
    ];
    assert_eq!(ids, golden);
}
