//! Clean against robust accuracy, over methods, data sets and networks.

use std::collections::BTreeSet;

use super::styles::method_styles;
use crate::{
    plot::{Axis, Chart, Figure, Point, Series},
    report::{
        caption::setting,
        measured::{Comparison, Measured},
        run::Run,
        seeds::{Group, groups, mean_and_deviation},
    },
    stats::Accuracy,
};

/// Draws robust accuracy over clean accuracy, with one point for each run, or for the seeds of an
/// experiment, and one panel for each data set.
pub fn tradeoff(runs: &[Run]) -> Figure {
    let comparison = Comparison::of(runs);
    let all = groups(runs);
    let datasets: BTreeSet<String> = runs.iter().map(Run::dataset).collect();
    let networks: BTreeSet<_> = runs.iter().map(Run::network).collect();
    let mut figure = Figure::new("Clean against robust accuracy")
        .columns(datasets.len().min(3))
        .panel_size(440.0, 320.0)
        .caption(format!(
            "{} {}; {}. Top right is best.",
            setting(runs),
            comparison.words(runs),
            bars(&all)
        ));
    let styles = method_styles(&all);
    for dataset in &datasets {
        let mut chart = Chart::new(
            dataset.clone(),
            Axis::linear("clean accuracy (%)"),
            Axis::linear(format!("{} accuracy (%)", comparison.attack)),
        )
        .empty("not measured yet");
        for (group, style) in all.iter().zip(&styles) {
            let Some(first) = group.runs.first().filter(|run| run.dataset() == *dataset) else {
                continue;
            };
            let Some(point) = group_point(group, runs, &comparison) else { continue };
            let label = if networks.len() > 1 {
                format!("{}, {}", group.name, first.network())
            } else {
                group.name.clone()
            };
            chart = chart.series(Series::new(first.method(), *style, [point]).labels(vec![label]));
        }
        figure = figure.panel(chart);
    }
    figure
}

/// The meaning of error bars, for captions.
pub(super) fn bars(groups: &[Group<'_>]) -> &'static str {
    if groups.iter().any(Group::has_seeds) {
        "bars are 95 % Wilson intervals or, with several seeds, a standard deviation to both sides \
         of their mean"
    } else {
        "bars are 95 % Wilson intervals"
    }
}

/// The measurements of the runs of `group`.
pub(super) fn measured<'a>(
    group: &Group<'a>,
    runs: &[Run],
    comparison: &'a Comparison,
) -> Vec<(&'a Run, &'a Measured)> {
    let of = |run: &&'a Run| {
        let at = runs.iter().position(|other| std::ptr::eq(other, *run))?;
        Some((*run, comparison.found.get(at)?.as_ref()?))
    };
    group.runs.iter().filter_map(of).collect()
}

/// An accuracy over a group in percent with its interval: the run's own interval, or mean and
/// standard deviation over the seeds.
pub(super) fn over_group(group: &[(&Run, &Measured)], attack: &str) -> Option<(f64, [f64; 2])> {
    let all: Option<Vec<Accuracy>> = group.iter().map(|(_, m)| m.under(attack)).collect();
    match all?.as_slice() {
        [] => None,
        [one] => Some((100.0 * one.accuracy, one.ci95.map(|v| 100.0 * v))),
        several => {
            let values = several.iter().map(|a| 100.0 * a.accuracy).collect();
            let (mean, deviation) = mean_and_deviation(values);
            Some((mean, [mean - deviation, mean + deviation]))
        }
    }
}

fn group_point(group: &Group<'_>, runs: &[Run], comparison: &Comparison) -> Option<Point> {
    let found = measured(group, runs, comparison);
    let (x, x_interval) = over_group(&found, "clean")?;
    let (y, y_interval) = over_group(&found, &comparison.attack)?;
    Some(Point { x, y, x_interval: Some(x_interval), y_interval: Some(y_interval) })
}
