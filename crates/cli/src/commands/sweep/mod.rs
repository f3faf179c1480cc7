//! `sora sweep`: accuracy as a function of the attack.

mod draw;
mod show;

use std::path::{Path, PathBuf};

use serde::Serialize;
use sora::{
    attack::{self, Entry, fab::Fab},
    evaluate::{
        EvalConfig, Evaluator, Identity,
        sweep::{self, AtEpsilon, AtStep, Convergence, Distances, Epsilons},
    },
    robustness::{Access, Accuracy, Samples},
    threat::{Norm, Threat},
};

use super::shared::{SubjectArgs, Target, state_options};
use crate::{
    complete,
    console::print_json,
    error::{Failure, Result},
    finish::OnFinish,
    output_file::{self, Content, Overwrite},
    progress::EvaluationBar,
};

/// Number of images of a sweep without `--limit`.
const IMAGES: usize = 1000;

/// What is measured over what.
#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Radii to attack with: a range such as 1..32/255 or a list such as 4/255,8/255 [default:
    /// 1..32/255 unless --steps, --convergence or --distances is given]
    #[arg(long, value_name = "RANGE|LIST", help_heading = "Threat")]
    pub epsilons: Option<Epsilons>,
    /// Attacks at each radius [default: fgsm,pgd-10; of a model that gives no gradients, square-1000
    /// or, for labels alone, rays-1000]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
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
    /// Also how far the nearest adversarial image is that fab finds: accuracy at every radius
    #[arg(long, help_heading = "Threat")]
    pub distances: bool,
    /// The record, in place of a file in the run's eval folder; the chart beside it, as .svg
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Overwrite --out whatever it is
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// Forget an earlier sweep that was cut off
    #[arg(long, help_heading = "Output")]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// The results of a sweep, and the content of the file in the run's eval folder.
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
    /// Epsilon of the training, or the given one.
    pub epsilon: f32,
    /// Identity of the sweep: all values that decide the figures.
    pub identity: Identity,
    /// Accuracy over epsilon.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub epsilons: Vec<AtEpsilon>,
    /// Accuracy over the size of a single step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<AtStep>,
    /// Accuracy over steps and restarts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convergence: Option<Convergence>,
    /// Distances of the nearest adversarial images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distances: Option<Nearest>,
    /// Warnings about figures that look wrong.
    pub warnings: Vec<String>,
}

/// Distances of the nearest adversarial images, and the figures derived from them.
#[derive(Debug, Serialize)]
pub struct Nearest {
    /// Median over all images, 0 for a misclassified one; `null` where half of them have none.
    pub median: Option<f64>,
    /// Accuracy over epsilon, all from the same run.
    pub curve: Vec<AtCurve>,
    /// All distances that were found, in the norm of the threat, in ascending order.
    #[serde(flatten)]
    pub distances: Distances,
}

/// Accuracy at one radius.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AtCurve {
    /// Epsilon in pixel units.
    pub epsilon: f32,
    /// Accuracy and interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// Measures accuracy as a function of the attack.
pub fn run(args: &SweepArgs) -> Result<()> {
    args.finish.after(|| {
        if let Some(count) = args.steps.filter(|count| !(1..=1000).contains(count)) {
            let problem =
                format!("--steps {count}: expected a number of step sizes from 1 to 1000");
            return Err(Failure::input(problem));
        }
        if let Some(out) = &args.out {
            prepare(out, Overwrite::by(args.force))?;
        }
        let target = Target::load(&args.subject, Some(IMAGES))?;
        let access = target.model().access();
        let usual = match access {
            Access::Gradients => &["fgsm", "pgd-10"][..],
            Access::Scores => &["square-1000"],
            Access::Labels => &["rays-1000"],
        };
        let usual: Vec<String> = usual.iter().map(|&name| name.to_owned()).collect();
        let names = if args.attacks.is_empty() { &usual } else { &args.attacks };
        let entries = attack::entries(names, target.threat.norm)?;
        attack::allowed(&entries, access)?;
        refuse_curves(args, access)?;
        let radii = radii(args, target.threat.norm)?;
        let bar = EvaluationBar::new(target.plan(&vec![&entries[..]; radii.len()])?);
        let mut sessions = Sessions { target: &target, fresh: args.fresh, bar, open: Vec::new() };
        let report = measure(args, &entries, &radii, &mut sessions)?;
        // The results are shown before a failure to store them can end the command.
        let shown = if args.json { print_json(&report) } else { show::show(&report) };
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        draw::write(&target, &report, args.out.as_deref())?;
        sessions.open.into_iter().try_for_each(|(_, evaluator)| evaluator.finish())?;
        shown
    })
}

/// Refuses to write the record to `out`, and the chart beside it, where that would destroy another
/// file or the record itself.
fn prepare(out: &Path, overwrite: Overwrite) -> Result<()> {
    let chart = out.with_extension("svg");
    if out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        return Err(Failure::input(format!(
            "--out {}: is for the record (JSON), and the chart goes beside it, under its name with \
             .svg; expected another ending, such as {}",
            out.display(),
            out.with_extension("json").display()
        )));
    }
    output_file::prepare(out, Content::Record, overwrite)?;
    output_file::prepare(&chart, Content::Figure, overwrite)
}

/// Refuses curves that come from gradients where there are none.
fn refuse_curves(args: &SweepArgs, access: Access) -> Result<()> {
    let curves = [
        ("steps", args.steps.is_some()),
        ("convergence", args.convergence),
        ("distances", args.distances),
    ];
    match curves.into_iter().find(|(_, asked)| *asked && access < Access::Gradients) {
        Some((name, _)) => Err(Failure::input(format!(
            "--{name}: needs gradients, and the model gives {access} only; leave it out"
        ))),
        None => Ok(()),
    }
}

/// The epsilons to attack with.
fn radii(args: &SweepArgs, norm: Norm) -> Result<Vec<f32>> {
    let others = args.steps.is_some() || args.convergence || args.distances;
    Ok(match &args.epsilons {
        Some(epsilons) => epsilons.within(norm)?,
        None if others => Vec::new(),
        None => Epsilons::usual().within(norm)?,
    })
}

/// Measures each epsilon as an evaluation of its own. All of them end together, so that a sweep
/// that was cut off can resume.
fn measure(
    args: &SweepArgs,
    entries: &[Entry],
    radii: &[f32],
    sessions: &mut Sessions<'_>,
) -> Result<Report> {
    let target = sessions.target;
    let Threat { norm, epsilon } = target.threat;
    let identity =
        Identity { options: asked(args, radii), ..target.identity.with_attacks(entries) };
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
    let distances = if args.distances {
        let all = Epsilons::usual().within(norm)?;
        let radii = if radii.is_empty() { &all } else { radii };
        let fab = Fab { targeted: true, steps: 100, restarts: 1, minimise: true };
        Some(nearest(sessions.at(epsilon)?.distances(&fab)?, radii))
    } else {
        None
    };
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
        distances,
        identity,
        warnings,
    })
}

/// The requested measurements, for the identity of the sweep.
fn asked(args: &SweepArgs, radii: &[f32]) -> Vec<String> {
    let mut asked = vec![format!("radii {radii:?}")];
    asked.extend(args.steps.map(|count| format!("{count} step sizes")));
    asked.extend(args.convergence.then(|| "convergence".to_owned()));
    asked.extend(args.distances.then(|| "distances".to_owned()));
    asked
}

fn nearest(distances: Distances, radii: &[f32]) -> Nearest {
    let at = |&epsilon: &f32| AtCurve { epsilon, accuracy: distances.accuracy(epsilon.into()) };
    let curve = radii.iter().map(at).collect();
    Nearest { median: distances.median(), curve, distances }
}

/// The evaluations of a sweep, one session for each epsilon.
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
                let identity = target.identity.under(threat);
                let ledger = target.ledger(None, &identity, state_options(self.fresh, None))?;
                self.open.push((
                    epsilon,
                    Evaluator::new(target.model(), &target.split, config, ledger)?
                        .observe(self.bar.clone()),
                ));
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[found].1)
    }
}
