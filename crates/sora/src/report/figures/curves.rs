//! Training and validation curves, with the onset of catastrophic overfitting marked.

use super::{
    lines::{
        Smoothing, marks, over_steps, over_validations, series, smoothed, top_accuracy, unlabelled,
        with_marks,
    },
    styles::{bands, clean_style, columns, heading, multi_style, single_style},
};
use crate::{
    plot::{Axis, Chart, Figure, PALETTE, Series, Style},
    report::{
        caption::{setting, validation_size},
        run::Run,
        seeds::{Group, groups},
    },
    run::log::StepLine,
};

/// Draws accuracy and loss over epochs, with one column for each run, or for the seeds of an
/// experiment.
pub fn curves(runs: &[Run]) -> Figure {
    let all = groups(runs);
    let figure = Figure::new("Training and validation curves").panel_size(390.0, 265.0).caption(format!(
        "{} Validation: {}; {}. Training accuracy (on the method's own examples) and loss: running \
         means over 20 steps. CO: catastrophic overfitting as the detector noticed it.",
        setting(runs),
        validation_size(runs),
        bands(&all)
    ));
    let top = top_accuracy(runs.iter().flat_map(values));
    let losses: Vec<f64> = runs
        .iter()
        .flat_map(|run| smoothed(&series(run, |_| 0.0, |s| s.loss.into())))
        .map(|v| v.1)
        .collect();
    let [low, high] = losses.iter().fold([f64::INFINITY, 0.0], |[a, b], v| [a.min(*v), b.max(*v)]);
    let ends =
        (low < high).then(|| [(low - 0.04 * (high - low)).max(0.0), high + 0.04 * (high - low)]);
    columns(figure, &all, 3, &[&|group| accuracy(group, top), &|group| loss(group, ends)])
}

/// Accuracies of a run in percent, with the upper ends of their intervals.
fn values(run: &Run) -> Vec<f64> {
    let training = smoothed(&series(run, |_| 0.0, |s| 100.0 * f64::from(s.adv_acc)));
    let validation = run.validations().into_iter().flat_map(|(_, v)| [v.clean, v.fgsm, v.pgd]);
    training.into_iter().map(|v| v.1).chain(validation.map(|a| 100.0 * a.ci95[1])).collect()
}

fn epoch(run: &Run, step: &StepLine) -> f64 {
    (step.step + 1) as f64 / run.steps_per_epoch()
}

fn accuracy(group: &Group<'_>, top: f64) -> Chart {
    let place = |run: &Run, steps: u64| steps as f64 / run.steps_per_epoch();
    let training =
        over_steps(group, epoch, |_, s| 100.0 * f64::from(s.adv_acc), Smoothing::RunningMean);
    let y = Axis::linear("accuracy (%)").range(0.0, top);
    let chart = Chart::new(heading(group), Axis::linear("epoch").whole(), y)
        .series(Series::new("training", training_style(), training))
        .series(Series::new("clean", clean_style(), over_validations(group, place, |v| v.clean)))
        .series(Series::new(
            "fgsm (single step)",
            single_style(),
            over_validations(group, place, |v| v.fgsm),
        ))
        .series(Series::new(
            "pgd-10 (multi-step)",
            multi_style(),
            over_validations(group, place, |v| v.pgd),
        ))
        .empty("no metrics yet");
    with_marks(chart, marks(group, |run, step| place(run, step + 1)))
}

fn loss(group: &Group<'_>, ends: Option<[f64; 2]>) -> Chart {
    let values = over_steps(group, epoch, |_, s| s.loss.into(), Smoothing::RunningMean);
    let y = Axis { range: ends, ..Axis::linear("training loss") };
    let chart = Chart::new("", Axis::linear("epoch").whole(), y)
        .series(Series::new("training", training_style(), values))
        .empty("no metrics yet");
    let marks = marks(group, |run, step| (step + 1) as f64 / run.steps_per_epoch());
    with_marks(chart, unlabelled(marks))
}

fn training_style() -> Style {
    Style::line(3).paint(PALETTE[3]).dash("").width(1.5)
}
