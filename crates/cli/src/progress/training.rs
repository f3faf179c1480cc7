//! A training as a bar, with lines for its events.

use sora::{
    run::log::{EpochLine, StepLine},
    train::{Event, Observer},
};

use crate::console::{Bar, duration};

/// Shows a training on standard error: a bar, and lines for its events.
#[derive(Debug, Default)]
pub struct TrainingBar {
    /// The line to print when training starts.
    about: Option<String>,
    bar: Option<Bar>,
    epochs: u64,
}

impl TrainingBar {
    /// A bar that prints `about` when training starts.
    pub fn after(about: String) -> Self {
        Self { about: Some(about), ..Self::default() }
    }

    /// Logs a line without damaging the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::info!("{text}")),
            None => tracing::info!("{text}"),
        }
    }
}

impl Observer for TrainingBar {
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
        "epoch {}/{epochs} loss {:.3} adv acc {:.3} PertAlign {:.2} in {}",
        line.epoch + 1,
        line.train.loss,
        line.train.adv_acc,
        line.train.pert_align,
        duration(line.seconds)
    );
    if let Some(val) = &line.val {
        text += &format!(
            "; validation (n {}): clean {:.3} fgsm {:.3} pgd-10 {:.3}",
            val.n, val.clean.accuracy, val.fgsm.accuracy, val.pgd.accuracy
        );
    }
    text
}
