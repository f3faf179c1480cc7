//! `sora train`: a new run.

mod merge;
pub mod settings;

use std::path::PathBuf;

use sora::{
    Trainer,
    config::TrainConfig,
    data::Dataset,
    device,
    run::{
        self,
        log::{EpochLine, StepLine},
    },
    train::{Event, Observer},
};

use super::shared::start_threads;
use crate::{
    console::{Bar, duration},
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
        let mut config = merge::settle(given, config.as_deref())?;
        config.make_absolute();
        device::device(&config.device)?;
        config.threads = start_threads(config.threads)?;
        let dataset = run::open_dataset(&config)?;
        let about = summary(&config, &dataset);
        let trainer = Trainer::from_config(config).in_dir(out).observe(Console::after(about));
        to_the_end(trainer, &dataset)
    })
}

fn summary(config: &TrainConfig, data: &Dataset) -> String {
    format!(
        "{} on {} ({} training images), {} of width {}, {} {}, {} epochs on {} with {} threads",
        config.method,
        config.dataset,
        data.train.len(),
        config.model,
        config.width,
        config.norm,
        config.epsilon,
        config.epochs,
        config.device,
        config.threads
    )
}

/// Trains to the last epoch.
///
/// # Errors
/// Those of the training; an interrupt, after a checkpoint was written.
pub fn to_the_end(trainer: Trainer<'_>, data: &Dataset) -> Result<()> {
    let interrupt = signals::watch(FirstSignal::Finish(
        "interrupted: finishing the step and writing a checkpoint (again to stop at once)",
    ))?;
    let trained = trainer.interrupt(&interrupt).fit(data)?;
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

/// Shows a training on standard error: a bar, and lines for what happens.
#[derive(Debug, Default)]
pub struct Console {
    /// What to say when training starts.
    about: Option<String>,
    bar: Option<Bar>,
    epochs: u64,
}

impl Console {
    /// Says `about` when training starts.
    pub fn after(about: String) -> Self {
        Self { about: Some(about), ..Self::default() }
    }

    /// Logs a line without tearing the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::info!("{text}")),
            None => tracing::info!("{text}"),
        }
    }
}

impl Observer for Console {
    fn observe(&mut self, event: &Event<'_>) -> sora::Result<()> {
        match event {
            Event::Started { step, total, epochs } => {
                if let Some(about) = self.about.take() {
                    self.line(&about);
                }
                self.epochs = *epochs;
                self.bar = Some(Bar::new("train", *step, *total));
            }
            Event::Step(line) => {
                if let Some(bar) = &mut self.bar {
                    bar.set(line.step + 1, || step_text(line));
                }
            }
            Event::Epoch(line) => self.line(&epoch_text(line, self.epochs)),
            Event::Overfitting(event) => self.line(&event.to_string()),
            Event::RolledBack(rollback) => {
                self.line(&format!(
                    "rolled back to step {}; going on with method {}",
                    rollback.to_step, rollback.method
                ));
                if let Some(bar) = &mut self.bar {
                    bar.set(rollback.to_step, String::new);
                }
            }
            Event::Warning(text) => match &self.bar {
                Some(bar) => bar.suspend(|| tracing::warn!("{text}")),
                None => tracing::warn!("{text}"),
            },
            Event::Message(text) => self.line(text),
            _ => {}
        }
        Ok(())
    }
}

fn step_text(line: &StepLine) -> String {
    format!(
        "loss {:.3} adv acc {:.2} PertAlign {:.2} alpha {:.1}/255 {:.0} images/s",
        line.loss,
        line.adv_acc,
        line.pert_align,
        line.alpha * 255.0,
        line.images_per_s
    )
}

fn epoch_text(line: &EpochLine, epochs: u64) -> String {
    let mut text = format!(
        "epoch {}/{epochs} loss {:.3} adv acc {:.3} PertAlign {:.2} in {:.1} s",
        line.epoch + 1,
        line.train.loss,
        line.train.adv_acc,
        line.train.pert_align,
        line.seconds
    );
    if let Some(val) = &line.val {
        text += &format!(
            "; validation (n {}): clean {:.3} fgsm {:.3} pgd-10 {:.3}",
            val.n, val.clean.accuracy, val.fgsm.accuracy, val.pgd.accuracy
        );
    }
    text
}
