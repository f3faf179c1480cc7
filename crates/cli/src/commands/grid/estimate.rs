//! Estimates the duration of a grid from a measured step of each kind of run.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use serde_json::Value;
use sora::{
    config::TrainConfig,
    data::{self, OpenOptions},
    model::IMPORTED,
    run::recipe::RecipePlan,
};

use super::shard::Shard;
use crate::{
    commands::shared::{Output, Overrides, is_done, sora, state},
    console::{Table, duration, print},
    error::{Failure, Result},
};

/// Number of timed steps, as an argument.
const STEPS: &str = "3";

/// Measures and prints the time that the unfinished runs of `shard` would take.
///
/// # Errors
/// A step that cannot be measured.
pub fn estimate(plan: &RecipePlan, dirs: &[PathBuf], shard: Shard, over: &Overrides) -> Result<()> {
    let mut measured = HashMap::new();
    let mut table = Table::new(["run", "state", "steps", "a step", "training"]);
    let (mut total, mut about) = (0.0, "about");
    for (i, (run, dir)) in plan.runs.iter().zip(dirs).enumerate() {
        if !shard.takes(i) {
            continue;
        }
        if is_done(dir) {
            table.row([run.label.as_str(), "done", "", "", ""]);
            continue;
        }
        let settings = run.config.parse();
        let config = TrainConfig::from_table(
            settings.map_err(|e| Failure::input(format!("{}: {e}", run.label)))?,
        )?;
        let (images, shape) = size(&config)?;
        let steps = (images / config.batch.max(1)) as u64 * config.epochs;
        let left = steps.saturating_sub(steps_done(dir));
        // `bench step` has no file to take the network from.
        if config.model == IMPORTED {
            about = "more than";
            let [label, state] = [&run.label, state(dir)];
            table.row([label, state, &left.to_string(), "not measured", ""]);
            continue;
        }
        let call = step(&config, shape, over);
        let seconds = match measured.get(&call) {
            Some(seconds) => *seconds,
            None => *measured.entry(call.clone()).or_insert(measure(&call)?),
        };
        total += seconds * left as f64;
        table.row([
            run.label.clone(),
            state(dir).to_owned(),
            left.to_string(),
            format!("{:.1} ms", 1000.0 * seconds),
            duration(seconds * left as f64),
        ]);
    }
    table.figures_from(2).print()?;
    let evaluations = if plan.attacks.is_empty() { "" } else { ", and the evaluations" };
    print(&format!(
        "\ntraining in all: {about} {}, without validation{evaluations}\n",
        duration(total)
    ))
}

/// Number of training images, and their number of channels and side.
fn size(config: &TrainConfig) -> Result<(usize, [usize; 2])> {
    let known = data::find(&config.dataset).filter(|info| info.train > 0 && info.height > 0);
    let info = match known {
        Some(info) => info,
        None => {
            let options = OpenOptions {
                data_dir: config.data_dir.clone(),
                image_size: config.image_size,
                limit_train: config.limit_train,
                limit_test: Some(1),
                ..Default::default()
            };
            data::open(&config.dataset, &options)?.info
        }
    };
    let images = config.limit_train.unwrap_or(usize::MAX).min(info.train);
    let held_out = config.val.unwrap_or(1000.min(images / 10));
    let side = config.image_size.unwrap_or(info.height);
    Ok((images.saturating_sub(held_out), [info.channels, side]))
}

/// The call that measures a step of a run with these settings.
fn step(config: &TrainConfig, [channels, side]: [usize; 2], over: &Overrides) -> Vec<OsString> {
    let mut flags = vec![
        ("--model", config.model.clone()),
        ("--method", config.method.clone()),
        ("--width", config.width.to_string()),
        ("--batch", config.batch.to_string()),
        ("--image-size", side.to_string()),
        ("--channels", channels.to_string()),
        ("--precision", config.precision.to_string()),
        ("--device", config.device.clone()),
        ("--threads", over.threads.unwrap_or(config.threads).to_string()),
        ("--steps", STEPS.to_owned()),
        ("--dropout", config.dropout.to_string()),
    ];
    let options = [
        ("--activation", config.activation.map(|activation| activation.to_string())),
        ("--stem", config.stem.map(|stem| stem.to_string())),
        ("--patch", config.patch.map(|patch| patch.to_string())),
        ("--shortcut", config.shortcut.map(|shortcut| shortcut.to_string())),
    ];
    flags.extend(options.into_iter().filter_map(|(flag, value)| Some((flag, value?))));
    let mut call: Vec<OsString> = vec!["bench".into(), "step".into()];
    call.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
    call
}

/// Returns the seconds of a step.
fn measure(call: &[OsString]) -> Result<f64> {
    let json = sora(call, Output::Keep, &AtomicBool::new(false))?;
    let result: Value = serde_json::from_slice(&json)
        .map_err(|e| Failure::work(format!("`sora bench step` printed no JSON: {e}")))?;
    result["median_s"]
        .as_f64()
        .ok_or_else(|| Failure::work("`sora bench step` printed no median_s"))
}

/// Number of completed steps of a run that was cut off.
fn steps_done(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
    text.lines().count() as u64
}
