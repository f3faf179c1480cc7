//! The evaluator: resuming, counting, and what its results say.

mod common;

use std::sync::atomic::AtomicUsize;

use common::classifiers::{Counting, Linear, Quantised, Random, images};
use robustness::{
    Classifier, EvalConfig, Evaluator, Identity, InMemory, Ledger, Norm, Results, Shape, Threat,
    entry,
};

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
    EvalConfig { threat, seed: 5, batch }
}

fn identity(config: &EvalConfig) -> Identity {
    Identity::new("program".into(), "weights".into(), "data".into(), config.threat, config.seed)
}

/// Everything that must not depend on how the work was cut up.
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
        // Each sitting breaks down a little later than a batch takes; a batch cut off is done
        // again.
        let counted = Counting::new(&model, 90);
        let found = evaluate(
            &counted,
            &split,
            8,
            Ledger::open(&path, &identity(&config(8)), None).unwrap(),
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

    // Once all is known nothing is computed, and more restarts of an attack go on after those it
    // had.
    let counted = Counting::new(&model, usize::MAX);
    let ledger = Ledger::open(&path, &identity(&config(8)), None).unwrap();
    assert_eq!(essence(&evaluate(&counted, &split, 8, ledger).unwrap()), essence(&unbroken));
    assert_eq!(counted.images(), 0);
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
