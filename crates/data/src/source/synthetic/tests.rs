use super::*;
use crate::open;

fn options(seed: u64) -> OpenOptions<'static> {
    OpenOptions { seed, limit_train: Some(60), limit_test: Some(20), ..Default::default() }
}

fn bytes(split: &Split) -> Vec<u8> {
    (0..split.len()).flat_map(|i| split.image(i).unwrap().to_vec()).collect()
}

/// The images of a seed are fixed for good.
#[test]
fn golden_hash() {
    let data = open("synthetic", &options(1)).unwrap();
    assert_eq!(
        (crc32fast::hash(&bytes(&data.train)), crc32fast::hash(&bytes(&data.test))),
        (3_525_224_702, 3_184_144_191)
    );
}

#[test]
fn seed_decides_and_limits_only_cut() {
    let one = open("synthetic", &options(1)).unwrap();
    let more = open("synthetic:90", &OpenOptions { limit_train: None, ..options(1) }).unwrap();
    assert_eq!((more.info.train, more.info.test), (90, 18));
    assert_eq!(bytes(&more.train.take(60)), bytes(&one.train));
    assert_ne!(bytes(&one.train), bytes(&open("synthetic", &options(2)).unwrap().train));
    assert_ne!(bytes(&one.train.take(20)), bytes(&one.test));
}

#[test]
fn same_bits_for_every_thread_count() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bytes(&open("synthetic", &options(1)).unwrap().train))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn another_size() {
    let data = open("synthetic", &OpenOptions { image_size: Some(11), ..options(1) }).unwrap();
    assert_eq!((data.train.shape(), data.info.height), ([3, 11, 11], 11));
    assert!(data.info.mean.iter().all(|m| (0.45..0.55).contains(m)), "{:?}", data.info.mean);
    assert!(data.info.std.iter().all(|s| (0.08..0.22).contains(s)), "{:?}", data.info.std);
}

/// Softmax regression learns something, generalises, is not perfect, and loses accuracy under an
/// FGSM attack of 8/255 (exact for a linear model up to the choice of class). The task is therefore
/// learnable, not trivial, and shows differences in robustness.
#[test]
fn a_linear_model_finds_it_learnable_but_not_trivial() {
    let data = open(
        "synthetic",
        &OpenOptions { limit_train: Some(1500), limit_test: Some(300), ..options(0) },
    )
    .unwrap();
    const D: usize = 3 * 32 * 32;
    let pixels = |split: &Split, i: usize| -> Vec<f32> {
        split.image(i).unwrap().iter().map(|&v| f32::from(v) / 255.0 - 0.5).collect()
    };
    let mut weights = vec![0.0f32; 10 * D];
    let probabilities = |weights: &[f32], x: &[f32]| -> Vec<f32> {
        let logits: Vec<f32> =
            weights.chunks(D).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect();
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let exps: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
        let sum: f32 = exps.iter().sum();
        exps.iter().map(|e| e / sum).collect()
    };
    for epoch in 0..2 {
        let rate = 0.02 / (1.0 + epoch as f32);
        for i in 0..data.train.len() {
            let x = pixels(&data.train, i);
            let mut p = probabilities(&weights, &x);
            p[data.train.label(i) as usize] -= 1.0;
            for (w, p) in weights.chunks_mut(D).zip(p) {
                w.iter_mut().zip(&x).for_each(|(w, x)| *w -= rate * p * x);
            }
        }
    }
    let accuracy = |epsilon: f32| {
        let right = (0..data.test.len()).filter(|&i| {
            let label = data.test.label(i) as usize;
            let mut x = pixels(&data.test, i);
            let mut p = probabilities(&weights, &x);
            p[label] -= 1.0;
            for (j, x) in x.iter_mut().enumerate() {
                let slope: f32 = p.iter().enumerate().map(|(k, p)| p * weights[k * D + j]).sum();
                *x += epsilon * if slope == 0.0 { 0.0 } else { slope.signum() };
            }
            let p = probabilities(&weights, &x);
            p.iter().all(|q| *q <= p[label])
        });
        right.count() as f64 / data.test.len() as f64
    };
    let (clean, robust) = (accuracy(0.0), accuracy(8.0 / 255.0));
    println!("linear model on synthetic: clean {clean:.3}, FGSM 8/255 {robust:.3}");
    // Chance is 0.1.
    assert!((0.3..0.97).contains(&clean), "{clean}");
    assert!(robust < clean - 0.1, "{robust} against {clean}");
}

/// 12,000 images of 4096 x 4096 would take 603 GB: they are drawn when asked for.
#[test]
fn what_does_not_fit_in_memory_is_drawn_on_demand_to_the_same_pixels() {
    let kept = open("synthetic", &options(1)).unwrap();
    let drawn = open("synthetic", &OpenOptions { max_memory: 1000, ..options(1) }).unwrap();
    assert!(drawn.train.is_on_demand() && !kept.train.is_on_demand());
    assert_eq!(bytes(&drawn.train), bytes(&kept.train));
    assert_eq!(bytes(&drawn.test), bytes(&kept.test));
}

/// Nothing is drawn to tell what a set is, and little to tell its mean.
#[test]
fn a_set_of_huge_images_is_opened_and_told_from_others_at_once() {
    let started = std::time::Instant::now();
    let huge = |seed, size| OpenOptions {
        image_size: Some(size),
        limit_train: None,
        limit_test: None,
        ..options(seed)
    };
    let data = open("synthetic", &huge(1, 2048)).unwrap();
    assert!(data.train.is_on_demand() && data.train.len() == 10_000);
    assert!(data.info.mean.iter().all(|m| (0.4..0.6).contains(m)), "{:?}", data.info.mean);
    let own = data.identity().unwrap();
    assert_eq!(open("synthetic", &huge(1, 2048)).unwrap().identity().unwrap(), own);
    for other in [huge(2, 2048), huge(1, 2049)] {
        assert!(open("synthetic", &other).unwrap().identity().unwrap().difference(&own).is_some());
    }
    assert_ne!(own.train.sha256, own.test.sha256);
    // Minutes at the least, if every image were drawn.
    assert!(started.elapsed().as_secs() < 100, "{:?}", started.elapsed());
}
