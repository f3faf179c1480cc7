//! Training and validation curves, with the onset of catastrophic overfitting marked.

use super::{
    clean_style, columns, heading, marks, multi_style, series, setting, single_style, smoothed,
    thinned, top_accuracy, validation_size, with_marks,
};
use crate::{
    plot::{Axis, Chart, Figure, PALETTE, Series, Style},
    report::records::{Accuracy, Run, Validation},
};

/// Draws accuracy and loss over epochs, a column for each run.
pub fn curves(runs: &[Run]) -> Figure {
    let figure = Figure::new("Training and validation curves").panel_size(390.0, 265.0).caption(format!(
        "{} Validation: {}; bands are 95 % Wilson intervals. Training accuracy (on the method's own examples) and loss: running means over 20 steps. \
         CO: catastrophic overfitting as the detector noticed it.",
        setting(runs),
        validation_size(runs)
    ));
    let top = top_accuracy(runs.iter().flat_map(values));
    let losses: Vec<f64> = runs
        .iter()
        .flat_map(|run| smoothed(&series(run, |_| 0.0, |s| s.loss)))
        .map(|v| v.1)
        .collect();
    let [low, high] = losses.iter().fold([f64::INFINITY, 0.0], |[a, b], v| [a.min(*v), b.max(*v)]);
    let ends =
        (low < high).then(|| [(low - 0.04 * (high - low)).max(0.0), high + 0.04 * (high - low)]);
    columns(figure, runs, 3, &[&|run| accuracy(run, top), &|run| loss(run, ends)])
}

/// Accuracies of a run in percent, with the upper ends of their intervals.
fn values(run: &Run) -> Vec<f64> {
    let training =
        smoothed(&series(run, |_| 0.0, |s| Some(100.0 * s.adv_acc?))).into_iter().map(|v| v.1);
    let validation =
        run.validations().into_iter().flat_map(|(_, v)| [v.clean, v.fgsm, v.pgd]).flatten();
    training.chain(validation.map(|a| 100.0 * a.ci95.map_or(a.accuracy, |c| c[1]))).collect()
}

fn accuracy(run: &Run, top: f64) -> Chart {
    let per_epoch = run.steps_per_epoch();
    let validations = run.validations();
    let of = |get: fn(&Validation) -> Option<Accuracy>| {
        validations
            .iter()
            .filter_map(move |(step, val)| Some(get(val)?.point(*step as f64 / per_epoch)))
            .collect::<Vec<_>>()
    };
    let training = series(run, |s| (s.step + 1) as f64 / per_epoch, |s| Some(100.0 * s.adv_acc?));
    let chart = Chart::new(
        heading(run),
        Axis::linear("epoch").whole(),
        Axis::linear("accuracy (%)").range(0.0, top),
    )
    .series(Series::new("training", training_style(), thinned(&smoothed(&training))))
    .series(Series::new("clean", clean_style(), of(|v| v.clean)))
    .series(Series::new("fgsm (single step)", single_style(), of(|v| v.fgsm)))
    .series(Series::new("pgd-10 (multi-step)", multi_style(), of(|v| v.pgd)))
    .empty("no metrics yet");
    with_marks(chart, marks(run, |step| (step + 1) as f64 / per_epoch))
}

fn loss(run: &Run, ends: Option<[f64; 2]>) -> Chart {
    let per_epoch = run.steps_per_epoch();
    let values = series(run, |s| (s.step + 1) as f64 / per_epoch, |s| s.loss);
    let y = Axis { range: ends, ..Axis::linear("training loss") };
    let chart = Chart::new("", Axis::linear("epoch").whole(), y)
        .series(Series::new("training", training_style(), thinned(&smoothed(&values))))
        .empty("no metrics yet");
    let unlabelled = marks(run, |step| (step + 1) as f64 / per_epoch)
        .into_iter()
        .map(|mark| crate::plot::Mark { label: String::new(), ..mark });
    with_marks(chart, unlabelled.collect())
}

fn training_style() -> Style {
    Style::line(3).paint(PALETTE[3]).dash("").width(1.5)
}
