//! One HTML page that compares runs. It holds all it needs: no network is used, and its own policy
//! forbids it.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::Environment;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    figures::{run_styles, thousands},
    records::{Accuracy, Evaluation, Run, Step, dataset_name, strength},
};
use crate::{
    error::{Error, Result},
    plot::{DASHES, PALETTE, Style},
};

/// Most points of a line on the page.
const POINTS: usize = 600;

/// A figure of the page.
#[derive(Clone, Debug, Serialize)]
pub struct PageFigure {
    /// Name of its file under `plots/`, without the ending.
    pub name: String,
    /// The drawing.
    pub svg: String,
    /// Names of animations under `plots/`.
    pub animations: Vec<String>,
}

/// A line of the page's warnings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// The run that it is about; empty: none in particular.
    pub run: String,
    /// What is to be known.
    pub text: String,
}

#[derive(Serialize)]
struct Card {
    name: String,
    method: String,
    threat: String,
    network: String,
    dataset: String,
    seed: String,
    colour: usize,
    dash: String,
    verdict: String,
    verdict_class: &'static str,
    clean: String,
    fgsm: String,
    robust: String,
    attack: String,
    source: String,
    progress: String,
}

#[derive(Serialize)]
struct Cell {
    value: String,
    interval: String,
}

#[derive(Serialize)]
struct ResultRow {
    run: usize,
    colour: usize,
    name: String,
    images: String,
    threat: String,
    seed: String,
    cells: Vec<Cell>,
}

/// A chart of the page: its lines are series of `data`.
#[derive(Serialize)]
struct LiveChart {
    title: &'static str,
    unit: String,
    wide: bool,
    digits: u8,
    range: Option<[f64; 2]>,
    lines: Vec<LiveLine>,
}

#[derive(Serialize)]
struct LiveLine {
    key: &'static str,
    label: &'static str,
    dash: Option<Vec<f64>>,
    width: Option<f64>,
}

/// What is to be known about `runs`: catastrophic overfitting, warnings of their evaluations,
/// records that are damaged.
pub fn warnings(runs: &[Run]) -> Vec<Warning> {
    let mut all = Vec::new();
    for run in runs {
        let mut say = |text: String| {
            let warning = Warning { run: run.name.clone(), text };
            if !all.contains(&warning) {
                all.push(warning);
            }
        };
        if let Some(onset) = run.onset() {
            say(format!(
                "catastrophic overfitting, noticed at step {}: {}. Its single-step accuracy says nothing about robustness.",
                onset.step,
                onset.reason()
            ));
        }
        if let Some(rollback) = run.rollback() {
            say(format!(
                "rolled back to step {} after catastrophic overfitting of {} at step {}, then trained with {}",
                rollback.to_step, rollback.from_method, rollback.co.step, rollback.method
            ));
        }
        for evaluation in &run.evaluations {
            evaluation.warnings.iter().for_each(|text| {
                say(format!("evaluation of {} images: {text}", thousands(evaluation.n)))
            });
        }
        run.warnings.iter().for_each(|text| say(text.clone()));
    }
    all
}

/// The page.
///
/// # Errors
/// A mistake in the page's own template.
pub fn page(
    runs: &[Run],
    figures: &[PageFigure],
    warnings: &[Warning],
    title: Option<&str>,
) -> Result<String> {
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = title.map_or_else(|| names.join(" and "), str::to_owned);
    let styles = run_styles(runs);
    let colours: Vec<usize> = styles.iter().map(colour).collect();
    let charts = charts(runs);
    let attacks = attacks(runs);
    let (differing, common) = settings(runs);
    let data = data(runs, &styles, &charts);
    let licences = format!(
        "uPlot (interactive charts), MIT:\n\n{}\n\nInter (font of PNG figures; the page names it and does not hold it), SIL Open Font License 1.1.",
        include_str!("vendor/LICENSE-uPlot")
    );

    let mut environment = Environment::new();
    // Names that end in .html are escaped.
    environment.add_template("page.html", include_str!("page/page.html")).map_err(broken)?;
    let template = environment.get_template("page.html").map_err(broken)?;
    let cards: Vec<_> = runs.iter().zip(&styles).map(|(run, style)| card(run, style)).collect();
    let content = json!({
        "title": title,
        "about": format!("{} run{} of adversarial training, drawn from their records.", runs.len(), if runs.len() == 1 { "" } else { "s" }),
        "version": env!("CARGO_PKG_VERSION"),
        "runs": cards,
        "warnings": warnings,
        "charts": charts,
        "figures": figures,
        "attacks": attacks,
        "results": results(runs, &colours, &attacks),
        "differing": differing,
        "common": common,
        "cost": runs.iter().zip(&colours).map(|(run, colour)| cost(run, *colour)).collect::<Vec<_>>(),
        "licences": licences,
        "thinning": format!("Lines over steps are means of neighbouring steps, at most {POINTS} points a line."),
        "data": in_script(&data),
        "css": include_str!("page/page.css"),
        "js": include_str!("page/page.js"),
        "uplot_css": include_str!("vendor/uPlot.min.css"),
        "uplot_js": include_str!("vendor/uPlot.iife.min.js"),
    });
    template.render(minijinja::value::Serde(&content)).map_err(broken)
}

fn broken(error: minijinja::Error) -> Error {
    Error::work(format!("cannot fill in the page: {error}"))
}

/// JSON as it may stand in a script element: nothing in it can end the element.
fn in_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn colour(style: &Style) -> usize {
    PALETTE.iter().position(|paint| *paint == style.paint).unwrap_or(0)
}

fn percent(accuracy: Option<Accuracy>) -> String {
    accuracy.map_or_else(|| "\u{2013}".into(), |a| format!("{:.1}", 100.0 * a.accuracy))
}

fn interval(accuracy: Option<Accuracy>) -> String {
    let ends = accuracy.and_then(|a| a.ci95);
    ends.map_or_else(String::new, |[low, high]| {
        format!("({:.1}\u{2013}{:.1})", 100.0 * low, 100.0 * high)
    })
}

fn card(run: &Run, style: &Style) -> Card {
    let attack = super::figures::common_attack(std::slice::from_ref(run));
    let measured = run.measured(&attack);
    let single = match run.measured("fgsm") {
        Some(found) => Some(found.robust),
        None => run.validations().last().and_then(|(_, val)| val.fgsm),
    };
    let (verdict, verdict_class) = match (run.onset(), run.rollback()) {
        (_, Some(rollback)) => (
            format!("\u{2715} catastrophic overfitting at step {}, rolled back", rollback.co.step),
            "bad",
        ),
        (Some(onset), None) => {
            (format!("\u{2715} catastrophic overfitting at step {}", onset.step), "bad")
        }
        (None, None) if run.epochs.is_empty() && run.steps.is_empty() => {
            ("no records".into(), "none")
        }
        (None, None) => ("\u{2713} no catastrophic overfitting noticed".into(), "good"),
    };
    let made =
        run.steps.last().map_or(0, |s| s.step + 1).max(run.epochs.last().map_or(0, |e| e.step));
    Card {
        name: run.name.clone(),
        method: run.method(),
        threat: run.threat(),
        network: run.network(),
        dataset: run.dataset(),
        seed: run.seed(),
        colour: colour(style),
        dash: style.dash.unwrap_or(DASHES[0]).to_owned(),
        verdict,
        verdict_class,
        clean: percent(measured.as_ref().map(|m| m.clean)),
        fgsm: percent(single),
        robust: percent(measured.as_ref().map(|m| m.robust)),
        source: measured.as_ref().map_or_else(
            || "Not measured yet.".into(),
            |m| {
                format!(
                    "n = {} {} images; {attack} {}",
                    thousands(m.n),
                    m.split,
                    interval(Some(m.robust))
                )
            },
        ),
        attack,
        progress: format!(
            "{} of {} epochs, {} steps{}",
            run.epochs.len(),
            run.setting("epochs"),
            thousands(made),
            if run.finished { "" } else { "; not finished" }
        ),
    }
}

fn attacks(runs: &[Run]) -> Vec<String> {
    let measured =
        runs.iter().flat_map(|run| &run.evaluations).flat_map(|e| e.results.keys().cloned());
    let mut all: Vec<String> =
        measured.chain(["clean", "fgsm", "pgd-10"].map(String::from)).collect();
    all.sort_by(|a, b| (strength(a), a).cmp(&(strength(b), b)));
    all.dedup();
    all
}

fn results(runs: &[Run], colours: &[usize], attacks: &[String]) -> Vec<ResultRow> {
    let mut rows = Vec::new();
    for (i, (run, colour)) in runs.iter().zip(colours).enumerate() {
        let mut push = |images: String,
                        threat: String,
                        seed: String,
                        of: &dyn Fn(&str) -> Option<Accuracy>| {
            let cells = attacks
                .iter()
                .map(|attack| of(attack))
                .map(|a| Cell { value: percent(a), interval: interval(a) })
                .collect();
            rows.push(ResultRow {
                run: i,
                colour: *colour,
                name: run.name.clone(),
                images,
                threat,
                seed,
                cells,
            });
        };
        for evaluation in &run.evaluations {
            let Evaluation { dataset, split, n, norm, seed, results, .. } = evaluation;
            let own = dataset_name(dataset) == run.dataset();
            let images = format!(
                "{}{} {split}",
                if own { String::new() } else { format!("{}: ", dataset_name(dataset)) },
                thousands(*n)
            );
            push(images, radius(norm, evaluation.epsilon), seed.to_string(), &|attack| {
                results.get(attack).map(|r| r.accuracy)
            });
        }
        if let Some((step, val)) = run.validations().last() {
            let images =
                format!("{} validation, after step {}", thousands(val.n), thousands(*step));
            push(images, run.threat(), run.seed(), &|attack| match attack {
                "clean" => val.clean,
                "fgsm" => val.fgsm,
                "pgd-10" => val.pgd,
                _ => None,
            });
        }
    }
    rows
}

/// A norm and a radius for readers, in 1/255 where that is a round number.
fn radius(norm: &str, epsilon: f64) -> String {
    let name = if norm == "linf" { "l-inf" } else { norm };
    let parts = epsilon * 255.0;
    if (parts - parts.round()).abs() < 1e-3 {
        format!("{name} \u{3b5} = {:.0}/255", parts)
    } else {
        format!("{name} \u{3b5} = {epsilon:.4}")
    }
}

/// Settings that differ, and those that all runs share.
fn settings(runs: &[Run]) -> (Vec<Value>, Vec<Value>) {
    let all: Vec<BTreeMap<String, String>> = runs.iter().map(Run::settings).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let (mut differing, mut common) = (Vec::new(), Vec::new());
    for key in keys {
        let values: Vec<&str> =
            all.iter().map(|map| map.get(key).map_or("\u{2013}", String::as_str)).collect();
        match values.first() {
            Some(first) if values.iter().all(|value| value == first) => {
                common.push(json!({"key": key, "value": first}))
            }
            _ => differing.push(json!({"key": key, "cells": values})),
        }
    }
    (differing, common)
}

fn cost(run: &Run, colour: usize) -> Value {
    let mut speeds: Vec<f64> =
        run.steps.iter().filter_map(|s| s.images_per_s).filter(|v| v.is_finite()).collect();
    speeds.sort_by(f64::total_cmp);
    let none = || "\u{2013}".to_owned();
    let facts: BTreeMap<String, String> = run.provenance().into_iter().collect();
    let fact = |key: &str| facts.get(key).cloned().unwrap_or_default();
    let validation: f64 = run.epochs.iter().map(|e| e.val_seconds).sum();
    json!({
        "name": run.name,
        "colour": colour,
        "method": run.method(),
        "epochs": run.epochs.len(),
        "steps": thousands(run.epochs.last().map_or(0, |e| e.step)),
        "seconds": run.seconds().map_or_else(none, |s| format!("{s:.0}")),
        "validation": format!("{validation:.0}"),
        "speed": speeds.get(speeds.len() / 2).map_or_else(none, |v| format!("{v:.0}")),
        "memory": run.peak_rss_mib().map_or_else(none, thousands),
        "machine": format!("{}, {}, {} threads; sora {} ({})", fact("device"), fact("instruction_set"), run.setting("threads"), fact("sora"), fact("git_revision")),
    })
}

fn charts(runs: &[Run]) -> Vec<LiveChart> {
    let line = |key, label| LiveLine { key, label, dash: None, width: None };
    let one = |title, key, unit: &str, digits| LiveChart {
        title,
        unit: unit.into(),
        wide: false,
        digits,
        range: None,
        lines: vec![line(key, "")],
    };
    let units: BTreeSet<_> = runs.iter().map(|run| run.unit().1).collect();
    let unit = units.into_iter().collect::<Vec<_>>().join("; ");
    vec![
        LiveChart {
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
        },
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

/// What the page's script draws.
fn data(runs: &[Run], styles: &[Style], charts: &[LiveChart]) -> Value {
    let each = runs.iter().zip(styles).map(|(run, style)| {
        let factor = run.unit().0;
        let mut series = serde_json::Map::new();
        let mut steps = |key: &str, scale: f64, of: fn(&Step) -> Option<f64>| {
            let values: Vec<(u64, f64)> = run.steps.iter().filter_map(|s| Some((s.step, scale * of(s)?))).collect();
            series.insert(key.into(), thinned(&values));
        };
        steps("pert_align", 1.0, |s| s.pert_align);
        steps("alpha", factor, |s| s.alpha);
        steps("linearity", 1.0, |s| s.linearity);
        steps("adv_acc", 100.0, |s| s.adv_acc);
        steps("loss", 1.0, |s| s.loss);
        steps("delta_mean", factor, |s| s.delta_mean);
        steps("lr", 1.0, |s| s.lr);
        steps("images_per_s", 1.0, |s| s.images_per_s);
        let validations = run.validations();
        for (key, of) in [("clean", 0), ("fgsm", 1), ("pgd", 2)] {
            let values =
                validations.iter().filter_map(|(step, v)| Some((*step, 100.0 * [v.clean, v.fgsm, v.pgd].get(of).copied()??.accuracy)));
            series.insert(key.into(), thinned(&values.collect::<Vec<_>>()));
        }
        let mut marks = Vec::new();
        if let Some(onset) = run.onset() {
            marks.push(json!({"step": onset.step, "label": format!("CO: {}", run.name), "alarm": true}));
        }
        if let Some(rollback) = run.rollback() {
            marks.push(json!({"step": rollback.to_step, "label": format!("rollback: {}", run.name), "alarm": false}));
        }
        let dash: Vec<f64> = style.dash.unwrap_or("").split(' ').filter_map(|v| v.parse().ok()).collect();
        json!({"name": run.name, "colour": colour(style), "dash": dash, "marks": marks, "series": series})
    });
    json!({"runs": each.collect::<Vec<_>>(), "charts": charts})
}

/// `[[steps], [values]]`: means of neighbours, at most [`POINTS`] of them, to five digits.
fn thinned(values: &[(u64, f64)]) -> Value {
    let size = values.len().div_ceil(POINTS).max(1);
    let (mut x, mut y): (Vec<u64>, Vec<Value>) = (Vec::new(), Vec::new());
    for part in values.chunks(size) {
        let mean = part.iter().map(|v| v.1).sum::<f64>() / part.len() as f64;
        x.push(part.last().map_or(0, |v| v.0));
        y.push(
            format!("{mean:.4e}")
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .map_or(Value::Null, |v| json!(v)),
        );
    }
    json!([x, y])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::records::Validation;

    fn run(name: &str, method: &str) -> Run {
        let accuracy =
            |accuracy| Some(Accuracy { accuracy, ci95: Some([accuracy - 0.01, accuracy + 0.01]) });
        let config = format!(
            "method = \"{method}\"\nepsilon = \"8/255\"\nnorm = \"linf\"\nseed = 0\nepochs = 2\ndataset = \"folder:/secret/place/pets\"\n"
        );
        let steps = (0..2000)
            .map(|step| {
                serde_json::from_value(json!({"step": step, "loss": 2.0, "pert_align": 0.5}))
                    .unwrap()
            })
            .collect();
        let val =
            Validation { n: 100, clean: accuracy(0.5), fgsm: accuracy(0.4), pgd: accuracy(0.3) };
        let epochs = vec![
            serde_json::from_value(json!({"epoch": 0, "step": 2000, "seconds": 3.5})).unwrap(),
        ];
        let mut run = Run {
            name: name.into(),
            config: config.parse().unwrap(),
            steps,
            epochs,
            ..Run::default()
        };
        run.epochs[0].val = Some(val);
        run
    }

    #[test]
    fn the_page_holds_the_figures_and_escapes_what_users_chose() {
        let hostile = "</script><img src=x onerror=alert(1)>&\"'";
        let runs = [run(hostile, "fgsm"), run("b", "sora")];
        let found = vec![Warning { run: hostile.into(), text: hostile.into() }];
        let text = page(&runs, &[], &found, Some(hostile)).unwrap();
        assert!(!text.contains("<img"), "a name became markup");
        assert_eq!(
            text.matches("</script>").count(),
            3,
            "the page's own three scripts and no other end"
        );
        assert!(!text.contains("secret"), "a path of the machine");
        for part in [
            "30.0",
            "(29.0\u{2013}31.0)",
            "folder pets",
            "method",
            "no catastrophic overfitting noticed",
            "Content-Security-Policy",
        ] {
            assert!(text.contains(part), "no '{part}'");
        }
        assert!(!text.contains("https://cdn") && !text.contains("<link"), "something is fetched");
    }

    #[test]
    fn lines_are_thinned_and_what_is_no_number_is_null() {
        let values: Vec<_> =
            (0..2000).map(|i| (i, if i < 4 { f64::NAN } else { 1.0 / 3.0 })).collect();
        let value = thinned(&values);
        assert_eq!(value[0].as_array().unwrap().len(), 500);
        assert_eq!((&value[1][0], &value[1][1]), (&Value::Null, &json!(0.33333)));
    }
}
