//! What robustness costs: training time and memory against multi-step accuracy.

use super::{
    method_styles, setting,
    tradeoff::{common_attack, source},
};
use crate::{
    plot::{Axis, Chart, Figure, Series},
    report::records::Run,
};

/// Draws robust accuracy over training time and over peak memory, a point for each run; SORA is
/// starred.
pub fn cost(runs: &[Run]) -> Figure {
    let attack = common_attack(runs);
    let found: Vec<_> = runs.iter().map(|run| run.measured(&attack)).collect();
    let styles = method_styles(runs);
    let chart = |axis: &str, value: &dyn Fn(&Run) -> Option<f64>| {
        let top = runs.iter().filter_map(value).fold(0.0, f64::max);
        let x = Axis::linear(axis);
        let x = if top > 0.0 { x.range(0.0, top * 1.12) } else { x };
        let mut chart = Chart::new("", x, Axis::linear(format!("{attack} accuracy (%)")))
            .empty("not measured yet");
        for ((run, style), measured) in runs.iter().zip(&styles).zip(&found) {
            if let (Some(m), Some(x)) = (measured, value(run)) {
                chart = chart.series(
                    Series::new(run.method(), *style, [m.robust.point(x)])
                        .labels(vec![run.name.clone()]),
                );
            }
        }
        chart
    };
    let passes = "Time: wall clock of the training steps, without validation, on the machine of each run; compare only runs made on one machine under one load.";
    Figure::new("Cost of training")
        .caption(format!(
            "{} {}; bars are 95 % Wilson intervals. {passes} Top left is best; SORA is starred.",
            setting(runs),
            source(&found)
        ))
        .panel_size(400.0, 300.0)
        .panel(chart("training time (s)", &Run::seconds))
        .panel(chart("peak resident memory (MiB)", &|run| run.peak_rss_mib().map(|v| v as f64)))
}
