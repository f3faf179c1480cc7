//! The cost of robustness: training time and memory against multi-step accuracy.

use super::{
    labels::{THREAT, differing, label},
    styles::method_styles,
    tradeoff::{bars, over_group},
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
    let [norm, radius] = THREAT;
    let facts = differing(runs, &[Run::dataset, norm, radius]);
    let chart = |axis: &str, value: &dyn Fn(&Run) -> Option<f64>| {
        let top = runs.iter().filter_map(value).fold(0.0, f64::max);
        let x = Axis::linear(axis);
        let x = if top > 0.0 { x.range(0.0, top * 1.12) } else { x };
        let y = Axis::linear(format!("{} accuracy (%)", comparison.attack));
        let mut chart = Chart::new("", x, y).empty("not measured yet");
        for (group, style) in all.iter().zip(&styles) {
            let found = group.measured(runs, &comparison);
            let costs: Vec<f64> = found.iter().filter_map(|(run, _)| value(run)).collect();
            let Some((y, interval)) = over_group(&found, &comparison.attack) else { continue };
            if costs.is_empty() {
                continue;
            }
            let (x, _) = mean_and_deviation(&costs);
            let point = Point { x, y, x_interval: None, y_interval: Some(interval) };
            let method = found.first().map(|(run, _)| run.method()).unwrap_or_default();
            let series = Series::new(method, *style, [point]);
            chart = chart.series(series.labels(vec![label(group, found.len(), &facts)]));
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

#[cfg(test)]
mod tests {
    use super::{super::tradeoff::tests::run, *};

    #[test]
    fn a_point_names_its_threat_where_the_runs_have_several() {
        let (a, b) = (run("a", ["x", "one", "8/255", ""]), run("b", ["x", "one", "16/255", ""]));
        let svg = cost(&[a.clone(), b]).to_svg().unwrap();
        assert!(svg.contains(">a, \u{3b5} = 8/255<"), "{svg}");
        assert!(svg.contains(">b, \u{3b5} = 16/255<"), "{svg}");
        assert!(cost(&[a]).to_svg().unwrap().contains(">a<"));
    }
}
