//! Lines over steps: running means, thinned, over the seeds of an experiment.

use crate::{
    plot::{Chart, Mark, PALETTE, Point},
    report::{run::Run, seeds::Group},
    run::log::{StepLine, ValFigures},
    stats::Accuracy,
};

/// Most points of a line; a reader cannot tell more apart.
const POINTS: usize = 300;
/// Number of steps in a running mean.
const WINDOW: usize = 20;

/// Means of neighbouring points, at most [`POINTS`] of them.
fn thinned(points: &[Point]) -> Vec<Point> {
    let size = points.len().div_ceil(POINTS).max(1);
    let thin = |part: &[Point]| {
        let mean =
            |of: &dyn Fn(&Point) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
        let end = |end: usize| mean(&|p| p.y_interval.map_or(p.y, |interval| interval[end]));
        let banded = part.iter().any(|p| p.y_interval.is_some());
        let y_interval = banded.then(|| [end(0), end(1)]);
        Point { x: mean(&|p| p.x), y: mean(&|p| p.y), y_interval, x_interval: None }
    };
    points.chunks(size).map(thin).collect()
}

/// Mean of each value and the values before it, [`WINDOW`] in total.
pub(super) fn smoothed(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sum = 0.0;
    let means = values.iter().enumerate().map(|(i, (x, y))| {
        sum += y;
        if i >= WINDOW {
            sum -= values[i - WINDOW].1;
        }
        (*x, sum / (i + 1).min(WINDOW) as f64)
    });
    means.collect()
}

/// One figure of every step of a run that has the figure: `(x, y)`.
pub(super) fn series(
    run: &Run,
    x: impl Fn(&StepLine) -> f64,
    y: impl Fn(&StepLine) -> f64,
) -> Vec<(f64, f64)> {
    let all = run.steps.iter().map(|step| (x(step), y(step)));
    all.filter(|(_, y)| y.is_finite()).collect()
}

/// Whether a line shows each step or the running mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Smoothing {
    EachStep,
    RunningMean,
}

/// The line of a figure over steps; for several seeds, their mean and a standard deviation on both
/// sides.
pub(super) fn over_steps(
    group: &Group<'_>,
    x: impl Fn(&Run, &StepLine) -> f64,
    y: impl Fn(&Run, &StepLine) -> f64,
    smoothing: Smoothing,
) -> Vec<Point> {
    let values = |run: &Run| {
        let values = series(run, |s| x(run, s), |s| y(run, s));
        match smoothing {
            Smoothing::EachStep => values,
            Smoothing::RunningMean => smoothed(&values),
        }
    };
    thinned(&group.over_seeds(values))
}

/// The line of a figure over validations, with its Wilson intervals or, for several seeds, their
/// mean and standard deviation. `x` maps the number of completed steps to the axis.
pub(super) fn over_validations(
    group: &Group<'_>,
    x: impl Fn(&Run, u64) -> f64,
    of: impl Fn(&ValFigures) -> Accuracy,
) -> Vec<Point> {
    match group.runs.as_slice() {
        [run] => {
            let all = run.validations().into_iter();
            all.map(|(step, val)| point(x(run, step), &of(&val))).collect()
        }
        _ => group.over_seeds(|run| {
            let all = run.validations().into_iter();
            all.map(|(step, val)| (x(run, step), 100.0 * of(&val).accuracy)).collect()
        }),
    }
}

/// An accuracy and its interval in percent, as a point at `x`.
pub(super) fn point(x: f64, accuracy: &Accuracy) -> Point {
    let y_interval = Some(accuracy.ci95.map(|v| 100.0 * v));
    Point { x, y: 100.0 * accuracy.accuracy, y_interval, x_interval: None }
}

/// The marks of a group: the onset of catastrophic overfitting and a rollback. `place` maps a step
/// to the axis.
pub(super) fn marks(group: &Group<'_>, place: impl Fn(&Run, u64) -> f64) -> Vec<Mark> {
    let mut all = Vec::new();
    for run in &group.runs {
        let whose =
            if group.has_seeds() { format!(", seed {}", run.seed()) } else { String::new() };
        if let Some(onset) = run.onset() {
            let text = format!("CO, step {}{whose}", onset.step);
            all.push(Mark::alarm(place(run, onset.step), text));
        }
        if let Some(rollback) = run.rollback() {
            let to = rollback.to_step;
            let text = format!("rolled back to step {to}{whose}, then {}", rollback.method);
            all.push(Mark { paint: PALETTE[6], ..Mark::alarm(place(run, to), text) });
        }
    }
    all
}

/// The same marks without their texts, which another panel shows.
pub(super) fn unlabelled(marks: Vec<Mark>) -> Vec<Mark> {
    marks.into_iter().map(|mark| Mark { label: String::new(), ..mark }).collect()
}

pub(super) fn with_marks(chart: Chart, marks: Vec<Mark>) -> Chart {
    marks.into_iter().fold(chart, Chart::mark)
}

/// The upper end of an accuracy axis in percent: a multiple of 20, so that panels can share the
/// axis.
pub(super) fn top_accuracy(values: impl Iterator<Item = f64>) -> f64 {
    let top = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    ((top * 1.04 / 20.0).ceil() * 20.0).clamp(20.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_mean_and_smoothing_the_length() {
        let values: Vec<_> = (0..1000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let points: Vec<_> = values.iter().map(|v| Point::from(*v)).collect();
        assert!(thinned(&points).len() <= POINTS);
        assert_eq!(smoothed(&[(0.0, 1.0), (1.0, 3.0)]), [(0.0, 1.0), (1.0, 2.0)]);
        let smooth = smoothed(&values);
        assert!(smooth.iter().skip(WINDOW).all(|(_, y)| (y - 3.0).abs() < 0.3));
    }

    #[test]
    fn thinning_keeps_the_band() {
        let points: Vec<_> =
            (0..900).map(|i| Point::from((f64::from(i), 1.0, [0.5, 2.0]))).collect();
        assert!(thinned(&points).iter().all(|p| p.y_interval == Some([0.5, 2.0]) && p.y == 1.0));
    }
}
