//! The figures, one a file: each draws what run folders hold.

mod cost;
mod curves;
mod epsilon;
mod examples;
mod history;
mod landscape;
mod pertalign;
mod tradeoff;

pub use cost::cost;
pub use curves::curves;
pub use epsilon::epsilon;
pub use examples::examples;
pub use history::history;
pub use landscape::{landscape, landscape_frames, landscape_strip};
pub use pertalign::pertalign;
pub(super) use tradeoff::common_attack;
pub use tradeoff::tradeoff;

use super::records::{Onset, Run, Step};
use crate::plot::{Chart, Figure, Key, MARKERS, Mark, Marker, PALETTE, Panel, Style, Svg};

/// Colour and shape of accuracy on clean images.
pub(super) fn clean_style() -> Style {
    Style::marked(2).paint(PALETTE[2]).dash("2 2.5").marker(Marker::Circle)
}

/// Colour and shape of accuracy under a single step.
pub(super) fn single_style() -> Style {
    Style::marked(1).paint(PALETTE[1]).dash("7 3").marker(Marker::Triangle)
}

/// Colour and shape of accuracy under many steps.
pub(super) fn multi_style() -> Style {
    Style::marked(0).paint(PALETTE[0]).dash("").marker(Marker::Square)
}

/// Most points of a line: more cannot be told apart.
const POINTS: usize = 300;
/// Steps that a running mean spans.
const WINDOW: usize = 20;

/// Means of consecutive values, at most [`POINTS`] of them: `(x, y)`.
fn thinned(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        part.iter().map(of).sum::<f64>() / part.len() as f64
    };
    values.chunks(size).map(|part| (mean(part, |v| v.0), mean(part, |v| v.1))).collect()
}

/// Mean over the [`WINDOW`] values up to each.
fn smoothed(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
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

/// One figure of every step that has it: `(x, y)`.
fn series(
    run: &Run,
    x: impl Fn(&Step) -> f64,
    y: impl Fn(&Step) -> Option<f64>,
) -> Vec<(f64, f64)> {
    run.steps
        .iter()
        .filter_map(|step| Some((x(step), y(step).filter(|v| v.is_finite())?)))
        .collect()
}

/// The marks of a run: the onset of catastrophic overfitting and a rollback. `place` says where a
/// step lies across.
fn marks(run: &Run, place: impl Fn(u64) -> f64) -> Vec<Mark> {
    let mut all = Vec::new();
    if let Some(Onset { step, .. }) = run.onset() {
        all.push(Mark::alarm(place(step), format!("CO, step {step}")));
    }
    if let Some(rollback) = run.rollback() {
        let text = format!("rolled back to step {}, then {}", rollback.to_step, rollback.method);
        all.push(Mark { paint: PALETTE[6], ..Mark::alarm(place(rollback.to_step), text) });
    }
    all
}

fn with_marks(chart: Chart, marks: Vec<Mark>) -> Chart {
    marks.into_iter().fold(chart, Chart::mark)
}

/// Heading of a run's panel.
fn heading(run: &Run) -> String {
    if run.name == run.method() {
        run.name.clone()
    } else {
        format!("{} ({})", run.name, run.method())
    }
}

/// What the runs have in common, and the seeds: for captions.
pub(super) fn setting(runs: &[Run]) -> String {
    let distinct = |of: &dyn Fn(&Run) -> String| {
        let mut all: Vec<String> = runs.iter().map(of).collect();
        all.sort();
        all.dedup();
        all.join(", ")
    };
    let seeds = distinct(&|run| run.seed());
    let several = if seeds.contains(',') { "s" } else { "" };
    format!(
        "{}; {}; {}; seed{several} {seeds}.",
        distinct(&|r| r.dataset()),
        distinct(&|r| r.network()),
        distinct(&|r| r.threat())
    )
}

/// Number of validation images, for captions.
pub(super) fn validation_size(runs: &[Run]) -> String {
    let mut sizes: Vec<u64> =
        runs.iter().flat_map(|run| run.validations()).map(|(_, val)| val.n).collect();
    sizes.sort_unstable();
    sizes.dedup();
    match sizes.as_slice() {
        [] => "no validation".into(),
        sizes => format!(
            "n = {} validation images",
            sizes.iter().map(|n| thousands(*n)).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// A whole number with its thousands apart.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// An empty place in the grid.
#[derive(Debug)]
pub(super) struct Blank;

impl Panel for Blank {
    fn draw(&self, _: &mut Svg, _: [f64; 4]) {}

    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

/// Panels of a grid with a column for each run and a row for each of `rows`; more than `across`
/// runs go on below.
fn columns(figure: Figure, runs: &[Run], across: usize, rows: &[&dyn Fn(&Run) -> Chart]) -> Figure {
    let across = across.min(runs.len()).max(1);
    let mut figure = figure.columns(across);
    for group in runs.chunks(across) {
        for row in rows {
            for i in 0..across {
                figure = match group.get(i) {
                    Some(run) => figure.panel(row(run)),
                    None => figure.panel(Blank),
                };
            }
        }
    }
    figure
}

/// Line of each run: coloured as its method where that tells the runs apart.
pub fn run_styles(runs: &[Run]) -> Vec<Style> {
    let mut methods: Vec<_> = runs.iter().map(Run::method).collect();
    methods.sort();
    methods.dedup();
    if methods.len() < runs.len() {
        return (0..runs.len()).map(Style::line).collect();
    }
    method_indices(runs).into_iter().map(Style::line).collect()
}

fn method_indices(runs: &[Run]) -> Vec<usize> {
    let mut seen: Vec<String> = vec!["sora".into()];
    let mut index = |method: String| {
        seen.iter().position(|m| *m == method).unwrap_or_else(|| {
            seen.push(method);
            seen.len() - 1
        })
    };
    runs.iter().map(|run| index(run.method())).collect()
}

/// The highest end of accuracy that the runs need, in percent: a multiple of 20, so that their
/// panels share an axis.
pub(super) fn top_accuracy(values: impl Iterator<Item = f64>) -> f64 {
    let top = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    ((top * 1.04 / 20.0).ceil() * 20.0).clamp(20.0, 100.0)
}

/// Colour by method: SORA is always blue, the others take theirs in the order of their appearance.
fn method_styles(runs: &[Run]) -> Vec<Style> {
    let style = |(run, index): (&Run, usize)| {
        let marker =
            if run.method() == "sora" { Marker::Star } else { MARKERS[index % MARKERS.len()] };
        Style::points(index).marker(marker)
    };
    runs.iter().zip(method_indices(runs)).map(style).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_mean_and_smoothing_the_length() {
        let values: Vec<_> = (0..1000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let thin = thinned(&values);
        assert!(thin.len() <= POINTS);
        let smooth = smoothed(&[(0.0, 1.0), (1.0, 3.0)]);
        assert_eq!(smooth, [(0.0, 1.0), (1.0, 2.0)]);
        assert!(smoothed(&values).iter().skip(WINDOW).all(|(_, y)| (y - 3.0).abs() < 0.3));
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"].map(String::from),
            [0, 999, 1000, 1_234_567].map(thousands)
        );
    }
}
