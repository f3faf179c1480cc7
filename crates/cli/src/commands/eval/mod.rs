//! `sora eval`: accuracy, clean and under attack.

mod show;

use std::{fmt, path::PathBuf};

use clap::ValueEnum;
use sora::{
    attack::Entry,
    evaluate::{Evaluator, Report},
    nn,
    robustness::Samples,
};

use super::shared::{SubjectArgs, Target, attacks};
use crate::{
    complete, console::print_json, error::Result, finish::OnFinish, progress::EvaluationBar,
};

/// A protocol by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// clean, fgsm and pgd-10 on 1000 images
    Quick,
    /// clean, fgsm, pgd-10, pgd-50x10 and autoattack on the whole split
    Paper,
    /// clean and autoattack on the whole split
    Autoattack,
}

impl Suite {
    /// Its attacks, and the images that it takes by default.
    fn protocol(self) -> (&'static [&'static str], Option<usize>) {
        match self {
            Self::Quick => (&["clean", "fgsm", "pgd-10"], Some(1000)),
            Self::Paper => (&["clean", "fgsm", "pgd-10", "pgd-50x10", "autoattack"], None),
            Self::Autoattack => (&["clean", "autoattack"], None),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
            Self::Autoattack => "autoattack",
        })
    }
}

/// What is evaluated and how.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Attacks, in order: clean, fgsm, pgd-10, pgd-50x10, autoattack, ...; see `sora attacks`
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "clean,fgsm,pgd-10",
        add = complete::attacks(),
        help_heading = "Threat"
    )]
    pub attacks: Vec<String>,
    /// A protocol instead of --attacks
    #[arg(long, value_enum, conflicts_with = "attacks", help_heading = "Threat")]
    pub suite: Option<Suite>,
    /// Keep adversarial examples: an npz archive and a picture for each attack, in the run's eval
    /// folder or beside the weights file
    #[arg(long, help_heading = "Output")]
    pub save_adv: bool,
    /// Where an evaluation that is cut off is remembered [default: the run's eval folder, or
    /// beside the weights file]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub state: Option<PathBuf>,
    /// Forget an earlier evaluation that was cut off
    #[arg(long, help_heading = "Output")]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Measures a run or a weights file.
pub fn run(args: EvalArgs) -> Result<()> {
    args.finish.after(|| evaluate(&args))
}

fn evaluate(args: &EvalArgs) -> Result<()> {
    let (names, default_limit) = protocol(args);
    let target = Target::load(&args.subject, default_limit)?;
    let entries = attacks(&names, target.threat.norm)?;
    let shape = target.subject.model.config.shape;
    let width = args.save_adv.then_some(shape.channels * shape.height * shape.width);
    let ledger = target.ledger(args.state.as_deref(), args.fresh, width)?;
    let mut evaluator =
        Evaluator::new(&target.subject.model, &target.split, target.config(), ledger)?
            .observe(EvaluationBar::new(target.plan(&[&entries])?));
    let outcome = evaluator.run(&entries)?;
    let mut warnings = outcome.warnings;
    warnings.extend(target.probe()?);
    let mut report = Report {
        dataset: target.dataset.clone(),
        split: "test".into(),
        n: target.split.len() as u64,
        epsilon: target.threat.epsilon,
        norm: target.threat.norm,
        seed: target.seed,
        results: outcome.results,
        notes: outcome.notes,
        warnings,
    };
    report.notes.extend(upper_bound(&names));
    log_memory();
    if args.save_adv {
        save(&target, &mut evaluator, &entries, &report)?;
    }
    if let Some((dir, _)) = &target.subject.run {
        dir.write_report(&protocol_name(args.suite, &names, &report), &report)?;
    }
    evaluator.finish()?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if args.json { print_json(&report) } else { show::show(&report, &target.epsilon) }
}

/// The attacks asked for, and the images that their protocol takes by default.
fn protocol(args: &EvalArgs) -> (Vec<String>, Option<usize>) {
    let Some(suite) = args.suite else { return (args.attacks.clone(), None) };
    let (names, limit) = suite.protocol();
    (names.iter().map(|&name| name.to_owned()).collect(), limit)
}

fn upper_bound(names: &[String]) -> Option<String> {
    let ensemble = names.iter().any(|name| name.starts_with("autoattack"));
    let attacked = names.iter().any(|name| name != "clean");
    (attacked && !ensemble).then(|| {
        "accuracies under single attacks are upper bounds of the robust accuracy; --suite \
         autoattack gives a tighter one"
            .into()
    })
}

fn log_memory() {
    let pool = nn::pool_counts();
    tracing::debug!(
        "memory of feature maps: {} MiB; {} of {} requests had to allocate",
        pool.bytes >> 20,
        pool.misses,
        pool.requests
    );
}

/// Writes the adversarial examples of each attack.
fn save(
    target: &Target,
    evaluator: &mut Evaluator<'_>,
    entries: &[Entry],
    report: &Report,
) -> Result<()> {
    for entry in entries.iter().filter(|entry| !entry.parts.is_empty()) {
        let plain = |c: char| if c.is_alphanumeric() || "-+".contains(c) { c } else { '_' };
        let name: String = entry.name.chars().map(plain).collect();
        let file = target.file(&format!("adv-{name}-{}", suffix(report)))?;
        let saved = evaluator.save(entry, &file)?;
        tracing::info!("adversarial examples: {}", saved.npz.display());
    }
    Ok(())
}

/// Name of the report's file: what makes it another protocol.
fn protocol_name(suite: Option<Suite>, names: &[String], report: &Report) -> String {
    let attacks = suite.map_or_else(|| names.join("_"), |suite| suite.to_string());
    format!("{}-{}", attacks.replace([':', '/'], "_"), suffix(report))
}

fn suffix(report: &Report) -> String {
    format!("{}-{:.4}-n{}-seed{}", report.norm, report.epsilon, report.n, report.seed)
}
