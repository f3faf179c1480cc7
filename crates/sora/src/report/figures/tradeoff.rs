//! Clean against robust accuracy, over methods, data sets and networks.

use super::{method_styles, setting, thousands};
use crate::{
    plot::{Axis, Chart, Figure, Point, Series},
    report::records::{Measured, Run, strength},
};

/// The strongest attack under which every run that was measured has a figure; pgd-10 (which
/// validation has) if there is none.
pub(in crate::report) fn common_attack(runs: &[Run]) -> String {
    let mut names: Vec<&str> = runs
        .iter()
        .flat_map(|r| &r.evaluations)
        .flat_map(|e| e.results.keys())
        .map(String::as_str)
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(strength(name)));
    names.dedup();
    let everywhere = |name: &&&str| runs.iter().all(|run| run.measured(name).is_some());
    names
        .iter()
        .filter(|name| strength(name) > 1)
        .find(everywhere)
        .map_or_else(|| "pgd-10".into(), |name| (*name).to_owned())
}

/// What the points are, for captions.
pub(super) fn source(found: &[Option<Measured>]) -> String {
    let mut all: Vec<String> = found
        .iter()
        .flatten()
        .map(|m| format!("n = {} {} images", thousands(m.n), m.split))
        .collect();
    all.sort();
    all.dedup();
    let missing = found.iter().filter(|m| m.is_none()).count();
    let mut text = if all.is_empty() { "no run has been measured".into() } else { all.join("; ") };
    if missing > 0 && !all.is_empty() {
        text += &format!("; {missing} runs without figures are left out");
    }
    text
}

/// Draws robust accuracy over clean accuracy, a point for each run and a panel for each data set.
pub fn tradeoff(runs: &[Run]) -> Figure {
    let attack = common_attack(runs);
    let found: Vec<_> = runs.iter().map(|run| run.measured(&attack)).collect();
    let styles = method_styles(runs);
    let mut datasets: Vec<String> = runs.iter().map(Run::dataset).collect();
    datasets.sort();
    datasets.dedup();
    let networks: std::collections::BTreeSet<_> = runs.iter().map(Run::network).collect();
    let mut figure = Figure::new("Clean against robust accuracy")
        .columns(datasets.len().min(3))
        .panel_size(440.0, 320.0)
        .caption(format!(
            "{} {}; bars are 95 % Wilson intervals. Top right is best.",
            setting(runs),
            source(&found)
        ));
    for dataset in &datasets {
        let mut chart = Chart::new(
            dataset.clone(),
            Axis::linear("clean accuracy (%)"),
            Axis::linear(format!("{attack} accuracy (%)")),
        )
        .empty("not measured yet: sora eval RUN");
        for ((run, style), measured) in
            runs.iter().zip(&styles).zip(&found).filter(|((run, _), _)| run.dataset() == *dataset)
        {
            if let Some(m) = measured {
                let point = Point {
                    x_interval: m.clean.ci95.map(|c| c.map(|v| 100.0 * v)),
                    ..m.robust.point(100.0 * m.clean.accuracy)
                };
                let label = if networks.len() > 1 {
                    format!("{}, {}", run.name, run.network())
                } else {
                    run.name.clone()
                };
                chart =
                    chart.series(Series::new(run.method(), *style, [point]).labels(vec![label]));
            }
        }
        figure = figure.panel(chart);
    }
    figure
}
