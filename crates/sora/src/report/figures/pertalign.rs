//! PertAlign in action: its course while single-step and multi-step accuracy separate.

use super::{
    lines::{
        Smoothing, marks, over_steps, over_validations, series, smoothed, top_accuracy, unlabelled,
        with_marks,
    },
    styles::{bands, columns, heading, multi_style, single_style},
};
use crate::{
    plot::{Axis, Chart, Figure, Mark, PALETTE, Point, Series, Style},
    report::{
        caption::{setting, validation_size},
        run::Run,
        seeds::{Group, groups},
    },
    run::log::StepLine,
};

/// Draws PertAlign, the step size and accuracies over steps, with one column for each run, or for
/// the seeds of an experiment.
pub fn pertalign(runs: &[Run]) -> Figure {
    let all = groups(runs);
    let figure = Figure::new("PertAlign in action").panel_size(390.0, 215.0).caption(format!(
        "{} PertAlign: cosine between the input gradients of a step's attack and training passes; \
         faint line: each step, strong line: running mean over 20 steps. Validation: {}; {}. \
         CO: catastrophic overfitting as the detector noticed it.",
        setting(runs),
        validation_size(runs),
        bands(&all)
    ));
    let top = top_accuracy(runs.iter().flat_map(values));
    let alphas = runs.iter().flat_map(|r| r.steps.iter().map(|s| r.unit().0 * f64::from(s.alpha)));
    let largest = alphas.filter(|v| v.is_finite()).fold(0.0, f64::max);
    columns(
        figure,
        &all,
        3,
        &[&alignment, &|group| alpha(group, largest), &|group| accuracy(group, top)],
    )
}

fn step(_: &Run, step: &StepLine) -> f64 {
    step.step as f64
}

fn marked(group: &Group<'_>) -> Vec<Mark> {
    marks(group, |_, step| step as f64)
}

/// A figure of each step, drawn faint, and its running mean; for several seeds, the mean alone.
fn faint_and_strong(
    chart: Chart,
    group: &Group<'_>,
    name: &str,
    style: Style,
    value: impl Fn(&Run, &StepLine) -> f64,
) -> Chart {
    let each: Vec<Point> = if group.has_seeds() {
        Vec::new()
    } else {
        over_steps(group, step, &value, Smoothing::EachStep)
    };
    let faint = style.width(0.9).opacity(0.4).dash("");
    chart
        .series(Series::new("", faint, each))
        .series(Series::new(name, style, over_steps(group, step, &value, Smoothing::RunningMean)))
        .empty("no metrics yet")
}

fn alignment(group: &Group<'_>) -> Chart {
    let value = |_: &Run, s: &StepLine| f64::from(s.pert_align);
    let points = over_steps(group, step, value, Smoothing::EachStep);
    let low = points.iter().map(|p| p.y).fold(0.0, f64::min);
    let y = Axis::linear("PertAlign").range(low.min(-0.05), 1.0);
    let chart = Chart::new(heading(group), Axis::linear("step").whole(), y);
    let style = Style::line(0).paint(PALETTE[2]).dash("");
    with_marks(faint_and_strong(chart, group, "PertAlign", style, value), marked(group))
}

fn alpha(group: &Group<'_>, top: f64) -> Chart {
    let unit = group.runs.first().map_or("", |run| run.unit().1);
    // The axis begins at 0, so that a constant step size looks constant.
    let y = Axis::linear(format!("step size \u{3b1} ({unit})"));
    let y = if top > 0.0 { y.range(0.0, top * 1.1) } else { y };
    let chart = Chart::new("", Axis::linear("step").whole(), y);
    let style = Style::line(0).paint(PALETTE[3]).dash("12 3");
    let value = |run: &Run, s: &StepLine| run.unit().0 * f64::from(s.alpha);
    let chart = faint_and_strong(chart, group, "step size \u{3b1}", style, value);
    with_marks(chart, unlabelled(marked(group)))
}

fn values(run: &Run) -> Vec<f64> {
    let training = smoothed(&series(run, |_| 0.0, |s| 100.0 * f64::from(s.adv_acc)));
    let validation = run.validations().into_iter().flat_map(|(_, v)| [v.fgsm, v.pgd]);
    training.into_iter().map(|v| v.1).chain(validation.map(|a| 100.0 * a.ci95[1])).collect()
}

fn accuracy(group: &Group<'_>, top: f64) -> Chart {
    let place = |_: &Run, steps: u64| steps as f64 - 1.0;
    let training =
        over_steps(group, step, |_, s| 100.0 * f64::from(s.adv_acc), Smoothing::RunningMean);
    let style = Style::line(6).paint(PALETTE[6]).dash("2 2.5").width(1.5);
    let y = Axis::linear("accuracy (%)").range(0.0, top);
    let chart = Chart::new("", Axis::linear("step").whole(), y)
        .series(Series::new("own training examples", style, training))
        .series(Series::new(
            "validation, fgsm (single step)",
            single_style(),
            over_validations(group, place, |v| v.fgsm),
        ))
        .series(Series::new(
            "validation, pgd-10 (multi-step)",
            multi_style(),
            over_validations(group, place, |v| v.pgd),
        ))
        .empty("no metrics yet");
    with_marks(chart, unlabelled(marked(group)))
}
