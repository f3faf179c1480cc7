//! Tests of the evaluator: resuming, counting, and the content of its results.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use common::classifiers::{Counting, Linear, Quantised, Random, TwoLanes, images};
use robustness::{
    Classifier, DataIdentity, EvalConfig, EvalEvent, EvalObserver, Evaluator, Identity, InMemory,
    Ledger, Norm, Report, Results, Samples, Shape, Threat, WeightsIdentity,
    attack::fab::Fab,
    entry,
    evaluate::{ClassResult, ExistingState, Pixels, StateOptions},
};

const RESUME: StateOptions = StateOptions { start: ExistingState::Resume, examples: None };
const SHAPE: Shape = Shape { channels: 3, height: 6, width: 6, classes: 5 };

/// A split of `n` images, some of which `model` misclassifies.
fn split(model: &dyn Classifier, n: usize) -> InMemory {
    let (x, labels) = images(model, n, 0.9);
    // Eight bits a pixel, as in a data set.
    let pixels = x.iter().map(|v| (v * 255.0).round() / 255.0).collect();
    let labels = labels
        .into_iter()
        .enumerate()
        .map(|(i, y)| if i % 10 == 9 { (y + 1) % 5 } else { y })
        .collect();
    InMemory::new(model.shape(), pixels, labels).unwrap()
}

fn config(batch: usize) -> EvalConfig {
    let threat = Threat { norm: Norm::Linf, epsilon: 0.012 };
    EvalConfig { threat, seed: 5, batch, pixels: Pixels::Any }
}

fn identity(config: &EvalConfig) -> Identity {
    let weights = WeightsIdentity { sha256: "weights".into(), ..Default::default() };
    let data = DataIdentity { sha256: "data".into(), ..Default::default() };
    Identity::new("program", weights, data, config.threat, config.seed)
}

/// All results that must not depend on how the work was divided.
fn essence(results: &Results) -> Vec<(String, u64, u64, Vec<u64>)> {
    let parts = |result: &robustness::evaluate::AttackResult| {
        result.parts.iter().map(|part| part.correct).collect()
    };
    results
        .0
        .iter()
        .map(|(name, result)| (name.clone(), result.correct, result.attacked, parts(result)))
        .collect()
}

const NAMES: [&str; 5] =
    ["clean", "fgsm", "pgd-3x3", "autoattack:apgd-ce-8+apgd-t-5+square-30", "apgd-ce-8x2"];

fn evaluate(
    model: &dyn Classifier,
    split: &InMemory,
    batch: usize,
    ledger: Ledger,
) -> robustness::Result<Results> {
    let entries: Vec<_> = NAMES.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect();
    Evaluator::new(model, split, config(batch), ledger)?
        .run(&entries)
        .map(|outcome| outcome.results)
}

#[test]
fn a_misclassified_image_is_broken_and_the_batch_does_not_matter() {
    let model = Linear::new(SHAPE, 11);
    let split = split(&model, 50);
    let whole = evaluate(&model, &split, 256, Ledger::in_memory()).unwrap();
    assert_eq!(whole.get("clean").unwrap().correct, 45);
    let fgsm = whole.get("fgsm").unwrap();
    assert!(fgsm.correct > 0 && fgsm.correct < 45 && fgsm.attacked == 45, "{fgsm:?}");
    for batch in [1, 7, 45] {
        assert_eq!(
            essence(&evaluate(&model, &split, batch, Ledger::in_memory()).unwrap()),
            essence(&whole),
            "{batch}"
        );
    }
}

/// Where the images that are left do not fill a batch, rounds run side by side, and so do the
/// queries of a search: in fewer calls, to the same result.
#[test]
fn a_few_images_take_few_calls_and_fall_in_the_same_rounds() {
    let model = Linear::new(SHAPE, 17);
    let split = split(&model, 20);
    for name in ["apgd-t-6x2", "fab-t-6", "pgd-2x8", "square-300"] {
        let entry = entry(name, Norm::Linf).unwrap();
        let key = entry.parts[0].key.clone();
        let run = |batch: usize, epsilon: f32, tells: bool| {
            let counted = Counting { tells, ..Counting::new(&model, usize::MAX) };
            let threat = Threat { norm: Norm::Linf, epsilon };
            let config = EvalConfig { batch, ..EvalConfig::under(threat) };
            let mut evaluator =
                Evaluator::new(&counted, &split, config, Ledger::in_memory()).unwrap();
            let outcome = evaluator.run(std::slice::from_ref(&entry)).unwrap();
            let fell = evaluator.fell_in(&key, &(0..20).collect::<Vec<_>>());
            (fell, outcome.results.0[0].1.queries, counted.calls(), counted.images())
        };
        for epsilon in [0.004, 0.012, 0.02] {
            let (few, many) = (run(1, epsilon, true), run(200, epsilon, false));
            assert_eq!(few.0, many.0, "{name} {epsilon}");
            assert!(many.2 < few.2 / 8, "{name} {epsilon}: {} and {} calls", few.2, many.2);
            // Where answers cost, none is asked for that may not be needed.
            let told = run(200, epsilon, true);
            assert_eq!((&told.0, told.1), (&few.0, few.1), "{name} {epsilon}");
            assert!(told.3 <= many.3, "{name} {epsilon}: {} and {} images", told.3, many.3);
        }
    }
}

/// Attacks that search on `near`, and when each image fell to the last of them.
#[test]
fn two_lanes_work_at_the_same_time_and_find_the_same() {
    let model = Linear::new(SHAPE, 11);
    let split = split(&model, 50);
    let plain = evaluate(&model, &split, 64, Ledger::in_memory()).unwrap();
    let entries: Vec<_> = NAMES.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect();
    let all: Vec<usize> = (0..split.len()).collect();
    let key = &entries.last().unwrap().parts[0].key;
    let (_, fell) = searched(&model, &model, &split);
    for batch in [7, 64] {
        let lanes = TwoLanes::new(&model);
        let mut evaluator =
            Evaluator::new(&lanes, &split, config(batch), Ledger::in_memory()).unwrap();
        let seen = Events::default();
        evaluator = evaluator.observe(seen.clone());
        let found = evaluator.run(&entries).unwrap().results;
        assert_eq!(essence(&found), essence(&plain), "batches of {batch}");
        assert_eq!(evaluator.fell_in(key, &all), fell);
        assert_eq!(lanes.most(), 2);
        // Both lanes report into one bar, which ends where all is done.
        let seen = seen.0.lock().unwrap();
        assert!(seen.iter().all(|(done, total)| done <= total), "{seen:?}");
        assert!(seen.iter().any(|(done, total)| done == total));
    }
}

/// What was reported: units done and in total.
#[derive(Clone, Debug, Default)]
struct Events(Arc<Mutex<Vec<(u64, u64)>>>);

impl EvalObserver for Events {
    fn on(&mut self, event: &EvalEvent<'_>) {
        if let EvalEvent::Advanced { done, total, .. } = event {
            self.0.lock().unwrap().push((*done, *total));
        }
    }
}

fn searched(model: &Linear, near: &Linear, split: &InMemory) -> (Results, Vec<Option<usize>>) {
    let entries: Vec<_> = NAMES.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect();
    let evaluator = Evaluator::new(model, split, config(64), Ledger::in_memory()).unwrap();
    let mut evaluator = evaluator.search_on(near, "a rough form").unwrap();
    let outcome = evaluator.run(&entries).unwrap();
    let said = outcome.notes.iter().any(|note| note.contains("searched in a rough form"));
    assert!(said, "{:?}", outcome.notes);
    let key = &entries.last().unwrap().parts[0].key;
    (outcome.results, evaluator.fell_in(key, &(0..split.len()).collect::<Vec<_>>()))
}

#[test]
fn what_a_rough_search_finds_is_judged_by_the_network_itself() {
    let model = Linear::new(SHAPE, 11);
    let split = split(&model, 50);
    let plain = evaluate(&model, &split, 64, Ledger::in_memory()).unwrap();
    let (same, fell) = searched(&model, &model, &split);
    assert_eq!(essence(&same), essence(&plain));
    assert!(fell.iter().any(Option::is_some) && fell.iter().any(Option::is_none));

    // Weights of eight bits: candidates lie on the wrong side of the border by little.
    let rounded = |w: &f32| f32::from_bits(w.to_bits() & 0xffff_0000);
    let near = Linear { weights: model.weights.iter().map(rounded).collect(), ..model.clone() };
    for ((name, rough), (_, exact)) in searched(&model, &near, &split).0.0.iter().zip(&plain.0) {
        assert!(rough.correct.abs_diff(exact.correct) <= 1, "{name}: {rough:?}, {exact:?}");
    }

    // A form that calls nearly everything class 0: what it takes for fooled is attacked in earnest.
    let mut near = model.clone();
    near.bias[0] += 1e3;
    let (results, sly) = searched(&model, &near, &split);
    assert_eq!(results.get("clean").unwrap().correct, plain.get("clean").unwrap().correct);
    for (i, (sly, fell)) in sly.iter().zip(&fell).enumerate() {
        assert!(split.label(i) == 0 || sly == fell, "image {i}: {sly:?}, {fell:?}");
    }
}

#[test]
fn a_search_on_another_network_is_refused() {
    let (model, other) = (Linear::new(SHAPE, 11), Shape { classes: 4, ..SHAPE });
    let other = Linear::new(other, 11);
    let split = split(&model, 5);
    let evaluator = Evaluator::new(&model, &split, config(64), Ledger::in_memory()).unwrap();
    assert!(evaluator.search_on(&other, "another").is_err());
}

#[test]
fn an_evaluation_that_broke_down_goes_on_where_it_was() {
    let model = Linear::new(SHAPE, 12);
    let split = split(&model, 40);
    let dir = tempfile::tempdir().unwrap();
    let counted = Counting::new(&model, usize::MAX);
    let unbroken = evaluate(&counted, &split, 8, Ledger::in_memory()).unwrap();
    let needed = counted.images();

    let path = dir.path().join("state.jsonl");
    let mut used = 0;
    let mut sittings = 0;
    let resumed = loop {
        // Each session breaks down a little after one batch; a batch that was cut off is run again.
        let counted = Counting::new(&model, 90);
        let found = evaluate(
            &counted,
            &split,
            8,
            Ledger::open(&path, &identity(&config(8)), RESUME).unwrap(),
        );
        used += counted.images();
        sittings += 1;
        if let Ok(results) = found {
            break results;
        }
        assert!(sittings < 60, "no progress");
    };
    assert!(sittings > 2, "{sittings}");
    assert_eq!(essence(&resumed), essence(&unbroken));
    // What is done twice is the batch that each break cut off: at most 8 images through 90 calls.
    assert!(
        used <= needed + sittings * 8 * 90,
        "{used} images instead of {needed} in {sittings} sittings"
    );

    // Once all results are known nothing is computed, and more restarts of an attack continue after
    // the finished ones.
    let counted = Counting::new(&model, usize::MAX);
    let ledger = Ledger::open(&path, &identity(&config(8)), RESUME).unwrap();
    assert_eq!(essence(&evaluate(&counted, &split, 8, ledger).unwrap()), essence(&unbroken));
    assert_eq!(counted.images(), 0);
}

#[test]
fn a_short_evaluation_leaves_what_a_long_one_was_cut_off_in() {
    let model = Linear::new(SHAPE, 11);
    let split = split(&model, 50);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.jsonl");
    let run = |model: &dyn Classifier, names: &[&str]| -> robustness::Result<Results> {
        let entries = robustness::attack::entries(names, Norm::Linf)?;
        let ledger = Ledger::open(&path, &identity(&config(8)), RESUME)?;
        let mut evaluator = Evaluator::new(model, &split, config(8), ledger)?;
        let results = evaluator.run(&entries)?.results;
        evaluator.finish()?;
        Ok(results)
    };
    let long = ["clean", "apgd-ce-8", "pgd-50x40"];
    let whole = Counting::new(&model, usize::MAX);
    let unbroken = run(&whole, &long).unwrap();
    assert!(!path.exists() && unbroken.get("pgd-50x40").unwrap().correct > 0);

    assert!(run(&Counting::new(&model, 150), &long).is_err());
    let cut_off = std::fs::read(&path).unwrap();
    for names in [&["fgsm"][..], &["clean", "pgd-3"], &["apgd-ce-8"], &["pgd-50x2"]] {
        run(&model, names).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(&cut_off), "{names:?}");
    }
    let rest = Counting::new(&model, usize::MAX);
    assert_eq!(essence(&run(&rest, &long).unwrap()), essence(&unbroken));
    assert!(rest.images() < whole.images(), "{} {}", rest.images(), whole.images());
    assert!(!path.exists(), "nothing is left in the end");
}

#[test]
fn masked_gradients_and_randomness_show_in_the_results() {
    let model = Quantised(Linear::new(SHAPE, 13));
    let split_of = split(&model, 40);
    let run = |model: &dyn Classifier, split: &InMemory, names: &[&str], epsilon: f32| {
        let entries: Vec<_> = names.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect();
        let mut config = config(16);
        config.threat.epsilon = epsilon;
        let outcome = Evaluator::new(model, split, config, Ledger::in_memory())
            .unwrap()
            .run(&entries)
            .unwrap();
        outcome.warnings.join("\n")
    };
    let found = run(
        &model,
        &split_of,
        &["clean", "autoattack:apgd-ce-10+square-200", "square-200", "fgsm"],
        0.1,
    );
    assert!(
        found.contains("within autoattack:apgd-ce-10+square-200, square, which sees no gradient"),
        "{found}"
    );
    assert!(found.contains("square-200, which sees no gradient"), "{found}");

    let random = Random { inner: Linear::new(SHAPE, 13), size: 4.0, passes: AtomicUsize::new(0) };
    let found = run(&random, &split_of, &["clean", "pgd-2"], 0.0);
    assert!(found.contains("at epsilon 0"), "{found}");

    let plain = Linear::new(SHAPE, 13);
    let found = run(
        &plain,
        &split(&plain, 40),
        &["clean", "fgsm", "pgd-10", "autoattack:apgd-ce-20+square-100"],
        0.004,
    );
    assert_eq!(found, "");
}

#[test]
fn the_classes_add_up() {
    let model = Linear::new(SHAPE, 14);
    let split = split(&model, 50);
    let results = evaluate(&model, &split, 16, Ledger::in_memory()).unwrap();
    for (name, result) in &results.0 {
        let sum = |of: fn(&ClassResult) -> u64| result.by_class.iter().map(of).sum::<u64>();
        assert_eq!(
            (sum(|class| class.n), sum(|class| class.correct)),
            (50, result.correct),
            "{name}"
        );
        for class in &result.by_class {
            let n = (0..50).filter(|&i| split.label(i) == class.class).count() as u64;
            assert_eq!((class.n, class.correct <= n), (n, true), "{name} {class:?}");
        }
    }
    // By hand: a class of which nothing stands clean.
    let x = split.pixels(&(0..50).collect::<Vec<_>>()).unwrap();
    let predicted: Vec<usize> =
        model.logits(&x).unwrap().chunks(5).map(robustness::predicted).collect();
    let labels = predicted.iter().map(|&p| if p == 2 { 3 } else { p }).collect();
    let moved = InMemory::new(SHAPE, x, labels).unwrap();
    let clean = evaluate(&model, &moved, 16, Ledger::in_memory()).unwrap();
    let by_class = &clean.get("clean").unwrap().by_class;
    let count = |k: usize| predicted.iter().filter(|&&p| p == k).count() as u64;
    assert_eq!((by_class[2].n, by_class[2].correct), (0, 0));
    assert_eq!((by_class[3].n, by_class[3].correct), (count(2) + count(3), count(3)));
}

#[test]
fn a_run_that_minimises_gives_the_accuracy_at_every_epsilon() {
    let model = Linear::new(SHAPE, 15);
    let split = split(&model, 30);
    let fab = Fab { targeted: true, steps: 60, restarts: 1, minimise: true };
    for norm in [Norm::Linf, Norm::L2] {
        let config = EvalConfig::under(Threat { norm, epsilon: 0.1 });
        let mut evaluator = Evaluator::new(&model, &split, config, Ledger::in_memory()).unwrap();
        let distances = evaluator.distances(&fab).unwrap();
        assert_eq!((distances.n, distances.misclassified), (30, 3));
        // A linear network falls at margin over the dual norm, where the box is not in the way.
        let mut exact = Vec::new();
        for i in 0..30 {
            let (x, y) = (split.pixels(&[i]).unwrap(), split.label(i));
            let z = model.logits(&x).unwrap();
            let to = |k: usize| {
                let w = model.difference(k, y);
                let dual = match norm {
                    Norm::Linf => w.iter().map(|w| w.abs()).sum::<f64>(),
                    Norm::L2 => w.iter().map(|w| w * w).sum::<f64>().sqrt(),
                    Norm::L1 => w.iter().fold(0.0, |most: f64, w| most.max(w.abs())),
                };
                (f64::from(z[y]) - f64::from(z[k])) / dual
            };
            exact.push((0..5).filter(|&k| k != y).map(to).fold(f64::INFINITY, f64::min));
        }
        exact.retain(|distance| *distance > 0.0);
        exact.sort_by(f64::total_cmp);
        assert_eq!(distances.found.len(), exact.len());
        for (found, exact) in distances.found.iter().zip(&exact) {
            // The box can only make it longer; at these distances it hardly does.
            assert!((-1e-4..0.1).contains(&(found / exact - 1.0)), "{norm}: {found} {exact}");
        }
        assert_eq!(distances.accuracy(0.0).accuracy, 0.9);
        assert_eq!(distances.accuracy(1e9).accuracy, 0.0);
        let middle = (exact[13] + exact[14]) / 2.0;
        assert_eq!(distances.accuracy(middle).accuracy, 13.0 / 30.0);
        assert_eq!(distances.median(), Some(distances.found[11]));
    }
}

#[test]
fn rounded_examples_are_what_is_scored() {
    let model = Linear::new(SHAPE, 16);
    let split = split(&model, 40);
    let run = |epsilon: f32, pixels: Pixels| {
        let threat = Threat { norm: Norm::Linf, epsilon };
        let config = EvalConfig { pixels, ..EvalConfig::under(threat) };
        let entries = [entry("pgd-5", Norm::Linf).unwrap()];
        let ledger = Ledger::in_memory();
        let outcome =
            Evaluator::new(&model, &split, config, ledger).unwrap().run(&entries).unwrap();
        outcome.results.0[0].1.correct
    };
    // Images are multiples of 1/255: within less than half of that nothing can change.
    assert!(run(0.9 / 255.0, Pixels::Any) < 36, "the attack works");
    assert_eq!(run(0.9 / 255.0, Pixels::EightBit), 36);
    let (any, eight) = (run(4.0 / 255.0, Pixels::Any), run(4.0 / 255.0, Pixels::EightBit));
    assert!(eight < 36 && eight.abs_diff(any) <= 2, "{eight} {any}");
}

#[test]
fn records_of_other_evaluations_have_other_names() {
    let model = Linear::new(SHAPE, 17);
    let split = split(&model, 20);
    let of = |config: EvalConfig, names: &[&str], change: fn(&mut Identity)| {
        let entries = robustness::attack::entries(names, Norm::Linf).unwrap();
        let mut identity = identity(&config);
        identity.data = split.identity("set", "test").unwrap();
        change(&mut identity);
        let ledger = Ledger::in_memory();
        let outcome =
            Evaluator::new(&model, &split, config, ledger).unwrap().run(&entries).unwrap();
        Report::new(identity.with_attacks(&entries), outcome)
    };
    let report = of(config(8), &["clean", "fgsm"], |_| {});
    assert_eq!((report.n, report.dataset.as_str(), report.seed), (20, "set", 5));
    let mut wider = config(8);
    wider.threat.epsilon = wider.threat.epsilon.next_up();
    let stems = [
        report.file_stem("p"),
        of(wider, &["clean", "fgsm"], |_| {}).file_stem("p"),
        of(config(8), &["clean"], |_| {}).file_stem("p"),
        of(config(8), &["clean", "fgsm"], |i| i.weights.step = Some(1)).file_stem("p"),
        of(config(8), &["clean", "fgsm"], |i| i.data.name = "other".into()).file_stem("p"),
    ];
    for (i, stem) in stems.iter().enumerate() {
        assert!(stem.starts_with("p-linf-0.0120-") && stem.len() < 40, "{stem}");
        assert!(!stems[..i].contains(stem), "{stem}");
    }
    // The batch size does not decide anything.
    assert_eq!(of(config(3), &["clean", "fgsm"], |_| {}).file_stem("p"), stems[0]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["identity"]["data"]["sha256"], report.identity.data.sha256.as_str());
    assert_eq!(json["results"]["clean"]["by_class"][0]["class"], 0);
}

#[test]
fn the_hash_of_images_sees_every_pixel_label_and_place() {
    let shape = Shape { channels: 1, height: 1, width: 2, classes: 3 };
    let of = |pixels: &[f32], labels: &[usize]| {
        InMemory::new(shape, pixels.to_vec(), labels.to_vec()).unwrap().sha256().unwrap()
    };
    let hashes = [
        of(&[0.1, 0.2, 0.3, 0.4], &[0, 1]),
        of(&[0.1, 0.2, 0.3, 0.5], &[0, 1]),
        of(&[0.1, 0.2, 0.3, 0.4], &[0, 2]),
        of(&[0.3, 0.4, 0.1, 0.2], &[0, 1]),
        of(&[0.3, 0.4, 0.1, 0.2], &[1, 0]),
        of(&[0.1, 0.2], &[0]),
    ];
    for (i, hash) in hashes.iter().enumerate() {
        assert!(hash.len() == 64 && !hashes[..i].contains(hash), "{i}");
    }
    assert_eq!(hashes[0], of(&[0.1, 0.2, 0.3, 0.4], &[0, 1]));
}
