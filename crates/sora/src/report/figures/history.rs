//! Histories of the step size and of the linearity that sets it.

use super::{
    lines::{Smoothing, over_steps},
    styles::group_styles,
};
use crate::{
    plot::{Axis, Chart, Figure, Mark, Series},
    report::{
        caption::setting,
        run::Run,
        seeds::{Group, groups},
    },
    run::log::StepLine,
};

/// Draws step size, linearity and PertAlign over steps, with one line for each run, or for the
/// seeds of an experiment.
pub fn history(runs: &[Run]) -> Figure {
    let all = groups(runs);
    let mut units: Vec<_> = runs.iter().map(|run| run.unit().1).collect();
    units.sort_unstable();
    units.dedup();
    let alpha = chart(&all, &format!("step size \u{3b1} ({})", units.join("; ")), |run, step| {
        run.unit().0 * f64::from(step.alpha)
    });
    let linearity = chart(&all, "linearity", |_, step| step.linearity.into());
    let align = chart(&all, "PertAlign", |_, step| step.pert_align.into());
    let seeds = if all.iter().any(Group::has_seeds) {
        " Lines of several seeds are their means, bands a standard deviation to both sides."
    } else {
        ""
    };
    Figure::new("Step size, linearity and PertAlign")
        .columns(3)
        .panel_size(350.0, 260.0)
        .caption(format!(
            "{} Running means over 20 steps.{seeds} Vertical lines: catastrophic overfitting as \
             the detector noticed it.",
            setting(runs)
        ))
        .panel(alpha)
        .panel(linearity)
        .panel(align)
}

fn chart(all: &[Group<'_>], label: &str, value: impl Fn(&Run, &StepLine) -> f64) -> Chart {
    let mut chart =
        Chart::new("", Axis::linear("step").whole(), Axis::linear(label)).empty("no metrics yet");
    for (group, style) in all.iter().zip(group_styles(all)) {
        let points = over_steps(group, |_, s| s.step as f64, &value, Smoothing::RunningMean);
        chart = chart.series(Series::new(group.name.clone(), style, points));
        for onset in group.runs.iter().filter_map(|run| run.onset()) {
            chart = chart.mark(Mark { paint: style.paint, ..Mark::alarm(onset.step as f64, "CO") });
        }
    }
    chart
}
