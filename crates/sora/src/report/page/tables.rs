//! The tables of a page.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    report::{
        caption::{duration, radius, thousands},
        measured::Comparison,
        privacy::dataset_name,
        record::strength,
        run::Run,
        seeds::{groups, mean_and_deviation},
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
    let several = groups(runs).into_iter().filter(|group| group.has_seeds());
    let row = |group: crate::report::seeds::Group<'_>| {
        let found: Vec<_> = runs
            .iter()
            .zip(&comparison.found)
            .filter(|(run, _)| group.runs.iter().any(|one| std::ptr::eq(*one, *run)))
            .filter_map(|(_, found)| found.as_ref())
            .collect();
        let over = |attack: &str| {
            let values: Vec<f64> =
                found.iter().filter_map(|m| Some(100.0 * m.under(attack)?.accuracy)).collect();
            if values.is_empty() {
                return "\u{2013}".to_owned();
            }
            let (mean, deviation) = mean_and_deviation(values);
            format!("{mean:.1} \u{b1} {deviation:.1}")
        };
        let collapsed = group.runs.iter().filter(|run| run.onset().is_some()).count();
        let images: BTreeSet<String> = found.iter().map(|m| m.words()).collect();
        json!({
            "name": group.name,
            "seeds": group.runs.iter().map(|run| run.seed()).collect::<Vec<_>>().join(", "),
            "measured": found.len(),
            "images": images.into_iter().collect::<Vec<_>>().join("; "),
            "attack": comparison.attack,
            "clean": over("clean"),
            "robust": over(&comparison.attack),
            "collapsed": format!("{collapsed} of {}", group.runs.len()),
        })
    };
    several.map(row).collect()
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
