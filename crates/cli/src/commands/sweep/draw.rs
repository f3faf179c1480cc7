//! Writes a sweep as files: JSON and a chart.

use std::path::Path;

use sora::{
    evaluate::sweep::{AtCount, Convergence},
    files,
    plot::{Axis, Chart, Figure, Mark, Series, Style},
    report::dataset_name,
};

use super::{Nearest, Report, Target};
use crate::{error::Result, output_file::make_folder};

/// Writes the report and its charts to `out`, or else into the run folder or beside the weights
/// file.
pub fn write(target: &Target, report: &Report, out: Option<&Path>) -> Result<()> {
    let parts = [
        ("epsilon", !report.epsilons.is_empty()),
        ("steps", !report.steps.is_empty()),
        ("convergence", report.convergence.is_some()),
        ("distances", report.distances.is_some()),
    ];
    let kind: Vec<_> = parts.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    let name = format!("sweep-{}-{}-{}", kind.join("-"), report.norm, report.identity.short());
    let beside = || target.file(&format!("{name}.json"));
    let place = match (out, target.subject.run()) {
        (None, None) => Some(beside()?),
        (out, _) => out.map(Path::to_owned),
    };
    let Some(path) = target.keep(&name, place.as_deref(), report)? else { return Ok(()) };
    let chart = match (out, target.subject.run()) {
        (None, Some((dir, _))) => {
            let plots = dir.plots();
            make_folder(&plots)?;
            plots.join(format!("{name}.svg"))
        }
        _ => path.with_extension("svg"),
    };
    files::write_figure(&chart, &figure(report))?;
    tracing::info!("{} and {}", path.display(), chart.display());
    Ok(())
}

/// The curves as a figure with one panel per sweep.
fn figure(report: &Report) -> Figure {
    let caption = format!(
        "{} {}, n = {}, {}, seed {}; bands: 95 % intervals",
        dataset_name(&report.dataset),
        report.split,
        report.n,
        report.norm,
        report.seed
    );
    let mut figure = Figure::new("Accuracy over the strength of the attack").caption(caption);
    if !report.epsilons.is_empty() {
        figure = figure.panel(over_epsilon(report));
    }
    if !report.steps.is_empty() {
        figure = figure.panel(over_step_size(report));
    }
    if let Some(Convergence { steps, restarts }) = &report.convergence {
        figure = figure
            .panel(over_count("PGD steps", "steps of epsilon/4", "pgd, 1 restart", 3, steps))
            .panel(over_count("PGD restarts", "restarts of 50 steps", "pgd-50", 4, restarts));
    }
    if let Some(nearest) = &report.distances {
        figure = figure.panel(over_distance(report, nearest));
    }
    figure
}

fn over_distance(report: &Report, nearest: &Nearest) -> Chart {
    let points: Vec<_> = nearest
        .curve
        .iter()
        .map(|at| (in_255(at.epsilon), at.accuracy.accuracy, at.accuracy.ci95))
        .collect();
    Chart::new("nearest adversarial image", Axis::linear("epsilon (1/255)"), accuracy())
        .mark(trained(report))
        .series(Series::new("fab", Style::marked(1), points))
}

fn accuracy() -> Axis {
    Axis::linear("accuracy").range(0.0, 1.0)
}

fn trained(report: &Report) -> Mark {
    Mark::alarm(in_255(report.epsilon), "trained")
}

fn in_255(value: f32) -> f64 {
    f64::from(value) * 255.0
}

fn over_epsilon(report: &Report) -> Chart {
    let names = report.epsilons.first().map(|first| &first.results.0).into_iter().flatten();
    let chart = Chart::new("attack epsilon", Axis::linear("epsilon (1/255)"), accuracy())
        .mark(trained(report));
    names.enumerate().fold(chart, |chart, (index, (name, _))| {
        let points = report.epsilons.iter().filter_map(|at| {
            let found = at.results.get(name)?.accuracy;
            Some((in_255(at.epsilon), found.accuracy, found.ci95))
        });
        let points: Vec<_> = points.collect();
        chart.series(Series::new(name.as_str(), Style::marked(index), points))
    })
}

fn over_step_size(report: &Report) -> Chart {
    let points: Vec<_> = report
        .steps
        .iter()
        .map(|at| (in_255(at.alpha), at.accuracy.accuracy, at.accuracy.ci95))
        .collect();
    Chart::new("size of a single step", Axis::linear("step size (1/255)"), accuracy())
        .mark(trained(report))
        .series(Series::new("single step", Style::marked(2), points))
}

fn over_count(title: &str, label: &str, name: &str, style: usize, curve: &[AtCount]) -> Chart {
    let points: Vec<_> =
        curve.iter().map(|at| (at.count as f64, at.accuracy.accuracy, at.accuracy.ci95)).collect();
    let series = Series::new(name, Style::marked(style), points);
    Chart::new(title, Axis::linear(label), accuracy()).series(series)
}
