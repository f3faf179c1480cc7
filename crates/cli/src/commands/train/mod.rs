//! `sora train`: a new run.

mod merge;
pub mod settings;

use std::path::PathBuf;

use sora::{Trainer, config::TrainConfig, data::Dataset, device, run};

use super::shared::start_threads;
use crate::{
    console::duration, error::Result, finish::OnFinish, progress::TrainingBar, signals, world,
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
        let mut config = merge::settle(given, config.as_deref())?;
        config.make_absolute();
        device::device(&config.device)?;
        config.threads = start_threads(config.threads)?;
        let dataset = run::open_dataset(&config)?;
        let about = summary(&config, &dataset);
        let trainer = Trainer::from_config(config).in_dir(out).observe(TrainingBar::after(about));
        to_the_end(trainer, &dataset)
    })
}

fn summary(config: &TrainConfig, data: &Dataset) -> String {
    let extra = match (&config.extra_data, config.extra_fraction) {
        (None, _) => String::new(),
        (Some(extra), fraction) => {
            format!("; {} of each batch from {extra}", fraction.unwrap_or(run::EXTRA_FRACTION))
        }
    };
    let processes = match world::link().world() {
        1 => String::new(),
        world => format!(" in each of {world} processes"),
    };
    format!(
        "{} on {} ({} training images{extra}), {}, {} {}, {} epoch{} on {} with {} \
         threads{processes}",
        config.method,
        config.dataset,
        data.train.len(),
        config.network(),
        config.norm,
        config.epsilon,
        config.epochs,
        if config.epochs == 1 { "" } else { "s" },
        config.device,
        config.threads
    )
}

/// Trains to the last epoch.
///
/// # Errors
/// Those of the training; an interrupt, after a checkpoint was written.
pub fn to_the_end(trainer: Trainer<'_>, data: &Dataset) -> Result<()> {
    let interrupt = signals::flag();
    let trained = trainer.communicator(world::link()).interrupt(&interrupt).fit(data)?;
    let summary = trained.summary;
    if let Some(dir) = trained.dir {
        tracing::info!(
            "done: {} steps in {}, peak memory {} MiB, weights in {}; measure them with `sora eval {}`",
            summary.steps,
            duration(summary.seconds),
            summary.peak_rss_mib,
            dir.model().display(),
            dir.path().display()
        );
    }
    Ok(())
}
