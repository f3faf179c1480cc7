//! `sora sweep`.

use std::fs;

use serde::Serialize;
use sora::{
    error::{Error, Result},
    evaluate::{
        Bars, EvalConfig, Evaluator,
        sweep::{self, AtEpsilon, AtStep, Convergence, Epsilons},
    },
    files,
    plot::{Axis, Chart, Figure, Mark, Series, Style},
    robustness::Samples,
    threat::{Norm, Threat},
};

use super::{
    eval::{Target, entries},
    print, print_json, print_table,
};
use crate::cli::SweepArgs;

/// Images of a sweep where `--limit` says nothing else.
const IMAGES: usize = 1000;

/// What a sweep found; the file in the run's eval folder.
#[derive(Debug, Serialize)]
struct Report {
    dataset: String,
    split: &'static str,
    n: u64,
    norm: Norm,
    seed: u64,
    /// Epsilon trained with, or given.
    epsilon: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    epsilons: Vec<AtEpsilon>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<AtStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    convergence: Option<Convergence>,
    warnings: Vec<String>,
}

/// Measures accuracy as a function of the attack.
pub fn sweep(args: &SweepArgs) -> Result<()> {
    if args.steps == Some(0) {
        return Err(Error::input("--steps 0: expected at least 1 step size"));
    }
    let target = Target::load(&args.subject, Some(IMAGES))?;
    let Threat { norm, epsilon } = target.threat;
    let attacks = entries(&args.attacks, norm)?;
    let default = (args.steps.is_none() && !args.convergence)
        .then(|| "1..32".parse::<Epsilons>())
        .transpose()?;
    let radii = args.epsilons.clone().or(default).map_or_else(Vec::new, |epsilons| epsilons.0);

    // Each epsilon is an evaluation of its own; all are ended together, so that a sweep that is cut
    // off goes on.
    let mut sessions = SweepSessions { target: &target, fresh: args.fresh, open: Vec::new() };
    let mut epsilons = Vec::new();
    for radius in radii {
        epsilons.push(AtEpsilon {
            epsilon: radius,
            results: sessions.at(radius)?.run(&attacks)?.results,
        });
    }
    let steps = args
        .steps
        .map(|count| sessions.at(epsilon)?.step_sizes(count))
        .transpose()?
        .unwrap_or_default();
    let convergence = args.convergence.then(|| sessions.at(epsilon)?.convergence()).transpose()?;
    let warnings = sweep::warnings(&epsilons, &steps, convergence.as_ref(), epsilon);
    let n = target.split.len() as u64;
    let report = Report {
        dataset: target.dataset.clone(),
        split: "test",
        n,
        norm,
        seed: target.seed,
        epsilon,
        epsilons,
        steps,
        convergence,
        warnings,
    };
    write(&target, &report)?;
    sessions.open.into_iter().try_for_each(|(_, evaluator)| evaluator.finish())?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if args.json { print_json(&report) } else { show(&report) }
}

/// The evaluations of a sweep, one for each epsilon.
struct SweepSessions<'a> {
    target: &'a Target,
    fresh: bool,
    open: Vec<(f32, Evaluator<'a>)>,
}

impl<'a> SweepSessions<'a> {
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
                        .observe(Bars::default()),
                ));
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[found].1)
    }
}

/// Writes the report and its charts: into the run folder, or beside the weights file.
fn write(target: &Target, report: &Report) -> Result<()> {
    let suffix = format!("{}-n{}-seed{}", report.norm, report.n, report.seed);
    let parts = [
        ("epsilon", !report.epsilons.is_empty()),
        ("steps", !report.steps.is_empty()),
        ("convergence", report.convergence.is_some()),
    ];
    let kind: Vec<_> = parts.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    let name = format!("sweep-{}-{suffix}", kind.join("-"));
    let path = target.file(&format!("{name}.json"))?;
    let mut json = serde_json::to_vec_pretty(report)
        .map_err(|e| Error::work(format!("cannot serialise {}: {e}", path.display())))?;
    json.push(b'\n');
    files::write_atomic(&path, &json)?;
    let chart = match &target.subject.run {
        Some((dir, _)) => {
            let plots = dir.path().join("plots");
            fs::create_dir_all(&plots).map_err(|e| Error::io("create", &plots, e))?;
            plots.join(format!("{name}.svg"))
        }
        None => path.with_extension("svg"),
    };
    sora::files::write_figure(&chart, &figure(report))?;
    tracing::info!("{} and {}", path.display(), chart.display());
    Ok(())
}

/// The curves as a figure, one panel a sweep.
fn figure(report: &Report) -> Figure {
    let units = f64::from(255u8);
    let accuracy = || Axis::linear("accuracy").range(0.0, 1.0);
    let trained = f64::from(report.epsilon) * units;
    let mut figure = Figure::new("Accuracy over the strength of the attack").caption(format!(
        "{} {}, n = {}, {}, seed {}; bands: 95 % intervals",
        report.dataset, report.split, report.n, report.norm, report.seed
    ));
    if let Some(first) = report.epsilons.first() {
        let mut chart = Chart::new("attack epsilon", Axis::linear("epsilon (1/255)"), accuracy())
            .mark(Mark::alarm(trained, "trained"));
        for (index, (name, _)) in first.results.0.iter().enumerate() {
            let points = report.epsilons.iter().filter_map(|at| {
                let found = at.results.get(name)?.accuracy;
                Some((f64::from(at.epsilon) * units, found.accuracy, found.ci95))
            });
            chart = chart.series(Series::new(
                name.as_str(),
                Style::marked(index),
                points.collect::<Vec<_>>(),
            ));
        }
        figure = figure.panel(chart);
    }
    if !report.steps.is_empty() {
        let points = report
            .steps
            .iter()
            .map(|at| (f64::from(at.alpha) * units, at.accuracy.accuracy, at.accuracy.ci95))
            .collect::<Vec<_>>();
        let chart =
            Chart::new("size of a single step", Axis::linear("step size (1/255)"), accuracy())
                .mark(Mark::alarm(trained, "trained"));
        figure = figure.panel(chart.series(Series::new("single step", Style::marked(2), points)));
    }
    if let Some(Convergence { steps, restarts }) = &report.convergence {
        for (title, label, name, index, curve) in [
            ("PGD steps", "steps of epsilon/4", "pgd, 1 restart", 3, steps),
            ("PGD restarts", "restarts of 50 steps", "pgd-50", 4, restarts),
        ] {
            let points = curve
                .iter()
                .map(|at| (at.count as f64, at.accuracy.accuracy, at.accuracy.ci95))
                .collect::<Vec<_>>();
            figure = figure.panel(
                Chart::new(title, Axis::linear(label), accuracy()).series(Series::new(
                    name,
                    Style::marked(index),
                    points,
                )),
            );
        }
    }
    figure
}

fn show(report: &Report) -> Result<()> {
    print(&format!(
        "{} {}, n = {}, {}, seed {}\n",
        report.dataset, report.split, report.n, report.norm, report.seed
    ))?;
    let percent = |accuracy: &sora::metrics::Accuracy| {
        let [low, high] = accuracy.ci95;
        format!("{:.2} % ({:.2} - {:.2})", 100.0 * accuracy.accuracy, 100.0 * low, 100.0 * high)
    };
    let in_255 = |value: f32| format!("{:.2}/255", value * 255.0);
    let table = |rows: Vec<Vec<String>>| print("\n").and_then(|()| print_table(&rows));
    if let Some(first) = report.epsilons.first() {
        let mut rows = vec![
            std::iter::once("epsilon".to_owned())
                .chain(first.results.0.iter().map(|(name, _)| name.clone()))
                .collect::<Vec<_>>(),
        ];
        for at in &report.epsilons {
            rows.push(
                std::iter::once(in_255(at.epsilon))
                    .chain(at.results.0.iter().map(|(_, result)| percent(&result.accuracy)))
                    .collect(),
            );
        }
        table(rows)?;
    }
    if !report.steps.is_empty() {
        let mut rows = vec![vec!["step size".to_owned(), "single step".to_owned()]];
        rows.extend(report.steps.iter().map(|at| vec![in_255(at.alpha), percent(&at.accuracy)]));
        table(rows)?;
    }
    if let Some(Convergence { steps, restarts }) = &report.convergence {
        for (name, curve) in [("pgd steps", steps), ("pgd-50 restarts", restarts)] {
            let mut rows = vec![vec![name.to_owned(), "accuracy".to_owned()]];
            rows.extend(curve.iter().map(|at| vec![at.count.to_string(), percent(&at.accuracy)]));
            table(rows)?;
        }
    }
    Ok(())
}
