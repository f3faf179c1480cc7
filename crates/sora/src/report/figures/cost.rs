//! The cost of robustness: training time and memory against multi-step accuracy.

use super::{
    styles::method_styles,
    tradeoff::{bars, measured, over_group},
};
use crate::{
    plot::{Axis, Chart, Figure, Point, Series},
    report::{
        caption::setting,
        measured::Comparison,
        run::Run,
        seeds::{groups, mean_and_deviation},
    },
};

/// Draws robust accuracy over training time and over peak memory, with one point for each run, or
/// for the seeds of an experiment; a star marks SORA.
pub fn cost(runs: &[Run]) -> Figure {
    let comparison = Comparison::of(runs);
    let all = groups(runs);
    let styles = method_styles(&all);
    let chart = |axis: &str, value: &dyn Fn(&Run) -> Option<f64>| {
        let top = runs.iter().filter_map(value).fold(0.0, f64::max);
        let x = Axis::linear(axis);
        let x = if top > 0.0 { x.range(0.0, top * 1.12) } else { x };
        let y = Axis::linear(format!("{} accuracy (%)", comparison.attack));
        let mut chart = Chart::new("", x, y).empty("not measured yet");
        for (group, style) in all.iter().zip(&styles) {
            let found = measured(group, runs, &comparison);
            let costs: Vec<f64> = found.iter().filter_map(|(run, _)| value(run)).collect();
            let Some((y, interval)) = over_group(&found, &comparison.attack) else { continue };
            if costs.is_empty() {
                continue;
            }
            let (x, _) = mean_and_deviation(costs);
            let point = Point { x, y, x_interval: None, y_interval: Some(interval) };
            let method = found.first().map(|(run, _)| run.method()).unwrap_or_default();
            let series = Series::new(method, *style, [point]);
            chart = chart.series(series.labels(vec![group.name.clone()]));
        }
        chart
    };
    let time = "Time: wall clock of the training steps, without validation, on the machine of each \
                run; compare only runs made on one machine under one load.";
    Figure::new("Cost of training")
        .caption(format!(
            "{} {}; {}. {time} Top left is best; SORA is starred.",
            setting(runs),
            comparison.words(runs),
            bars(&all)
        ))
        .panel_size(400.0, 300.0)
        .panel(chart("training time (s)", &Run::seconds))
        .panel(chart("peak resident memory (MiB)", &|run| run.peak_rss_mib().map(|v| v as f64)))
}
