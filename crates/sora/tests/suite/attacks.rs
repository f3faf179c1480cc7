//! Networks under attack: what must hold of every group of images, thread and small change.

use sora::{
    model::{Builder, Id, NetworkInfo, Start, Window, register},
    robustness::{
        Attack, AttackContext, Classifier, Norm, Rows, Shape, Threat,
        attack::{AttackBatch, RowKey},
        entry, predicted,
    },
};

use crate::support::{assert_close, small_model, warm_model};

const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

/// Every attack, in a form that takes a moment.
const SHORT: [&str; 9] = [
    "fgsm",
    "pgd-4x2",
    "cw-4",
    "apgd-ce-9x2",
    "apgd-dlr-9",
    "apgd-t-6",
    "fab-5x2",
    "fab-t-4",
    "square-40",
];

/// Candidates of all rounds of `attack`: for each image those of the round that fooled it, else of
/// the last.
fn run(
    attack: &dyn Attack,
    model: &dyn Classifier,
    threat: Threat,
    batch: &AttackBatch<'_>,
) -> Rows {
    let mut out = batch.x.clone();
    for round in 0..attack.rounds(model.shape().classes) {
        let mut tick = |_| {};
        let mut cx = AttackContext::new(model, threat, 1, "test", &mut tick);
        let keys: Vec<RowKey> = batch.keys.iter().map(|key| RowKey { round, ..*key }).collect();
        let found = attack.run(&mut cx, &AttackBatch { keys: &keys, ..*batch }).unwrap();
        let logits = Rows::new(model.logits(&out).unwrap(), model.shape().classes);
        for (i, &label) in batch.labels.iter().enumerate() {
            if predicted(logits.row(i)) == label {
                out.row_mut(i).copy_from_slice(found.row(i));
            }
        }
    }
    out
}

fn keys(n: usize) -> Vec<RowKey> {
    RowKey::of(&(0..n as u32).map(|i| 3 * i + 1).collect::<Vec<_>>(), 0)
}

/// Images around 1/2 that `model` gives different classes, with those classes.
fn images(model: &dyn Classifier, n: usize, contrast: f32) -> (Rows, Vec<usize>) {
    let width = model.shape().pixels();
    let x: Vec<f32> = (0..n * width)
        .map(|k| {
            let mixed = (k as u32 + 7).wrapping_mul(0x9e37_79b9);
            0.5 + contrast
                * ((mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b) as f32 / u32::MAX as f32 - 0.5)
        })
        .collect();
    let logits = model.logits(&x).unwrap();
    let labels = logits.chunks(model.shape().classes).map(predicted).collect();
    (Rows::new(x, width), labels)
}

#[test]
fn the_batch_changes_no_bit() {
    let (side, n) = (8, 11);
    let model = small_model(3, 3, side);
    let (x, labels) = images(&model, n, 0.8);
    let all = keys(n);
    for norm in NORMS {
        let threat = Threat { norm, epsilon: if norm == Norm::Linf { 0.02 } else { 0.3 } };
        for name in SHORT {
            for part in entry(name, norm).unwrap().parts {
                let whole = run(
                    part.attack.as_ref(),
                    &model,
                    threat,
                    &AttackBatch { x: &x, labels: &labels, keys: &all },
                );
                for size in [1, 4] {
                    let mut pieces = Vec::new();
                    for start in (0..n).step_by(size) {
                        let end = (start + size).min(n);
                        let piece = AttackBatch {
                            x: &x.select(&(start..end).collect::<Vec<_>>()),
                            labels: &labels[start..end],
                            keys: &all[start..end],
                        };
                        pieces.extend(
                            run(part.attack.as_ref(), &model, threat, &piece).into_values(),
                        );
                    }
                    assert!(pieces == *whole, "{name} {norm}: batches of {size} give other images");
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = small_model(3, 3, 8);
    // Groups of 37, 19, 13 and 8 images, groups of the least size, and the smallest batches.
    for n in [37, 9, 2, 1, 0] {
        let (x, _) = images(&model, n, 0.8);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let back =
                    model.pull_back(&x, &mut |_, z| z.iter().map(|z| z.sin()).collect()).unwrap();
                let logits = Classifier::logits(&model, &x).unwrap();
                assert!(back.logits == logits, "a recorded pass gives the same logits");
                (logits, back.grad)
            })
        };
        let one = run(1);
        assert_eq!((one.0.len(), one.1.len()), (n * model.shape().classes, x.len()));
        for threads in [2, 3, 5] {
            assert!(run(threads) == one, "{n} images, {threads} threads");
        }
    }
}

/// A network whose second convolution adds the images themselves.
fn adds_its_input(net: &mut Builder, x: Id) {
    let same = Window::of(3, 1, 1);
    let y = net.conv(x, "first", net.width(), same, Start::KaimingOut);
    let y = net.norm_act(y, "bn1");
    let y = net.conv_add(y, x, "second", net.shape().channels, same, Start::KaimingOut);
    let y = net.norm_act(y, "bn2");
    let y = net.conv(y, "third", net.width(), same, Start::KaimingOut);
    let y = net.norm_act(y, "bn3");
    let y = net.flatten(y);
    net.dense(y, "head", net.shape().classes, Start::ZeroBias);
}

static ADDS_ITS_INPUT: NetworkInfo = NetworkInfo {
    name: "adds-its-input",
    width_from: "first.weight",
    classes_from: &["head.weight"],
    build: adds_its_input,
    ..NetworkInfo::BASE
};

#[test]
fn small_changes_have_the_logits_of_a_whole_pass() {
    // Networks that begin with convolutions and batch norms; strides, biases, and images whose
    // sides are no multiples of a tile.
    register(&ADDS_ITS_INPUT).unwrap();
    let mut seen = 0;
    for (name, [channels, height, width]) in [
        ("preact-resnet18", [3, 18, 21]),
        ("wideresnet-28-10", [1, 9, 8]),
        ("preact-resnet50", [3, 9, 9]),
        ("vgg16-bn", [3, 32, 32]),
        (ADDS_ITS_INPUT.name, [3, 18, 21]),
    ] {
        let shape = Shape { channels, height, width, classes: 5 };
        let model = warm_model(name, shape);
        let (mut x, _) = images(&model, 6, 0.5);
        let row = channels * height * width;
        let draw = |k: usize| (k as f32 * 0.618).fract();
        let Some(mut incremental) = model.incremental(&x).unwrap() else { continue };
        seen += 1;
        for query in 0..12 {
            let rows: Vec<usize> = (0..6).filter(|i| (i + query) % 4 != 0).collect();
            let mut points = x.clone();
            for &i in &rows {
                // A window from one pixel to all, sometimes nothing.
                let place =
                    |k: usize, size: usize| (draw(7 * query + 3 * i + k) * size as f32) as usize;
                let (top, left) = (place(1, height), place(2, width));
                let (bottom, right) =
                    (top + place(3, height - top + 1), left + place(4, width - left + 1));
                for p in (0..row).filter(|p| {
                    (top..bottom).contains(&(p / width % height))
                        && (left..right).contains(&(p % width))
                }) {
                    points[i * row + p] = draw(p + query);
                }
            }
            let here = Rows::new(incremental.step(&x, &[0, 1, 2, 3, 4, 5]).unwrap(), 5);
            let found = incremental.step(&points, &rows).unwrap();
            let expected = Classifier::logits(&model, &points.select(&rows)).unwrap();
            assert_close(&format!("{name} query {query}"), &found, &expected, 1e-5);
            let back: Vec<usize> =
                rows.iter().copied().filter(|i| (i * 5 + query) % 3 == 0).collect();
            incremental.back(&back);
            // Back means back, to the bit.
            let there = incremental.step(&x, &back).unwrap();
            let before: Vec<f32> = back.iter().flat_map(|i| here.row(*i).to_vec()).collect();
            assert_eq!(there, before, "{name} query {query}");
            for &i in rows.iter().filter(|i| !back.contains(i)) {
                x.row_mut(i).copy_from_slice(points.row(i));
            }
        }
    }
    assert_eq!(seen, 5, "networks with such layers");
    // Others go through the whole network.
    assert!(
        warm_model("mnist-cnn", Shape { channels: 1, height: 28, width: 28, classes: 5 })
            .incremental(&[0.5; 784])
            .unwrap()
            .is_none()
    );
}

#[test]
fn networks_and_classifiers_agree_on_gradients() {
    // The pull-back of a network through the engine against central differences of its logits.
    let model = small_model(1, 2, 6);
    let (x, _) = images(&model, 2, 0.5);
    let mut cotangents = [0.0; 20];
    let back = Classifier::pull_back(&model, &x, &mut |first, z| {
        (cotangents[3], cotangents[7], cotangents[11]) = (1.0, -2.0, 0.5);
        cotangents[first * 10..first * 10 + z.len()].to_vec()
    })
    .unwrap();
    assert_close("logits", &back.logits, &Classifier::logits(&model, &x).unwrap(), 1e-6);
    let value = |x: &[f32]| {
        let z = Classifier::logits(&model, x).unwrap();
        f64::from(z[3]) - 2.0 * f64::from(z[7]) + 0.5 * f64::from(z[11])
    };
    for p in [0, 17, 71, 72, 100, 143] {
        let moved = |by: f32| {
            let mut x = x.clone();
            x[p] += by;
            value(&x)
        };
        let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        let largest = back.grad.iter().fold(0f32, |most, g| most.max(g.abs()));
        assert!(
            (slope - f64::from(back.grad[p])).abs() < 0.05 * f64::from(largest),
            "{p}: {slope} {}",
            back.grad[p]
        );
    }
}
