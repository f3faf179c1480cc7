//! Tests attacks against known answers and against PyTorch, and properties that hold for every
//! attack.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::atomic::AtomicUsize;

use common::{
    classifiers::{
        Linear, Perceptron, Quantised, Random, Scores, Softmax, Tally, images, saturated,
    },
    golden::Golden,
};
use robustness::{
    Attack, AttackContext, Classifier, Error, Norm, Rows, Shape, Threat,
    attack::{
        AttackBatch, Objective, Passes, RowKey, apgd, cw::CarliniWagner, deepfool::DeepFool,
        fab::Fab, fmn::FastMinimumNorm, square::Square,
    },
    entry, predicted, rows, sanity,
};

const SHAPE: Shape = Shape { channels: 3, height: 6, width: 5, classes: 4 };
const NORMS: [Norm; 3] = [Norm::Linf, Norm::L2, Norm::L1];

/// Norms of the attacks that are not defined in l1.
const BOTH: [Norm; 2] = [Norm::Linf, Norm::L2];

/// Every attack, in a form that runs quickly.
const SHORT: [&str; 11] = [
    "fgsm",
    "pgd-4x2",
    "cw-4",
    "apgd-ce-9x2",
    "apgd-dlr-9",
    "apgd-t-6",
    "fab-5x2",
    "fab-t-4",
    "square-40",
    "fmn-9",
    "deepfool-5",
];

/// Candidates of all rounds of `attack`: for each image, those of the round that fooled it, or else
/// of the last.
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
        let logits = model.scores(&out);
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

/// The largest value of `w . d` over `|d|_inf <= epsilon` (or the l2 or l1 ball) with `x + d` in
/// [0, 1]; l2 by bisection on the multiplier, l1 by giving to the largest `|w|` first.
fn most(norm: Norm, x: &[f32], w: &[f64], epsilon: f64) -> f64 {
    let clipped = |x: f32, d: f64| (f64::from(x) + d).clamp(0.0, 1.0) - f64::from(x);
    match norm {
        Norm::Linf => x.iter().zip(w).map(|(&x, &w)| w * clipped(x, epsilon * w.signum())).sum(),
        Norm::L2 => {
            let at = |scale: f64| {
                x.iter().zip(w).map(|(&x, &w)| clipped(x, scale * w)).collect::<Vec<_>>()
            };
            let length = |d: &[f64]| d.iter().map(|d| d * d).sum::<f64>().sqrt();
            let (mut low, mut high) = (0.0, 1e6);
            for _ in 0..200 {
                let middle = (low + high) / 2.0;
                if length(&at(middle)) < epsilon { low = middle } else { high = middle }
            }
            at(low).iter().zip(w).map(|(d, w)| d * w).sum()
        }
        Norm::L1 => {
            let room = |i: usize| clipped(x[i], w[i].signum()).abs();
            let mut order: Vec<usize> = (0..w.len()).collect();
            order.sort_by(|&a, &b| w[b].abs().total_cmp(&w[a].abs()));
            let mut left = epsilon;
            let gain = |i: usize| {
                let way = room(i).min(left);
                left -= way;
                way * w[i].abs()
            };
            order.into_iter().map(gain).sum()
        }
    }
}

/// The length of the shortest `d` with `w . d >= margin` and `x + d` in [0, 1].
fn shortest(norm: Norm, x: &[f32], w: &[f64], margin: f64) -> f64 {
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if most(norm, x, w, middle) < margin { low = middle } else { high = middle }
    }
    high
}

#[test]
fn apgd_reaches_the_worst_loss_in_the_ball() {
    let shape = Shape { classes: 2, ..SHAPE };
    let model = Linear::new(shape, 1);
    // With a small contrast the box is far away; with a large one it bounds many pixels.
    for contrast in [0.2, 1.0] {
        let (x, labels) = images(&model, 12, contrast);
        for norm in NORMS {
            let epsilon = match norm {
                Norm::Linf => 0.1,
                Norm::L2 => 0.8,
                Norm::L1 => 3.0,
            };
            let threat = Threat { norm, epsilon };
            for objective in [Objective::CrossEntropy, Objective::Margin] {
                let batch = AttackBatch { x: &x, labels: &labels, keys: &keys(12) };
                let mut tick = |_| {};
                let mut cx = AttackContext::new(&model, threat, 0, "apgd", &mut tick);
                let plan = apgd::Plan { objective, steps: 100, eot: 1, leave_when_fooled: false };
                let mut start = x.clone();
                if norm == Norm::L1 {
                    // How sparse steps are follows from the start: all pixels are changed by it.
                    start.iter_mut().enumerate().for_each(|(i, v)| *v += (1.7 * i as f32).sin());
                }
                let found = apgd::maximise(&mut cx, &batch, &[], start, plan).unwrap();
                let logits = model.scores(&x);
                for (i, &y) in labels.iter().enumerate() {
                    let z = logits.row(i);
                    let w = model.difference(1 - y, y);
                    let margin = f64::from(z[1 - y]) - f64::from(z[y])
                        + most(norm, x.row(i), &w, f64::from(epsilon));
                    let worst =
                        if objective == Objective::Margin { margin } else { margin.exp().ln_1p() };
                    // In the l2 ball with the box the paper's projections (ball, then box) stop a
                    // little short of the optimum.
                    // In l1 the last steps are a tenth of the radius.
                    let tolerance = match norm {
                        Norm::L2 if contrast == 1.0 => 0.02,
                        Norm::L1 => 0.06,
                        _ => 1e-4,
                    };
                    let short = (worst - found.loss[i]) / worst.abs().max(1.0);
                    assert!(
                        (-1e-5..tolerance).contains(&short),
                        "{norm} {contrast} {objective:?} {i}: {} of {worst}",
                        found.loss[i]
                    );
                }
            }
        }
    }
}

#[test]
fn minimal_perturbations_of_a_linear_network_are_found() {
    let model = Linear::new(SHAPE, 2);
    for contrast in [0.3, 1.0] {
        let n = 10;
        let (x, labels) = images(&model, n, contrast);
        let logits = model.scores(&x);
        let keys = keys(n);
        let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
        for norm in NORMS {
            let exact: Vec<f64> = (0..n)
                .map(|i| {
                    let (z, y) = (logits.row(i), labels[i]);
                    let to = |k: usize| {
                        shortest(
                            norm,
                            x.row(i),
                            &model.difference(k, y),
                            f64::from(z[y]) - f64::from(z[k]),
                        )
                    };
                    (0..4).filter(|&k| k != y).map(to).fold(f64::INFINITY, f64::min)
                })
                .collect();
            if contrast == 0.3 {
                // Away from the box: margin over the dual norm.
                let (z, y) = (logits.row(0), labels[0]);
                let closed = (0..4).filter(|&k| k != y).map(|k| {
                    let w = model.difference(k, y);
                    let dual = match norm {
                        Norm::Linf => w.iter().map(|w| w.abs()).sum::<f64>(),
                        Norm::L2 => w.iter().map(|w| w * w).sum::<f64>().sqrt(),
                        // One value alone would do, had it the room.
                        Norm::L1 => return exact[0],
                    };
                    (f64::from(z[y]) - f64::from(z[k])) / dual
                });
                assert!((closed.fold(f64::INFINITY, f64::min) - exact[0]).abs() < 1e-6);
            }
            let fab = |targeted| Fab { targeted, steps: 100, restarts: 1, minimise: true };
            // Without targets FAB chooses the nearest boundary as if there were no box.
            let (untargeted, targeted) = match (norm, contrast == 0.3) {
                (Norm::L1, _) => (0.2, 5e-3),
                (_, true) => (1e-4, 1e-4),
                (_, false) => (0.2, 5e-3),
            };
            let mut attacks: Vec<(&str, Box<dyn Attack>, f64)> = vec![
                ("fab", Box::new(fab(false)), untargeted),
                ("fab-t", Box::new(fab(true)), targeted),
            ];
            if norm == Norm::L2 {
                attacks.push((
                    "cw",
                    Box::new(CarliniWagner { steps: 400, searches: 9, minimise: true }),
                    0.05,
                ));
            }
            for (name, attack, tolerance) in attacks {
                let mut nearest = vec![f64::INFINITY; n];
                for round in 0..attack.rounds(4) {
                    let mut tick = |_| {};
                    let threat = Threat { norm, epsilon: 1.0 };
                    let mut cx = AttackContext::new(&model, threat, 0, name, &mut tick);
                    let keys: Vec<_> = keys.iter().map(|key| RowKey { round, ..*key }).collect();
                    let batch = AttackBatch { keys: &keys, ..batch };
                    let found = attack.run(&mut cx, &batch).unwrap();
                    let at = model.scores(&found);
                    for i in 0..n {
                        if predicted(at.row(i)) != labels[i] {
                            nearest[i] =
                                nearest[i].min(rows::distance(norm, found.row(i), x.row(i)));
                        }
                    }
                }
                for i in 0..n {
                    let more = nearest[i] / exact[i] - 1.0;
                    assert!(
                        (-1e-4..tolerance).contains(&more),
                        "{name} {norm} {contrast} {i}: {} instead of {}",
                        nearest[i],
                        exact[i]
                    );
                }
            }
        }
    }
}

#[test]
fn carlini_wagner_finds_the_way_whatever_the_scale_of_the_logits() {
    let model = Linear::new(SHAPE, 9);
    let (x, labels) = images(&model, 40, 0.5);
    let keys = keys(40);
    let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
    let threat = Threat { norm: Norm::L2, epsilon: 0.15 };
    let standing = |name: &str, scale: f32| {
        let mut model = model.clone();
        model.weights.iter_mut().chain(&mut model.bias).for_each(|v| *v *= scale);
        let part = &entry(name, Norm::L2).unwrap().parts[0];
        let mut found = run(part.attack.as_ref(), &model, threat, &batch);
        found.for_each(|i, row| rows::project(threat, x.row(i), row));
        let logits = model.scores(&found);
        (0..40).filter(|&i| predicted(logits.row(i)) == labels[i]).count()
    };
    let plain = standing("cw", 1.0);
    assert!(plain > 0 && plain <= standing("pgd-50", 1.0) + 1, "{plain}");
    for scale in [1e-4, 1e4, 1e6] {
        let scaled = standing("cw", scale);
        assert!(scaled.abs_diff(plain) <= 1, "{scale}: {scaled} instead of {plain}");
    }
}

#[test]
fn losses_agree_with_pytorch() {
    let golden = Golden::load("losses");
    let (y, t) = (&golden.labels["y"], &golden.labels["target"]);
    for (name, objective) in [
        ("ce", Objective::CrossEntropy),
        ("margin", Objective::Margin),
        ("dlr", Objective::Dlr),
        ("dlr-targeted", Objective::TargetedDlr),
    ] {
        let (mut losses, mut grads) = (Vec::new(), Vec::new());
        for (i, z) in golden.values("z").chunks(5).enumerate() {
            let mut grad = [0f32; 5];
            let loss = objective.evaluate(z, y[i], t[i], &mut grad);
            // The gradient here is scaled to 1 over the other classes, whose probabilities sum to 1
            // - exp(-loss).
            let scale = if name == "ce" { -(-loss).exp_m1() as f32 } else { 1.0 };
            losses.push(loss as f32);
            grads.extend(grad.map(|g| g * scale));
        }
        golden.check(&format!("{name}.loss"), &losses, 1e-6);
        golden.check(&format!("{name}.grad"), &grads, 1e-6);
    }
}

/// Values of an attack on a perceptron: the values, the network, and its images of 3 x side x side.
fn of_perceptron(name: &str, side: usize) -> (Golden, Perceptron, Rows) {
    let golden = Golden::load(name);
    let shape = Shape { channels: 3, height: side, width: side, classes: 5 };
    let values = |key: &str| golden.values(key).to_vec();
    let [w1, b1, w2, b2] = ["w1", "b1", "w2", "b2"].map(values);
    let x = Rows::new(values("x"), shape.pixels());
    let model = Perceptron { shape, w1, b1, w2, b2 };
    (golden, model, x)
}

#[test]
fn auto_pgd_agrees_with_pytorch() {
    let (golden, model, x) = of_perceptron("apgd", 2);
    let labels = golden.labels["y"].clone();
    let targets = golden.labels["target"].clone();
    let keys = keys(labels.len());
    for (norm, epsilon) in [(Norm::Linf, 0.2), (Norm::L2, 0.5)] {
        for (name, objective) in [
            ("ce", Objective::CrossEntropy),
            ("dlr", Objective::Dlr),
            ("dlr-targeted", Objective::TargetedDlr),
        ] {
            let mut tick = |_| {};
            let mut cx =
                AttackContext::new(&model, Threat { norm, epsilon }, 0, "golden", &mut tick);
            let plan = apgd::Plan { objective, steps: 40, eot: 1, leave_when_fooled: false };
            let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
            let start = golden.values(&format!("{norm}.start")).to_vec();
            let start = Rows::new(start, model.shape.pixels());
            let found = apgd::maximise(&mut cx, &batch, &targets, start, plan).unwrap();
            let key = |what: &str| format!("{norm}.{name}.{what}");
            golden.check(&key("step"), &found.step, 1e-6);
            golden.check(
                &key("loss"),
                &found.loss.iter().map(|&v| v as f32).collect::<Vec<_>>(),
                1e-4,
            );
            golden.check(&key("best"), &found.point, 1e-3);
        }
    }
}

#[test]
fn minimum_norm_attacks_agree_with_pytorch() {
    let (golden, model, x) = of_perceptron("minimal", 2);
    let labels = golden.labels["y"].clone();
    let keys = keys(labels.len());
    let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
    for norm in BOTH {
        // In no ball worth speaking of: the search goes on to its end.
        let threat = Threat { norm, epsilon: 1e-6 };
        let attacks: [(&str, Box<dyn Attack>); 2] = [
            ("fmn", Box::new(FastMinimumNorm { steps: 40 })),
            ("deepfool", Box::new(DeepFool { steps: 50 })),
        ];
        for (name, attack) in attacks {
            let mut tick = |_| {};
            let mut cx = AttackContext::new(&model, threat, 0, "golden", &mut tick);
            let found = attack.run(&mut cx, &batch).unwrap();
            golden.check(&format!("{norm}.{name}"), &found, 1e-4);
        }
    }
}

/// Both find the exact minimal perturbation of a linear network where the box is far.
#[test]
fn minimum_norm_attacks_are_exact_on_linear_networks() {
    let model = Linear::new(SHAPE, 3);
    let (mut x, labels) = images(&model, 12, 0.1);
    // In the middle of the box.
    x.iter_mut().for_each(|v| *v = 0.5 + 0.02 * (*v - 0.5));
    let logits = model.scores(&x);
    let labels: Vec<usize> = (0..labels.len()).map(|i| predicted(logits.row(i))).collect();
    let keys = keys(labels.len());
    let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
    for norm in BOTH {
        let least: Vec<f64> = (0..labels.len())
            .map(|i| {
                let (z, y) = (logits.row(i), labels[i]);
                let distance = |k: usize| {
                    let w = model.difference(k, y);
                    let dual: f64 = match norm {
                        Norm::Linf => w.iter().map(|w| w.abs()).sum(),
                        Norm::L2 | Norm::L1 => w.iter().map(|w| w * w).sum::<f64>().sqrt(),
                    };
                    f64::from(z[y] - z[k]) / dual
                };
                let others = (0..SHAPE.classes).filter(|&k| k != y);
                others.map(distance).fold(f64::INFINITY, f64::min)
            })
            .collect();
        for (name, slack) in [("deepfool", 0.021), ("fmn", 0.03)] {
            let attack = entry(name, norm).unwrap().parts.remove(0).attack;
            let found = run(attack.as_ref(), &model, Threat { norm, epsilon: 1e-6 }, &batch);
            let scores = model.scores(&found);
            for i in 0..labels.len() {
                let length = rows::distance(norm, x.row(i), found.row(i));
                assert_ne!(predicted(scores.row(i)), labels[i], "{name} {norm} {i}");
                let (least, most) = (least[i] * 0.999, least[i] * (1.0 + slack) + 1e-4);
                assert!((least..=most).contains(&length), "{name} {norm}: {length}, {least}");
            }
        }
    }
}

#[test]
fn projections_on_the_l1_ball_agree_with_pytorch() {
    let golden = Golden::load("l1");
    let width = 48;
    let mut found = golden.values("point").to_vec();
    let rows = found.chunks_mut(width).zip(golden.values("x").chunks(width));
    for ((point, x), &epsilon) in rows.zip(golden.values("epsilon")) {
        rows::project(Threat { norm: Norm::L1, epsilon }, x, point);
    }
    golden.check("projected", &found, 1e-6);
}

#[test]
fn auto_pgd_in_l1_agrees_with_pytorch() {
    let (golden, model, x) = of_perceptron("apgd_l1", 4);
    let (labels, targets) = (golden.labels["y"].clone(), golden.labels["target"].clone());
    let keys = keys(labels.len());
    for (name, objective) in [
        ("ce", Objective::CrossEntropy),
        ("dlr", Objective::Dlr),
        ("dlr-targeted", Objective::TargetedDlr),
    ] {
        let threat = Threat { norm: Norm::L1, epsilon: 1.5 };
        let mut tick = |_| {};
        let mut cx = AttackContext::new(&model, threat, 0, "golden", &mut tick);
        let plan = apgd::Plan { objective, steps: 100, eot: 1, leave_when_fooled: false };
        let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
        let start = Rows::new(golden.values("start").to_vec(), model.shape.pixels());
        let found = apgd::maximise(&mut cx, &batch, &targets, start, plan).unwrap();
        let loss: Vec<f32> = found.loss.iter().map(|&v| v as f32).collect();
        golden.check(&format!("{name}.step"), &found.step, 1e-6);
        golden.check(&format!("{name}.loss"), &loss, 1e-4);
        golden.check(&format!("{name}.best"), &found.point, 1e-3);
    }
}

#[test]
fn candidates_lie_in_ball_and_box_whatever_the_shape_and_the_classes() {
    for (channels, height, width, classes) in
        [(1, 5, 7, 2), (3, 4, 4, 3), (1, 1, 1, 5), (2, 9, 3, 12), (3, 3, 3, 1)]
    {
        let shape = Shape { channels, height, width, classes };
        let model = Linear::new(shape, 5);
        let (x, labels) = images(&model, 6, 1.0);
        let keys = keys(6);
        let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
        for norm in NORMS {
            let threat = Threat { norm, epsilon: if norm == Norm::Linf { 0.15 } else { 0.6 } };
            let defined = |name: &&str| !matches!(entry(name, norm), Err(Error::Undefined { .. }));
            for name in SHORT.into_iter().filter(defined) {
                // The plain l2 form of cw has no restarts.
                for part in entry(name, norm).unwrap().parts {
                    let out = run(part.attack.as_ref(), &model, threat, &batch);
                    let nearest = ["fab", "fmn", "deepfool"];
                    let far = nearest.iter().any(|base| name.starts_with(base))
                        || (name.starts_with("cw") && norm == Norm::L2);
                    for i in 0..6 {
                        let (x, z) = (x.row(i), out.row(i));
                        assert!(
                            z.iter().all(|v| (0.0..=1.0).contains(v)),
                            "{name} {norm} {shape:?}"
                        );
                        // These look for the nearest example, and may return one that is too far;
                        // the evaluator projects it.
                        let within = rows::distance(norm, x, z)
                            <= f64::from(threat.epsilon) * (1.0 + 1e-5) + 1e-6;
                        assert!(within || far, "{name} {norm} {shape:?}");
                    }
                    if classes == 1 {
                        assert_eq!(predicted(&model.scores(&out)[..1]), 0);
                    }
                }
            }
        }
    }
}

/// The calls of the first round of `attack` on one image that stands to the end: those for logits
/// alone, and those for gradients.
fn calls(attack: &dyn Attack, model: &Tally<'_>, norm: Norm) -> [usize; 2] {
    let (x, labels) = images(model, 1, 0.3);
    model.take();
    let threat = Threat { norm, epsilon: 1e-6 };
    let mut tick = |_| {};
    let mut cx = AttackContext::new(model, threat, 1, "test", &mut tick);
    attack.run(&mut cx, &AttackBatch { x: &x, labels: &labels, keys: &keys(1) }).unwrap();
    model.take()
}

#[test]
fn an_image_takes_no_more_passes_than_an_attack_says() {
    let linear = Linear::new(SHAPE, 3);
    let model = Tally::new(&linear);
    let said = |attack: &dyn Attack| {
        let Passes { forward, gradient } = attack.passes(SHAPE.classes);
        [forward, gradient]
    };
    let more = ["pgd-7@0.1", "cw", "rays-40", "autoattack-rand", "fab-30", "fab-t-30"];
    for norm in NORMS {
        let names = SHORT.into_iter().chain(more);
        for entry in names.filter_map(|name| entry(name, norm).ok()) {
            for part in &entry.parts {
                let (found, said) = (calls(&*part.attack, &model, norm), said(&*part.attack));
                let within = found.iter().zip(&said).all(|(found, said)| found <= said);
                assert!(within, "{} {norm}: {found:?}, not {said:?}", part.name);
            }
        }
    }
    let searches: [&dyn Attack; 2] = [
        &CarliniWagner { steps: 4, searches: 3, minimise: true },
        &Fab { targeted: false, steps: 9, restarts: 1, minimise: true },
    ];
    for attack in searches {
        let (found, said) = (calls(attack, &model, Norm::L2), said(attack));
        assert!(found[0] <= said[0] && found[1] <= said[1], "{attack:?}: {found:?}, not {said:?}");
    }
    // Where the number does not hang on what is found, it is exact.
    for (name, norm) in [("pgd-7@0.1", Norm::Linf), ("cw-4", Norm::L2), ("rays-40", Norm::Linf)] {
        let parts = entry(name, norm).unwrap().parts;
        let attack = &*parts[0].attack;
        assert_eq!(calls(attack, &model, norm), said(attack), "{name}");
    }
}

#[test]
fn stronger_attacks_leave_less_standing() {
    let model = Linear::new(SHAPE, 8);
    let (x, labels) = images(&model, 60, 0.9);
    let keys = keys(60);
    let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
    let standing = |name: &str, norm: Norm, epsilon: f32| -> usize {
        let threat = Threat { norm, epsilon };
        let mut left = vec![true; 60];
        for part in entry(name, norm).unwrap().parts {
            let mut out = run(part.attack.as_ref(), &model, threat, &batch);
            out.for_each(|i, row| rows::project(threat, x.row(i), row));
            let logits = model.scores(&out);
            (0..60).for_each(|i| left[i] &= predicted(logits.row(i)) == labels[i]);
        }
        left.into_iter().filter(|left| *left).count()
    };
    for (norm, radii) in [
        (Norm::Linf, [0.005f32, 0.02, 0.04]),
        (Norm::L2, [0.02, 0.1, 0.2]),
        (Norm::L1, [0.1, 0.4, 0.8]),
    ] {
        for name in [
            if norm == Norm::L1 { "square-10" } else { "pgd-10" },
            "apgd-ce-30",
            "apgd-t-20",
            "fab-t-20",
            "autoattack:apgd-ce-20+fab-20+square-50",
        ] {
            let counts = radii.map(|radius| standing(name, norm, radius));
            assert!(counts.is_sorted_by(|a, b| a >= b), "{name} {norm}: {counts:?}");
            assert!(counts[0] > counts[2], "{name} {norm}: {counts:?}");
        }
        let ensemble = standing("autoattack:apgd-ce-20+square-50", norm, radii[1]);
        assert!(
            ensemble <= standing("apgd-ce-20", norm, radii[1])
                && ensemble <= standing("square-50", norm, radii[1])
        );
        let single = if norm == Norm::L1 { "apgd-ce-5" } else { "pgd-5" };
        let several = format!("{single}x4");
        assert!(standing(&several, norm, radii[1]) <= standing(single, norm, radii[1]));
    }
}

#[test]
fn few_classes_are_said() {
    let notes = |classes: usize, name: &str| -> Vec<String> {
        let shape = Shape { classes, ..SHAPE };
        entry(name, Norm::Linf)
            .unwrap()
            .parts
            .iter()
            .filter_map(|part| part.attack.note(shape))
            .collect()
    };
    assert!(notes(10, "autoattack").is_empty());
    let two = notes(2, "autoattack-plus").join("\n");
    assert!(
        two.contains("apgd-dlr: the DLR loss needs 3 classes")
            && two.contains("apgd-t: the targeted DLR loss needs 4 classes"),
        "{two}"
    );
    assert!(two.contains("fab-t: 1 target classes instead of 9"), "{two}");
    assert!(notes(5, "apgd-t")[0].contains("4 target classes instead of 9"));
}

#[test]
fn eot_averages_a_random_network() {
    let model = Random { inner: Linear::new(SHAPE, 4), size: 0.5, passes: AtomicUsize::new(0) };
    let (x, labels) = images(&model.inner, 8, 0.5);
    let parts = entry("autoattack-rand", Norm::Linf).unwrap().parts;
    let before = model.passes.load(std::sync::atomic::Ordering::Relaxed);
    let threat = Threat { norm: Norm::Linf, epsilon: 0.1 };
    let out = run(
        parts[0].attack.as_ref(),
        &model,
        threat,
        &AttackBatch { x: &x, labels: &labels, keys: &keys(8) },
    );
    let logits = model.inner.scores(&out);
    let fallen = (0..8).filter(|&i| predicted(logits.row(i)) != labels[i]).count();
    // The noise may remove an image too early.
    assert!(fallen >= 6, "{fallen}");
    assert!(model.passes.load(std::sync::atomic::Ordering::Relaxed) - before > 20);
}

#[test]
fn square_needs_no_gradient() {
    let model = Quantised(Linear::new(SHAPE, 6));
    let (x, labels) = images(&model, 10, 0.6);
    let keys = keys(10);
    let batch = AttackBatch { x: &x, labels: &labels, keys: &keys };
    let threat = Threat { norm: Norm::Linf, epsilon: 0.3 };
    let fallen = |attack: &dyn Attack| {
        let logits = model.scores(&run(attack, &model, threat, &batch));
        (0..10).filter(|&i| predicted(logits.row(i)) != labels[i]).count()
    };
    assert_eq!(fallen(&Square { queries: 300, restarts: 1 }), 10);
    assert!(fallen(entry("apgd-ce-20", Norm::Linf).unwrap().parts[0].attack.as_ref()) < 10);
}

#[test]
fn sanity_checks_say_what_is_wrong() {
    let warnings = |model: &dyn Classifier, labels: &dyn Classifier| {
        let (x, labels) = images(labels, 20, 0.8);
        sanity::probe(model, &x, &labels, Norm::Linf, 0).unwrap()
    };
    let linear = Linear::new(SHAPE, 7);
    assert_eq!(warnings(&linear, &linear), Vec::<String>::new());

    let quantised = Quantised(linear.clone());
    let found = warnings(&quantised, &quantised).join("\n");
    assert!(found.contains("20 of 20 images is exactly zero"), "{found}");
    assert!(found.contains("withstand pgd-10 at epsilon 64/255"), "{found}");

    let random = Random { inner: linear.clone(), size: 20.0, passes: AtomicUsize::new(0) };
    let found = warnings(&random, &linear).join("\n");
    assert!(
        found.contains("two forward passes of the same images differ")
            && found.contains("autoattack-rand"),
        "{found}"
    );
    assert!(found.contains("fall at epsilon 0"), "{found}");

    let found = warnings(&Softmax(linear.clone()), &linear).join("\n");
    assert!(found.contains("probabilities, not logits"), "{found}");

    let saturated = saturated(linear.clone());
    let found = warnings(&saturated, &saturated).join("\n");
    assert!(found.contains("rounds to zero in f32"), "{found}");
    // ... and the attacks here see through it.
    assert!(!found.contains("withstand"), "{found}");

    let mut broken = linear;
    broken.bias[0] = f32::NAN;
    let found = sanity::probe(&broken, &[0.5; 90], &[1], Norm::Linf, 0).unwrap().join("\n");
    assert!(found.contains("not finite"), "{found}");
    broken.bias[0] = f32::INFINITY;
    let found = sanity::probe(&broken, &[0.5; 90], &[1], Norm::Linf, 0).unwrap().join("\n");
    assert!(found.contains("not finite"), "{found}");
    broken.bias[0] = f32::NEG_INFINITY;
    let found = sanity::probe(&broken, &[0.5; 90], &[1], Norm::Linf, 0).unwrap().join("\n");
    assert!(found.contains("hold -inf") && !found.contains("not finite"), "{found}");
}
