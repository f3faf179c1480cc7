//! Estimates the duration of a grid from a measured step of each kind of run.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use serde_json::Value;
use sora::{
    config::TrainConfig,
    data::{self, OpenOptions},
    method,
    model::IMPORTED,
    run::{EXTRA_FRACTION, recipe::RecipePlan},
};

use super::shard::Shard;
use crate::{
    commands::shared::{Output, Overrides, is_done, sora, state},
    console::{Table, duration, print},
    error::{Failure, Result},
    signals,
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
        let left = steps(&config, images)?.saturating_sub(steps_done(dir));
        // `bench step` has no file to take the network from.
        if config.model == IMPORTED {
            about = "more than";
            let [label, state] = [&run.label, state(dir)];
            table.row([label, state, &left.to_string(), "not measured", ""]);
            continue;
        }
        let call = step(&config, shape, over.threads.unwrap_or(config.threads));
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

/// Number of steps of a run with these settings on `images` images of its own; a method may repeat a
/// batch, and extra images take a share of each.
///
/// # Errors
/// A method that cannot be made.
fn steps(config: &TrainConfig, images: usize) -> Result<u64> {
    let method = method::method(&config.method)?.build(&config.options, config.threat())?;
    let updates = u64::from(method.updates_per_batch().max(1));
    let fraction = config.extra_fraction.unwrap_or(EXTRA_FRACTION);
    let extra = config.extra_data.as_ref().map_or(0.0, |_| config.batch as f64 * fraction);
    let own = config.batch.saturating_sub(extra.round() as usize).max(1);
    let batches = if config.drop_last { images / own } else { images.div_ceil(own) };
    Ok(batches as u64 * updates * config.epochs)
}

/// The call that measures a step of a run with these settings.
fn step(config: &TrainConfig, [channels, side]: [usize; 2], threads: usize) -> Vec<OsString> {
    let mut flags = vec![
        ("--model", config.model.clone()),
        ("--method", config.method.clone()),
        ("--norm", config.norm.to_string()),
        ("--width", config.width.to_string()),
        ("--batch", config.batch.to_string()),
        ("--image-size", side.to_string()),
        ("--channels", channels.to_string()),
        ("--precision", config.precision.to_string()),
        ("--device", config.device.clone()),
        ("--threads", threads.to_string()),
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
    // What a step costs may hang on any of them.
    flags.extend(config.options.iter().map(|(key, value)| ("--set", format!("{key}={value}"))));
    let mut call: Vec<OsString> = vec!["bench".into(), "step".into()];
    call.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
    call
}

/// Returns the seconds of a step.
fn measure(call: &[OsString]) -> Result<f64> {
    let interrupt = signals::flag();
    let json = sora(call, Output::Keep, &interrupt);
    // Whatever came of the step: nothing of an estimate is kept to go on from.
    if interrupt.load(Ordering::Relaxed) {
        return Err(Failure::interrupted("interrupted; nothing was written"));
    }
    let result: Value = serde_json::from_slice(&json?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> TrainConfig {
        TrainConfig::from_toml(text).unwrap()
    }

    #[test]
    fn a_step_is_measured_with_the_options_and_the_norm_of_the_run() {
        let call = |text: &str| {
            let words = step(&config(text), [3, 32], 2).into_iter();
            words.map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let short = call("method = 'pgd'\n[options]\nsteps = 1");
        let long = call("method = 'pgd'\nnorm = 'l2'\n[options]\nsteps = 50");
        assert!(short.contains("--norm linf") && short.contains("--set steps=1"), "{short}");
        assert!(long.contains("--norm l2") && long.contains("--set steps=50"), "{long}");
        assert!(long.contains("--set alpha=0.25") && long.contains("--threads 2"), "{long}");
        assert!(!call("method = 'fgsm'").contains("--set"), "it has no options");
    }

    #[test]
    fn a_method_that_repeats_a_batch_makes_a_step_each_time() {
        let of = |text: &str| steps(&config(&format!("batch = 40\nepochs = 2\n{text}")), 240);
        assert_eq!(of("method = 'fgsm'").unwrap(), 12);
        assert_eq!(of("method = 'free'").unwrap(), 96);
        assert_eq!(of("method = 'free'\n[options]\nreplays = 3").unwrap(), 36);
    }

    #[test]
    fn a_last_smaller_batch_and_extra_images_make_more_steps() {
        let of = |text: &str| steps(&config(&format!("batch = 40\n{text}")), 250);
        assert_eq!(of("epochs = 1").unwrap(), 6);
        assert_eq!(of("epochs = 2\ndrop_last = false").unwrap(), 14);
        assert_eq!(of("epochs = 1\nextra_data = 'more'").unwrap(), 12);
        assert_eq!(of("epochs = 1\nextra_data = 'more'\nextra_fraction = 0.7").unwrap(), 20);
    }
}
