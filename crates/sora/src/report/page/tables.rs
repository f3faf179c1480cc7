//! The tables of a page.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    report::{
        caption::{duration, radius, thousands},
        measured::Comparison,
        privacy::dataset_name,
        run::Run,
        seeds::{Group, groups, mean_and_deviation},
        strength::strength,
    },
    stats::Accuracy,
};

/// An accuracy in a table.
#[derive(Serialize)]
pub(super) struct Cell {
    value: String,
    interval: String,
}

impl Cell {
    fn of(accuracy: Option<&Accuracy>) -> Self {
        let interval = accuracy.map(|a| a.ci95.map(|v| 100.0 * v));
        let interval = interval.map(|[low, high]| format!("({low:.1}\u{2013}{high:.1})"));
        Self { value: percent(accuracy), interval: interval.unwrap_or_default() }
    }
}

/// An accuracy in percent; a dash for `None`.
pub(super) fn percent(accuracy: Option<&Accuracy>) -> String {
    accuracy.map_or_else(|| "\u{2013}".into(), |a| format!("{:.1}", 100.0 * a.accuracy))
}

/// A record of an evaluation.
#[derive(Serialize)]
pub(super) struct ResultRow {
    run: usize,
    colour: usize,
    name: String,
    images: String,
    weights: String,
    threat: String,
    seed: String,
    cells: Vec<Cell>,
}

/// The heading of the column of mean accuracies on corrupted images.
const CORRUPTIONS: &str = "corruptions, mean";

/// Attacks of all records, the weakest first, and corruptions.
pub(super) fn attacks(runs: &[Run]) -> Vec<String> {
    let records = || runs.iter().flat_map(|run| &run.records);
    let mut all: Vec<String> =
        records().flat_map(|record| record.results.keys().cloned()).collect();
    all.sort_by(|a, b| (strength(a), a).cmp(&(strength(b), b)));
    all.dedup();
    if records().any(|record| record.corruptions.is_some()) {
        all.push(CORRUPTIONS.to_owned());
    }
    all
}

/// All records of evaluations.
pub(super) fn results(runs: &[Run], colours: &[usize], attacks: &[String]) -> Vec<ResultRow> {
    let mut rows = Vec::new();
    for (i, (run, colour)) in runs.iter().zip(colours).enumerate() {
        for record in &run.records {
            let n = thousands(record.n);
            let mut images = format!("{n} {}", record.split);
            if !run.is_own_dataset(&record.dataset) {
                images += &format!(" of another set, {}", dataset_name(&record.dataset));
            } else if !run.has_images(record) {
                images += ", not as they were when the run began";
            }
            if !record.options.is_empty() {
                images += &format!("; {}", record.options.join(", "));
            }
            let found = |name: &str| match name {
                CORRUPTIONS => record.corruptions.as_ref(),
                attack => record.results.get(attack),
            };
            let cells = attacks.iter().map(|name| Cell::of(found(name)));
            rows.push(ResultRow {
                run: i,
                colour: *colour,
                name: run.name.clone(),
                images,
                weights: record.of.words(),
                threat: radius(&record.norm, record.epsilon),
                seed: record.seed.to_string(),
                cells: cells.collect(),
            });
        }
    }
    rows
}

/// The last validation of each run, and the best beside it.
pub(super) fn validations(runs: &[Run], colours: &[usize]) -> Vec<Value> {
    let row = |(i, (run, colour)): (usize, (&Run, &usize))| {
        let (step, last) = run.validations().into_iter().next_back()?;
        let [best, end] = run.best_and_last()?;
        let cells = [&last.clean, &last.fgsm, &last.pgd].map(|a| Cell::of(Some(a)));
        let gap = 100.0 * (best.1.accuracy - end.1.accuracy);
        Some(json!({
            "run": i,
            "colour": colour,
            "name": run.name,
            "images": thousands(last.n),
            "step": thousands(step),
            "cells": cells,
            "best": Cell::of(Some(&best.1)),
            "best_step": thousands(best.0),
            "gap": format!("{gap:.1}"),
        }))
    };
    runs.iter().zip(colours).enumerate().filter_map(row).collect()
}

/// Means and standard deviations of the experiments that were run with several seeds.
pub(super) fn seeds(runs: &[Run]) -> Vec<Value> {
    let comparison = Comparison::of(runs);
    let several = groups(runs).into_iter().filter(Group::has_seeds);
    several.map(|group| over_seeds(runs, &group, &comparison)).collect()
}

fn over_seeds(runs: &[Run], group: &Group<'_>, comparison: &Comparison) -> Value {
    let found = group.measured(runs, comparison);
    let over = |attack: &str| {
        let under = found.iter().filter_map(|(_, measured)| measured.under(attack));
        mean(&under.map(|accuracy| 100.0 * accuracy.accuracy).collect::<Vec<_>>())
    };
    let images: BTreeSet<String> = found.iter().map(|(_, measured)| measured.words()).collect();
    let measured: Vec<&Run> = found.iter().map(|(run, _)| *run).collect();
    json!({
        "name": group.name,
        "seeds": seeds_measured(&measured, group.runs.len()),
        "images": images.into_iter().collect::<Vec<_>>().join("; "),
        "attack": comparison.attack,
        "clean": over("clean"),
        "robust": over(&comparison.attack),
        "collapsed": collapsed(group),
    })
}

/// Mean and, of several values, standard deviation.
fn mean(values: &[f64]) -> String {
    match mean_and_deviation(values) {
        _ if values.is_empty() => "\u{2013}".to_owned(),
        (mean, None) => format!("{mean:.1}"),
        (mean, Some(deviation)) => format!("{mean:.1} \u{b1} {deviation:.1}"),
    }
}

/// The seeds of the runs that were measured, and how many of `all` these are if not all.
fn seeds_measured(measured: &[&Run], all: usize) -> String {
    let seeds = measured.iter().map(|run| run.seed()).collect::<Vec<_>>().join(", ");
    match measured.len() {
        some if some == all => seeds,
        0 => format!("none of {all} measured"),
        1 => format!("1 of {all} measured: seed {seeds}"),
        some => format!("{some} of {all} measured: seeds {seeds}"),
    }
}

/// How many runs of a group overfitted catastrophically, and how many of them rolled back.
fn collapsed(group: &Group<'_>) -> String {
    let count = |of: &dyn Fn(&Run) -> bool| group.runs.iter().filter(|run| of(run)).count();
    let rolled_back = count(&|run| run.rollback().is_some());
    let text = format!(
        "{} of {}",
        count(&|run| run.onset().is_some() || run.rollback().is_some()),
        group.runs.len()
    );
    if rolled_back == 0 { text } else { format!("{text}, {rolled_back} rolled back") }
}

/// Settings that differ between runs, and settings that all runs share.
pub(super) fn settings(runs: &[Run]) -> (Vec<Value>, Vec<Value>) {
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

/// Time and memory of each run.
pub(super) fn costs(runs: &[Run], colours: &[usize]) -> Vec<Value> {
    runs.iter().zip(colours).map(|(run, colour)| cost(run, *colour)).collect()
}

fn cost(run: &Run, colour: usize) -> Value {
    let speeds = run.steps.iter().map(|s| f64::from(s.images_per_s));
    let mut speeds: Vec<f64> = speeds.filter(|v| v.is_finite()).collect();
    speeds.sort_by(f64::total_cmp);
    let none = || "\u{2013}".to_owned();
    let facts = run.provenance();
    let fact = |key: &str| facts.get(key).cloned().unwrap_or_default();
    let validation: f64 = run.epochs.iter().map(|e| e.val_seconds).sum();
    json!({
        "name": run.name,
        "colour": colour,
        "method": run.method(),
        "epochs": run.epochs.len(),
        "steps": thousands(run.steps_made()),
        "seconds": run.seconds(),
        "training": run.seconds().map_or_else(none, duration),
        "validation_seconds": validation,
        "validation": duration(validation),
        "speed": speeds.get(speeds.len() / 2).map_or_else(none, |v| thousands(v.round() as u64)),
        "memory": run.peak_rss_mib().map_or_else(none, thousands),
        "machine": format!(
            "{}, {}, {} threads; sora {} ({})",
            fact("device"),
            fact("instruction_set"),
            run.setting("threads"),
            fact("sora"),
            fact("git_revision")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose only step was validated with these accuracies, if there are some.
    fn run(seed: u64, accuracies: Option<[f64; 2]>, more: Value) -> Run {
        let value = |accuracy: f64| json!({"accuracy": accuracy, "ci95": [0.0, 1.0]});
        let mut line = json!({"step": 0});
        if let Some([clean, pgd]) = accuracies {
            line["val"] =
                json!({"n": 9, "clean": value(clean), "fgsm": value(0.5), "pgd": value(pgd)});
        }
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Run {
            name: format!("sora-seed{seed}"),
            config: format!("method = \"sora\"\nseed = {seed}\n").parse().unwrap(),
            steps: vec![serde_json::from_value(line).unwrap()],
            ..Run::default()
        }
    }

    #[test]
    fn a_mean_over_seeds_says_how_many_of_them_were_measured() {
        let nothing = || json!({});
        let co = json!({"co": {"step": 0}});
        let rollback =
            json!({"co": {"step": 3}, "to_step": 0, "from_method": "fgsm", "method": "sora"});
        let rolled = json!({"rollback": rollback});
        let shown = |runs: &[Run]| {
            let row = seeds(runs).remove(0);
            ["seeds", "clean", "robust", "collapsed"]
                .map(|key| row[key].as_str().unwrap().to_owned())
        };
        let one = [run(0, None, nothing()), run(1, Some([0.8, 0.4]), co), run(2, None, rolled)];
        assert_eq!(
            shown(&one),
            ["1 of 3 measured: seed 1", "80.0", "40.0", "2 of 3, 1 rolled back"]
        );
        let both = [run(0, Some([0.9, 0.5]), nothing()), run(1, Some([0.9, 0.3]), nothing())];
        assert_eq!(shown(&both), ["0, 1", "90.0 \u{b1} 0.0", "40.0 \u{b1} 14.1", "0 of 2"]);
        let some = [both.as_slice(), &[run(2, None, nothing())]].concat();
        assert_eq!(shown(&some)[0], "2 of 3 measured: seeds 0, 1");
        let none = [run(0, None, nothing()), run(1, None, nothing())];
        assert_eq!(shown(&none)[..2], ["none of 2 measured", "\u{2013}"]);
    }
}
