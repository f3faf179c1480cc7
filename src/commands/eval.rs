//! `sora eval`.

use sora::{
    config::{TrainConfig, TrainOptions},
    device,
    error::{Error, Result},
    evaluate::{self, EvalConfig, Report},
    run::{self, Subject},
    threat::{Epsilon, Norm, Threat},
};

use super::{print, print_json, print_table};
use crate::cli::EvalArgs;

/// Measures a run or a weights file.
pub fn eval(args: EvalArgs) -> Result<()> {
    let device = device::device(&args.device)?;
    device::set_threads(args.threads);
    if args.batch == 0 {
        return Err(Error::input("--batch 0: expected at least 1"));
    }
    let subject = Subject::load(&args.subject, &device)?;
    let norm = args.norm.unwrap_or(subject.norm);
    let epsilon = choose_epsilon(&args, &subject, norm)?;
    for name in &args.attacks {
        sora::attack::entry(name, norm)?;
    }
    let data_config = data_config(&args, &subject)?;
    let dataset = run::open_dataset(&data_config)?;
    check_fit(&subject, &dataset)?;
    let split = match args.limit {
        Some(0) => return Err(Error::input("--limit 0: expected at least 1")),
        Some(n) if n < dataset.test.len() => dataset.test.take(n),
        _ => dataset.test.take(dataset.test.len()),
    };
    let config = EvalConfig {
        attacks: args.attacks.clone(),
        threat: Threat { norm, epsilon: epsilon.value() },
        seed: args.seed,
        batch: args.batch,
        progress: true,
    };
    let (results, warnings) = evaluate::evaluate(&subject.model, &split, &config)?;
    let report = Report {
        dataset: data_config.dataset.clone(),
        split: "test".into(),
        n: split.len() as u64,
        epsilon: epsilon.value(),
        norm,
        seed: args.seed,
        results,
        warnings,
    };
    if let Some((dir, _)) = &subject.run {
        dir.write_report(&protocol_name(&report), &report)?;
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if args.json { print_json(&report) } else { show(&report, &epsilon) }
}

/// Name of the report's file: what makes it another protocol.
fn protocol_name(report: &Report) -> String {
    let attacks: Vec<_> = report.results.0.iter().map(|(name, _)| name.as_str()).collect();
    format!("{}-{}-{:.4}-n{}-seed{}", attacks.join("_"), report.norm, report.epsilon, report.n, report.seed)
}

fn choose_epsilon(args: &EvalArgs, subject: &Subject, norm: Norm) -> Result<Epsilon> {
    if let Some(epsilon) = &args.epsilon {
        return Ok(epsilon.clone());
    }
    if subject.norm == norm {
        return Ok(subject.epsilon.clone());
    }
    Err(Error::input(format!("--epsilon is missing: {} was trained for --norm {}, not {norm}", args.subject.display(), subject.norm)))
}

/// The data set to evaluate on: the run's own unless another is named.
fn data_config(args: &EvalArgs, subject: &Subject) -> Result<TrainConfig> {
    let mut config = match &subject.run {
        Some((_, config)) => config.clone(),
        None => TrainOptions::default().resolve()?,
    };
    if let Some(dataset) = args.dataset.as_ref().or(subject.run.is_none().then_some(&subject.dataset)) {
        if dataset.is_empty() {
            return Err(Error::input(format!(
                "--dataset is missing: {} does not say what it was trained on; name a set of `sora data list` or an image folder",
                args.subject.display()
            )));
        }
        config.dataset = dataset.clone();
        // These come in the size that the network takes; other sets have the size they have.
        let any_size = dataset.starts_with("folder:") || dataset.starts_with("synthetic") || std::path::Path::new(dataset).is_dir();
        config.image_size = any_size.then_some(subject.model.config.shape.height);
    }
    if args.data_dir.is_some() {
        config.data_dir = args.data_dir.clone();
    }
    Ok(config)
}

fn check_fit(subject: &Subject, dataset: &sora::data::Dataset) -> Result<()> {
    let shape = subject.model.config.shape;
    let [channels, height, width] = dataset.test.shape();
    if (channels, height, width) != (shape.channels, shape.height, shape.width) || dataset.test.num_classes() != shape.classes {
        return Err(Error::input(format!(
            "the data set has images of {channels}x{height}x{width} in {} classes, the network was trained on {}x{}x{} in {}; name the right one with --dataset",
            dataset.test.num_classes(),
            shape.channels,
            shape.height,
            shape.width,
            shape.classes
        )));
    }
    Ok(())
}

fn show(report: &Report, epsilon: &Epsilon) -> Result<()> {
    print(&format!("{} {}, n = {}, {} epsilon {epsilon}, seed {}\n\n", report.dataset, report.split, report.n, report.norm, report.seed))?;
    let mut rows = vec![["attack", "accuracy", "95 % interval", "seconds"].map(String::from).to_vec()];
    for (name, result) in &report.results.0 {
        let [low, high] = result.accuracy.ci95;
        rows.push(vec![
            name.clone(),
            format!("{:.2} %", 100.0 * result.accuracy.accuracy),
            format!("{:.2} - {:.2} %", 100.0 * low, 100.0 * high),
            format!("{:.1}", result.seconds),
        ]);
    }
    print_table(&rows)
}
