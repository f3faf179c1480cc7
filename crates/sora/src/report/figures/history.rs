//! Histories of the step size and of the linearity that sets it.

use super::{run_styles, series, setting, smoothed, thinned};
use crate::{
    plot::{Axis, Chart, Figure, Mark, Series},
    report::records::{Run, Step},
};

/// Draws step size and linearity over steps, a line for each run.
pub fn history(runs: &[Run]) -> Figure {
    let mut units: Vec<_> = runs.iter().map(|run| run.unit().1).collect();
    units.sort_unstable();
    units.dedup();
    let alpha = chart(runs, &format!("step size \u{3b1} ({})", units.join("; ")), |run, step| {
        Some(run.unit().0 * step.alpha?)
    });
    let linearity = chart(runs, "linearity", |_, step| step.linearity);
    let align = chart(runs, "PertAlign", |_, step| step.pert_align);
    Figure::new("Step size, linearity and PertAlign")
        .columns(3)
        .panel_size(350.0, 260.0)
        .caption(format!(
            "{} Running means over 20 steps. Vertical lines: catastrophic overfitting as the detector noticed it.",
            setting(runs)
        ))
        .panel(alpha)
        .panel(linearity)
        .panel(align)
}

fn chart(runs: &[Run], label: &str, value: impl Fn(&Run, &Step) -> Option<f64>) -> Chart {
    let mut chart =
        Chart::new("", Axis::linear("step").whole(), Axis::linear(label)).empty("no metrics yet");
    for (run, style) in runs.iter().zip(run_styles(runs)) {
        let values = series(run, |s| s.step as f64, |s| value(run, s));
        chart = chart.series(Series::new(run.name.clone(), style, thinned(&smoothed(&values))));
        if let Some(onset) = run.onset() {
            chart = chart.mark(Mark { paint: style.paint, ..Mark::alarm(onset.step as f64, "CO") });
        }
    }
    chart
}
