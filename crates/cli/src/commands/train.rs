//! `sora train` and `sora resume`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sora::{
    config::{TrainConfig, TrainOptions},
    device,
    error::{Error, Result},
    run::{self, RunDir},
    train,
};

use crate::cli::TrainArgs;

/// Starts a run.
pub fn train(args: TrainArgs) -> Result<()> {
    let file = args.config.as_deref().map(TrainOptions::from_file).transpose()?.unwrap_or_default();
    let mut config = args.options.over(file).resolve()?;
    run::make_absolute(&mut config);
    device::device(&config.device)?;
    config.threads = device::set_threads(config.threads);
    let dataset = run::open_dataset(&config)?;
    let data = run::prepare(&mut config, &dataset)?;
    let dir = RunDir::create(&args.out, &config)?;
    tracing::info!(
        "{} on {} ({} training and {} validation images), {} of width {}, {} {}, {} epochs on {} with {} threads",
        config.method,
        config.dataset,
        data.train.len(),
        data.val.len(),
        config.model,
        config.width,
        config.norm,
        config.epsilon,
        config.epochs,
        config.device,
        config.threads
    );
    finish(&dir, &config, &data)
}

/// Goes on with a run.
pub fn resume(path: &Path) -> Result<()> {
    let (dir, mut config) = RunDir::open(path)?;
    let threads = device::set_threads(config.threads);
    if threads != config.threads {
        tracing::warn!(
            "{threads} threads here, {} when the run began: the figures may differ in their last bits",
            config.threads
        );
    }
    let dataset = run::open_dataset(&config)?;
    let data = run::prepare(&mut config, &dataset)?;
    finish(&dir, &config, &data)
}

fn finish(dir: &RunDir, config: &TrainConfig, data: &run::TrainData) -> Result<()> {
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = interrupt.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            // Asked twice: the newest checkpoint on disk is whole, whatever is in memory may go.
            std::process::exit(130);
        }
        eprintln!(
            "\ninterrupted: finishing the step and writing a checkpoint (again to stop at once)"
        );
    })
    .map_err(|e| Error::work(format!("cannot watch for Ctrl-C: {e}")))?;
    let summary = train::train(dir, config, data, &interrupt)?;
    tracing::info!(
        "done: {} steps in {:.1} s, peak memory {} MiB, weights in {}; measure them with `sora eval {}`",
        summary.steps,
        summary.seconds,
        summary.peak_rss_mib,
        dir.model().display(),
        dir.path().display()
    );
    Ok(())
}
