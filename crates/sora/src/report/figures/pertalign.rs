//! PertAlign in action: what it does while single-step and multi-step accuracy part.

use super::{
    columns, heading, marks, multi_style, series, setting, single_style, smoothed, thinned,
    top_accuracy, validation_size, with_marks,
};
use crate::{
    plot::{Axis, Chart, Figure, Mark, PALETTE, Series, Style},
    report::records::{Accuracy, Run, Validation},
};

/// Draws PertAlign, the step size and accuracies over steps, a column for each run.
pub fn pertalign(runs: &[Run]) -> Figure {
    let figure = Figure::new("PertAlign in action").panel_size(390.0, 215.0).caption(format!(
        "{} PertAlign: cosine between the input gradients of a step's attack and training passes; faint line: each step, strong line: running mean over 20 \
         steps. Validation: {}; bands are 95 % Wilson intervals. CO: catastrophic overfitting as the detector noticed it.",
        setting(runs),
        validation_size(runs)
    ));
    let top = top_accuracy(runs.iter().flat_map(values));
    let largest = runs
        .iter()
        .flat_map(|run| run.steps.iter().filter_map(|s| Some(run.unit().0 * s.alpha?)))
        .fold(0.0, f64::max);
    columns(figure, runs, 3, &[&alignment, &|run| alpha(run, largest), &|run| accuracy(run, top)])
}

fn unlabelled(run: &Run) -> Vec<Mark> {
    marks(run, |step| step as f64)
        .into_iter()
        .map(|mark| Mark { label: String::new(), ..mark })
        .collect()
}

fn alignment(run: &Run) -> Chart {
    let values = series(run, |s| s.step as f64, |s| s.pert_align);
    let low = values.iter().map(|v| v.1).fold(0.0, f64::min);
    let style = Style::line(0).paint(PALETTE[2]).dash("");
    let chart = Chart::new(
        heading(run),
        Axis::linear("step").whole(),
        Axis::linear("PertAlign").range(low.min(-0.05), 1.0),
    )
    .series(Series::new("", style.width(0.9).opacity(0.4), thinned(&values)))
    .series(Series::new("PertAlign", style, thinned(&smoothed(&values))))
    .empty("no metrics yet");
    with_marks(chart, marks(run, |step| step as f64))
}

fn alpha(run: &Run, top: f64) -> Chart {
    let (factor, unit) = run.unit();
    let values = series(run, |s| s.step as f64, |s| Some(factor * s.alpha?));
    let style = Style::line(0).paint(PALETTE[3]).dash("12 3");
    // From 0, so that a constant step size is seen to be constant.
    let y = Axis::linear(format!("step size \u{3b1} ({unit})"));
    let y = if top > 0.0 { y.range(0.0, top * 1.1) } else { y };
    let chart = Chart::new("", Axis::linear("step").whole(), y)
        .series(Series::new("", style.width(0.9).opacity(0.4).dash(""), thinned(&values)))
        .series(Series::new("step size \u{3b1}", style, thinned(&smoothed(&values))))
        .empty("no metrics yet");
    with_marks(chart, unlabelled(run))
}

fn values(run: &Run) -> Vec<f64> {
    let training =
        smoothed(&series(run, |_| 0.0, |s| Some(100.0 * s.adv_acc?))).into_iter().map(|v| v.1);
    let validation = run.validations().into_iter().flat_map(|(_, v)| [v.fgsm, v.pgd]).flatten();
    training.chain(validation.map(|a| 100.0 * a.ci95.map_or(a.accuracy, |c| c[1]))).collect()
}

fn accuracy(run: &Run, top: f64) -> Chart {
    let validations = run.validations();
    let of = |get: fn(&Validation) -> Option<Accuracy>| {
        validations
            .iter()
            .filter_map(move |(step, val)| Some(get(val)?.point(*step as f64 - 1.0)))
            .collect::<Vec<_>>()
    };
    let training = series(run, |s| s.step as f64, |s| Some(100.0 * s.adv_acc?));
    let chart =
        Chart::new("", Axis::linear("step").whole(), Axis::linear("accuracy (%)").range(0.0, top))
            .series(Series::new(
                "own training examples",
                Style::line(6).paint(PALETTE[6]).dash("2 2.5").width(1.5),
                thinned(&smoothed(&training)),
            ))
            .series(Series::new("validation, fgsm (single step)", single_style(), of(|v| v.fgsm)))
            .series(Series::new("validation, pgd-10 (multi-step)", multi_style(), of(|v| v.pgd)))
            .empty("no metrics yet");
    with_marks(chart, unlabelled(run))
}
