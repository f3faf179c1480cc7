//! Classifiers that answer with logits or labels only, and attacks towards one class.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{fs::File, io::Read, path::Path};

use common::classifiers::{Linear, Scores, images};
use robustness::{
    Access, Attack, AttackContext, Classifier, Cotangent, DataIdentity, Error, EvalConfig,
    Evaluator, Identity, InMemory, Ledger, Norm, NotOf, PullBack, Result, Samples, Shape, Threat,
    Toward, WeightsIdentity,
    attack::{AttackBatch, RowKey, rays::RayS},
    entry,
    evaluate::{ExistingState, StateOptions},
    predicted, rows, sanity, stands,
};

const SHAPE: Shape = Shape { channels: 3, height: 4, width: 4, classes: 4 };

/// The answers of a server.
#[derive(Debug)]
struct Served {
    inner: Linear,
    access: Access,
}

impl Classifier for Served {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn access(&self) -> Access {
        self.access
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let logits = self.inner.logits(x)?;
        if self.access > Access::Labels {
            return Ok(logits);
        }
        let one_hot = |z: &[f32]| {
            let label = predicted(z);
            (0..z.len()).map(move |k| if k == label { 1.0 } else { 0.0 }).collect::<Vec<_>>()
        };
        Ok(logits.chunks(4).flat_map(one_hot).collect())
    }

    fn pull_back(&self, _x: &[f32], _cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        panic!("a server has no gradients");
    }
}

fn served(access: Access) -> (Served, InMemory) {
    let inner = Linear::new(SHAPE, 21);
    let (x, labels) = images(&inner, 24, 0.5);
    (Served { inner, access }, InMemory::new(SHAPE, x.into_values(), labels).unwrap())
}

#[test]
fn attacks_that_ask_for_more_are_refused_and_the_others_work() {
    let threat = Threat { norm: Norm::Linf, epsilon: 0.05 };
    for (access, works, refused) in [
        (Access::Scores, &["clean", "square-200", "rays-300"][..], &["fgsm", "autoattack"][..]),
        (Access::Labels, &["clean", "rays-300"], &["square-200", "pgd-3"]),
    ] {
        let (model, images) = served(access);
        let run = |names: &[&str]| {
            let entries: Vec<_> =
                names.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect();
            let config = EvalConfig::under(threat);
            Evaluator::new(&model, &images, config, Ledger::in_memory()).unwrap().run(&entries)
        };
        let results = run(works).unwrap().results;
        assert_eq!(results.get("clean").unwrap().correct, 24);
        assert!(results.0.iter().skip(1).all(|(_, result)| result.correct < 20), "{results:?}");
        for name in refused {
            let error = run(&[name]).unwrap_err();
            assert!(matches!(error, Error::Access { .. }) && error.is_input(), "{error}");
        }
        let x = images.pixels(&[0, 1]).unwrap();
        assert!(sanity::probe(&model, &x, &[0, 1], Norm::Linf, 0).unwrap().len() < 3);
    }
}

#[test]
fn ray_search_finds_the_corner_of_a_linear_network() {
    // Two classes: the nearest corner is the sign of w, at margin over its l1 norm.
    let shape = Shape { classes: 2, ..SHAPE };
    let model = Linear::new(shape, 22);
    let (x, labels) = images(&model, 8, 0.3);
    let ids: Vec<u32> = (0..8).collect();
    let mut tick = |_| {};
    let threat = Threat { norm: Norm::Linf, epsilon: 1.0 };
    let mut cx = AttackContext::new(&model, threat, 0, "rays", &mut tick);
    let rays = RayS { queries: 6000, minimise: true };
    let found = rays
        .run(&mut cx, &AttackBatch { x: &x, labels: &labels, keys: &RowKey::of(&ids, 0) })
        .unwrap();
    let (before, after) = (model.scores(&x), model.scores(&found));
    for (i, &y) in labels.iter().enumerate() {
        assert!(!stands(after.row(i), y), "{i}");
        let z = before.row(i);
        let l1: f64 = model.difference(1 - y, y).iter().map(|w| w.abs()).sum();
        let exact = (f64::from(z[y]) - f64::from(z[1 - y])) / l1;
        let distance = rows::distance(Norm::Linf, found.row(i), x.row(i));
        // Radii are found to 1e-3.
        assert!(
            distance > exact - 1e-5 && distance < 1.05 * exact + 2e-3,
            "{i}: {distance} {exact}"
        );
    }
}

#[test]
fn an_attack_towards_a_class_makes_the_network_name_it() {
    let model = Linear::new(SHAPE, 23);
    let (x, labels) = images(&model, 40, 0.5);
    let target = labels[0];
    let images = InMemory::new(SHAPE, x.into_values(), labels).unwrap();
    let (toward, others) = (Toward::new(&model, target).unwrap(), NotOf::new(&images, target));
    assert!(others.len() < 40 && others.len() >= 8, "{}", others.len());
    let names = ["clean", "fgsm", "pgd-20", "autoattack:apgd-ce-20+fab-20+square-200"];
    for (norm, epsilon) in [(Norm::Linf, 0.04f32), (Norm::L2, 0.2)] {
        let threat = Threat { norm, epsilon };
        let entries: Vec<_> = names.iter().map(|name| entry(name, norm).unwrap()).collect();
        let outcome =
            Evaluator::new(&toward, &others, EvalConfig::under(threat), Ledger::in_memory())
                .unwrap()
                .run(&entries)
                .unwrap();
        let correct = |name: &str| outcome.results.get(name).unwrap().correct as usize;
        assert_eq!(correct("clean"), others.len());
        // In closed form: the target is within reach of every rival at once only if it is of each;
        // a bound from one rival, and what is exact where one rival decides.
        let reach = |i: usize| {
            let x = others.pixels(&[i]).unwrap();
            let z = model.scores(&x);
            let rivals = (0..4).filter(|&k| k != target).map(|k| {
                let w = model.difference(target, k);
                let dual = match norm {
                    Norm::Linf => w.iter().map(|w| w.abs()).sum::<f64>(),
                    Norm::L2 => w.iter().map(|w| w * w).sum::<f64>().sqrt(),
                    Norm::L1 => w.iter().fold(0.0, |most: f64, w| most.max(w.abs())),
                };
                (f64::from(z[k]) - f64::from(z[target])) / dual
            });
            rivals.fold(f64::NEG_INFINITY, f64::max)
        };
        let out_of_reach =
            (0..others.len()).filter(|&i| reach(i) > f64::from(epsilon) * (1.0 + 1e-5)).count();
        for name in &names[1..] {
            assert!(
                correct(name) >= out_of_reach,
                "{name} {norm}: {} {out_of_reach}",
                correct(name)
            );
        }
        let strongest = correct(names[3]);
        assert!(strongest <= correct("fgsm") && strongest < others.len(), "{norm}: {strongest}");
        // Three rivals leave a linear network little room between bound and truth.
        assert!(strongest - out_of_reach <= 6, "{norm}: {strongest} {out_of_reach}");
    }
    assert!(matches!(Toward::new(&model, 4), Err(Error::Target { .. })));
}

/// The bytes of an array of an npz archive after numpy's header.
fn array(npz: &Path, name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(File::open(npz).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes.split_off(header)
}

fn integers(npz: &Path, name: &str) -> Vec<usize> {
    let bytes = array(npz, name);
    bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect()
}

#[test]
fn reports_and_archives_of_attacks_towards_a_class_name_the_classes_of_the_network() {
    let model = Linear::new(SHAPE, 23);
    let (x, labels) = images(&model, 40, 0.5);
    let target = labels[0];
    let others: Vec<usize> = labels.iter().copied().filter(|&label| label != target).collect();
    let samples = InMemory::new(SHAPE, x.into_values(), labels).unwrap();
    let (toward, left) = (Toward::new(&model, target).unwrap(), NotOf::new(&samples, target));
    let threat = Threat { norm: Norm::Linf, epsilon: 0.04 };
    let (weights, data) = (WeightsIdentity::default(), DataIdentity::default());
    let identity = Identity::new("program", weights, data, threat, 0);
    let options = StateOptions { start: ExistingState::Fresh, examples: Some(SHAPE.pixels()) };
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&dir.path().join("state"), &identity, options).unwrap();
    let mut evaluator = Evaluator::new(&toward, &left, EvalConfig::under(threat), ledger)
        .unwrap()
        .predict_by(&model);
    let entries = [entry("pgd-20", Norm::Linf).unwrap()];
    let outcome = evaluator.run(&entries).unwrap();
    let result = outcome.results.get("pgd-20").unwrap();
    assert!(result.correct > 0 && result.correct < others.len() as u64, "{result:?}");
    assert_eq!(result.by_class.len(), 4);
    for class in &result.by_class {
        let n = others.iter().filter(|&&other| other == class.class).count() as u64;
        assert!(class.n == n && class.correct <= n, "{class:?}, {n}");
    }
    assert_eq!(result.by_class.iter().map(|class| class.correct).sum::<u64>(), result.correct);

    let npz = evaluator.save(&entries[0], &dir.path().join("adv")).unwrap().npz;
    assert_eq!(integers(&npz, "y"), others);
    let bytes = array(&npz, "x_adv");
    let x_adv: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let named: Vec<usize> = model.scores(&x_adv).each().map(predicted).collect();
    let pred = integers(&npz, "pred");
    assert_eq!(pred, named);
    let standing = pred.iter().filter(|&&class| class != target).count() as u64;
    assert_eq!(standing, result.correct);
    let fallen: Vec<bool> = array(&npz, "fallen").iter().map(|&byte| byte == 1).collect();
    assert_eq!(fallen, pred.iter().map(|&class| class == target).collect::<Vec<_>>());
}

/// Answers with few digits, so that classes are often equal.
#[derive(Debug)]
struct Rounded(Linear);

impl Classifier for Rounded {
    fn shape(&self) -> Shape {
        SHAPE
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(self.0.logits(x)?.into_iter().map(|v| (v / 8.0).round() * 8.0).collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let back = self.0.pull_back(x, cotangent)?;
        Ok(PullBack { logits: self.logits(x)?, ..back })
    }
}

#[test]
fn of_equal_logits_the_target_is_named_where_the_network_names_it() {
    let model = Rounded(Linear::new(SHAPE, 25));
    let (x, _) = images(&model.0, 200, 0.5);
    let z = model.scores(&x);
    let best = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let ties = (0..200).filter(|&i| z.row(i).iter().filter(|v| **v == best(z.row(i))).count() > 1);
    assert!(ties.count() > 20);
    for target in 0..4 {
        let toward = Toward::new(&model, target).unwrap().scores(&x);
        for i in 0..200 {
            assert_eq!(stands(toward.row(i), 0), predicted(z.row(i)) != target, "{target} {i}");
        }
    }
}

#[test]
fn gradients_towards_a_class_agree_with_differences() {
    let model = Linear::new(SHAPE, 24);
    let (x, _) = images(&model, 3, 0.5);
    let toward = Toward::new(&model, 1).unwrap();
    let c = [0.5f32, -1.5, 1.0, 2.0, 0.0, 1.0];
    let back = toward.pull_back(&x, &mut |first, z| c[2 * first..2 * first + z.len()].to_vec());
    let back = back.unwrap();
    assert_eq!(back.logits, *toward.scores(&x));
    let value = |x: &[f32]| -> f64 {
        let z = toward.scores(x);
        z.iter().zip(c).map(|(z, c)| f64::from(*z) * f64::from(c)).sum()
    };
    for p in [0, 20, 47, 48, 100, 143] {
        let moved = |by: f32| {
            let mut x = x.clone();
            x[p] += by;
            value(&x)
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        assert!((slope - f64::from(back.grad[p])).abs() < 2e-2, "{p}: {slope} {}", back.grad[p]);
    }
}
