//! `sora sweep`: accuracy as a function of the attack.

mod draw;
mod show;

use serde::Serialize;
use sora::{
    attack::Entry,
    evaluate::{
        EvalConfig, Evaluator,
        sweep::{self, AtEpsilon, AtStep, Convergence, Epsilons},
    },
    robustness::Samples,
    threat::{Norm, Threat},
};

use super::shared::{SubjectArgs, Target, attacks};
use crate::{
    complete,
    console::print_json,
    error::{Failure, Result},
    finish::OnFinish,
    progress::EvaluationBar,
};

/// Images of a sweep where `--limit` says nothing else.
const IMAGES: usize = 1000;

/// What is measured over what.
#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Radii to attack with: A..B or a list, whole numbers in units of 1/255 [default: 1..32
    /// unless --steps or --convergence is given]
    #[arg(long, value_name = "A..B|LIST", help_heading = "Threat")]
    pub epsilons: Option<Epsilons>,
    /// Attacks at each radius
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "fgsm,pgd-10",
        add = complete::attacks(),
        help_heading = "Threat"
    )]
    pub attacks: Vec<String>,
    /// Also the accuracy on single-step examples of N step sizes from 0 to 2 epsilon
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "32",
        help_heading = "Threat"
    )]
    pub steps: Option<usize>,
    /// Also PGD accuracy over steps (to 100) and restarts (10 of 50 steps): does it still fall?
    #[arg(long, help_heading = "Threat")]
    pub convergence: bool,
    /// Forget an earlier sweep that was cut off
    #[arg(long, help_heading = "Output")]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// What a sweep found; the file in the run's eval folder.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Data set.
    pub dataset: String,
    /// `test`.
    pub split: &'static str,
    /// Images.
    pub n: u64,
    /// Norm.
    pub norm: Norm,
    /// Seed of the random starts.
    pub seed: u64,
    /// Epsilon trained with, or given.
    pub epsilon: f32,
    /// Accuracy over epsilon.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub epsilons: Vec<AtEpsilon>,
    /// Accuracy over the size of a single step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<AtStep>,
    /// Accuracy over steps and restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convergence: Option<Convergence>,
    /// What looks wrong.
    pub warnings: Vec<String>,
}

/// Measures accuracy as a function of the attack.
pub fn run(args: &SweepArgs) -> Result<()> {
    args.finish.after(|| {
        if args.steps == Some(0) {
            return Err(Failure::input("--steps 0: expected at least 1 step size"));
        }
        let target = Target::load(&args.subject, Some(IMAGES))?;
        let entries = attacks(&args.attacks, target.threat.norm)?;
        let radii = radii(args)?;
        let bar = EvaluationBar::new(target.plan(&vec![&entries[..]; radii.len()])?);
        let mut sessions = Sessions { target: &target, fresh: args.fresh, bar, open: Vec::new() };
        let report = measure(args, &entries, &radii, &mut sessions)?;
        draw::write(&target, &report)?;
        sessions.open.into_iter().try_for_each(|(_, evaluator)| evaluator.finish())?;
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        if args.json { print_json(&report) } else { show::show(&report) }
    })
}

/// The epsilons to attack with.
fn radii(args: &SweepArgs) -> Result<Vec<f32>> {
    let default = args.steps.is_none() && !args.convergence;
    Ok(match &args.epsilons {
        Some(epsilons) => epsilons.0.clone(),
        None if default => "1..32".parse::<Epsilons>()?.0,
        None => Vec::new(),
    })
}

/// Each epsilon is an evaluation of its own; all are ended together, so that a sweep that is cut
/// off goes on.
fn measure(
    args: &SweepArgs,
    entries: &[Entry],
    radii: &[f32],
    sessions: &mut Sessions<'_>,
) -> Result<Report> {
    let target = sessions.target;
    let Threat { norm, epsilon } = target.threat;
    let mut epsilons = Vec::new();
    for &radius in radii {
        let results = sessions.at(radius)?.run(entries)?.results;
        epsilons.push(AtEpsilon { epsilon: radius, results });
    }
    let steps = match args.steps {
        Some(count) => sessions.at(epsilon)?.step_sizes(count)?,
        None => Vec::new(),
    };
    let convergence =
        if args.convergence { Some(sessions.at(epsilon)?.convergence()?) } else { None };
    let warnings = sweep::warnings(&epsilons, &steps, convergence.as_ref(), epsilon);
    Ok(Report {
        dataset: target.dataset.clone(),
        split: "test",
        n: target.split.len() as u64,
        norm,
        seed: target.seed,
        epsilon,
        epsilons,
        steps,
        convergence,
        warnings,
    })
}

/// The evaluations of a sweep, one for each epsilon.
struct Sessions<'a> {
    target: &'a Target,
    fresh: bool,
    bar: EvaluationBar,
    open: Vec<(f32, Evaluator<'a>)>,
}

impl<'a> Sessions<'a> {
    fn at(&mut self, epsilon: f32) -> Result<&mut Evaluator<'a>> {
        let found = match self.open.iter().position(|(radius, _)| *radius == epsilon) {
            Some(found) => found,
            None => {
                let (target, threat) =
                    (self.target, Threat { norm: self.target.threat.norm, epsilon });
                let config = EvalConfig { threat, ..target.config() };
                let ledger = target.ledger_at(None, threat, self.fresh, None)?;
                self.open.push((
                    epsilon,
                    Evaluator::new(&target.subject.model, &target.split, config, ledger)?
                        .observe(self.bar.clone()),
                ));
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[found].1)
    }
}
