//! The charts of a page that its script draws, and their data.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::colour;
use crate::{plot::Style, report::run::Run, run::log::StepLine};

/// Most points of a line on the page.
const POINTS: usize = 600;

/// A chart, whose lines are series of the data.
#[derive(Serialize)]
pub(super) struct LiveChart {
    title: &'static str,
    unit: String,
    wide: bool,
    digits: u8,
    range: Option<[f64; 2]>,
    lines: Vec<LiveLine>,
    /// Description of the chart for readers who cannot see it.
    summary: String,
}

#[derive(Serialize)]
struct LiveLine {
    key: &'static str,
    label: &'static str,
    dash: Option<Vec<f64>>,
    width: Option<f64>,
}

/// A figure of every step, and its factor to the unit shown.
type StepFigure = (&'static str, fn(&StepLine) -> f32, fn(&Run) -> f64);

const STEP_FIGURES: [StepFigure; 8] = [
    ("pert_align", |s| s.pert_align, |_| 1.0),
    ("alpha", |s| s.alpha, |run| run.unit().0),
    ("linearity", |s| s.linearity, |_| 1.0),
    ("adv_acc", |s| s.adv_acc, |_| 100.0),
    ("loss", |s| s.loss, |_| 1.0),
    ("delta_mean", |s| s.delta_mean, |run| run.unit().0),
    ("lr", |s| s.lr, |_| 1.0),
    ("images_per_s", |s| s.images_per_s, |_| 1.0),
];

/// A note below the charts.
pub(super) fn thinning() -> String {
    format!("Lines over steps are means of neighbouring steps, at most {POINTS} points a line.")
}

/// The charts.
pub(super) fn charts(runs: &[Run]) -> Vec<LiveChart> {
    let line = |key, label| LiveLine { key, label, dash: None, width: None };
    let one = |title, key, unit: &str, digits: u8| LiveChart {
        title,
        unit: unit.into(),
        wide: false,
        digits,
        range: None,
        lines: vec![line(key, "")],
        summary: summary(runs, key, usize::from(digits)),
    };
    let units: BTreeSet<_> = runs.iter().map(|run| run.unit().1).collect();
    let unit = units.into_iter().collect::<Vec<_>>().join("; ");
    let validation = LiveChart {
        title: "Validation accuracy: pgd-10 solid, fgsm dashed, clean dotted",
        unit: "accuracy (%)".into(),
        wide: true,
        digits: 1,
        range: None,
        lines: vec![
            LiveLine { width: Some(2.2), ..line("pgd", "pgd-10") },
            LiveLine { dash: Some(vec![8.0, 4.0]), ..line("fgsm", "fgsm") },
            LiveLine { dash: Some(vec![2.0, 4.0]), ..line("clean", "clean") },
        ],
        summary: summary(runs, "pgd", 1),
    };
    vec![
        validation,
        LiveChart { range: Some([-0.1, 1.05]), ..one("PertAlign", "pert_align", "cosine", 3) },
        one("Step size \u{3b1}", "alpha", &unit, 2),
        one("Linearity", "linearity", "linearity", 3),
        one("Accuracy on the method's own training examples", "adv_acc", "accuracy (%)", 1),
        one("Training loss", "loss", "loss (nats)", 3),
        one("Mean absolute perturbation", "delta_mean", &unit, 2),
        one("Learning rate", "lr", "learning rate", 4),
        one("Throughput", "images_per_s", "images/s", 0),
    ]
}

/// A series of a run: `(step, value)`.
fn values(run: &Run, key: &str) -> Vec<(u64, f64)> {
    if let Some((_, of, factor)) = STEP_FIGURES.iter().find(|(name, ..)| *name == key) {
        let factor = factor(run);
        let all = run.steps.iter().map(|s| (s.step, factor * f64::from(of(s))));
        return all.filter(|(_, v)| !v.is_nan()).collect();
    }
    let all = run.validations().into_iter();
    let all = all.map(|(step, v)| match key {
        "clean" => (step, v.clean),
        "fgsm" => (step, v.fgsm),
        _ => (step, v.pgd),
    });
    all.map(|(step, accuracy)| (step, 100.0 * accuracy.accuracy)).collect()
}

fn summary(runs: &[Run], key: &str, digits: usize) -> String {
    let each = runs.iter().map(|run| {
        let values = values(run, key);
        match (values.first(), values.last()) {
            (Some((from, first)), Some((to, last))) => format!(
                "{}: {first:.digits$} at step {from}, {last:.digits$} at step {to}",
                run.name
            ),
            _ => format!("{}: no data", run.name),
        }
    });
    each.collect::<Vec<_>>().join("; ")
}

/// The data that the page's script draws.
pub(super) fn data(runs: &[Run], styles: &[Style], charts: &[LiveChart]) -> Value {
    let each = runs.iter().zip(styles).map(|(run, style)| {
        let keys = STEP_FIGURES.iter().map(|(key, ..)| *key).chain(["clean", "fgsm", "pgd"]);
        let series: serde_json::Map<_, _> =
            keys.map(|key| (key.to_owned(), thinned(&values(run, key)))).collect();
        let mut marks = Vec::new();
        if let Some(onset) = run.onset() {
            let label = format!("CO: {}", run.name);
            marks.push(json!({"step": onset.step, "label": label, "alarm": true}));
        }
        if let Some(rollback) = run.rollback() {
            let label = format!("rollback: {}", run.name);
            marks.push(json!({"step": rollback.to_step, "label": label, "alarm": false}));
        }
        let dash = style.dash.unwrap_or("").split(' ');
        let dash: Vec<f64> = dash.filter_map(|v| v.parse().ok()).collect();
        json!({
            "name": run.name, "colour": colour(style), "dash": dash, "marks": marks, "series": series
        })
    });
    json!({"runs": each.collect::<Vec<_>>(), "charts": charts})
}

/// `[[steps], [values]]`: means of neighbours, at most [`POINTS`] of them, to five digits.
fn thinned(values: &[(u64, f64)]) -> Value {
    let size = values.len().div_ceil(POINTS).max(1);
    let (mut x, mut y): (Vec<u64>, Vec<Value>) = (Vec::new(), Vec::new());
    for part in values.chunks(size) {
        let mean = part.iter().map(|v| v.1).sum::<f64>() / part.len() as f64;
        let short = format!("{mean:.4e}").parse::<f64>().ok().filter(|v| v.is_finite());
        x.push(part.last().map_or(0, |v| v.0));
        y.push(short.map_or(Value::Null, |v| json!(v)));
    }
    json!([x, y])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_thinned_and_what_is_no_number_is_null() {
        let values: Vec<_> =
            (0..2000).map(|i| (i, if i < 4 { f64::NAN } else { 1.0 / 3.0 })).collect();
        let value = thinned(&values);
        assert_eq!(value[0].as_array().unwrap().len(), 500);
        assert_eq!((&value[1][0], &value[1][1]), (&Value::Null, &json!(0.33333)));
    }
}
