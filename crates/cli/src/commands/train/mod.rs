//! `sora train`: a new run.

mod listed;
mod merge;
pub mod settings;

use std::path::PathBuf;

use sora::{
    config::TrainConfig,
    device,
    run::{self, RunDir, TrainData},
    train,
};

use super::shared::start_threads;
use crate::{
    console::duration,
    error::Result,
    finish::OnFinish,
    signals::{self, FirstSignal},
};

/// Settings of a run, and where it goes.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub given: settings::Given,
    /// Settings to start from, such as the config.toml of another run; flags override it
    #[arg(long, value_name = "FILE.toml", help_heading = "Output")]
    pub config: Option<PathBuf>,
    /// Run folder to make
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: PathBuf,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Starts a run.
pub fn run(args: TrainArgs) -> Result<()> {
    let TrainArgs { given, config, out, finish } = args;
    finish.after(|| {
        let mut config = merge::options(given, config.as_deref())?.resolve()?;
        run::make_absolute(&mut config);
        device::device(&config.device)?;
        config.threads = start_threads(config.threads)?;
        let dataset = run::open_dataset(&config)?;
        let data = run::prepare(&mut config, &dataset)?;
        let dir = RunDir::create(&out, &config)?;
        tracing::info!("{}", summary(&config, &data));
        to_the_end(&dir, &config, &data)
    })
}

fn summary(config: &TrainConfig, data: &TrainData) -> String {
    format!(
        "{} on {} ({} training and {} validation images), {} of width {}, {} {}, {} epochs on {} \
         with {} threads",
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
    )
}

/// Trains the run in `dir` to its last epoch.
///
/// # Errors
/// Those of the training; an interrupt, after a checkpoint was written.
pub fn to_the_end(dir: &RunDir, config: &TrainConfig, data: &TrainData) -> Result<()> {
    let interrupt = signals::watch(FirstSignal::Finish(
        "interrupted: finishing the step and writing a checkpoint (again to stop at once)",
    ))?;
    let summary = train::train(dir, config, data, &interrupt)?;
    tracing::info!(
        "done: {} steps in {}, peak memory {} MiB, weights in {}; measure them with `sora eval {}`",
        summary.steps,
        duration(summary.seconds),
        summary.peak_rss_mib,
        dir.model().display(),
        dir.path().display()
    );
    Ok(())
}
