//! The end of a training: final weights and figures.

use serde::{Deserialize, Serialize};

use super::{Event, Session};
use crate::{
    device,
    diagnose::CoEvent,
    error::Result,
    files,
    method::Passes,
    model::Model,
    run::{
        RunDir,
        checkpoint::{self, Best},
        digests::LogDigests,
        log::{EpochLine, Lines, Rollback},
    },
    sealed,
};

/// The final figures of a run: `summary.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Method.
    pub method: String,
    /// Data set.
    pub dataset: String,
    /// Number of epochs trained.
    pub epochs: u64,
    /// Number of steps trained.
    pub steps: u64,
    /// The event of catastrophic overfitting, if there was one; after a rollback, since the
    /// rollback.
    pub co: Option<CoEvent>,
    /// The rollback of the run, if there was one.
    pub rollback: Option<Rollback>,
    /// The last epoch's line.
    pub last_epoch: Option<EpochLine>,
    /// The best validation under pgd-10, whose weights are in `best.safetensors`.
    #[serde(default)]
    pub best: Option<Best>,
    /// Robust overfitting: the validation accuracy under pgd-10 at the best validation minus that
    /// at the last one.
    #[serde(default)]
    pub robust_overfitting: Option<f64>,
    /// Whether the run ended before its last epoch because validation no longer improved.
    #[serde(default)]
    pub stopped_early: bool,
    /// Numbers of forward and backward passes of all training steps.
    pub passes: Passes,
    /// Number of trained values.
    pub parameters: u64,
    /// Seconds of training, without validation (wall clock).
    pub seconds: f64,
    /// Largest resident memory (MiB).
    pub peak_rss_mib: u64,
    /// SHA-256 of the run's logs, by file name; empty without a folder, and in older files.
    #[serde(default, skip_serializing_if = "LogDigests::is_empty")]
    pub logs: LogDigests,
}

/// A finished training.
#[derive(Debug)]
pub struct Trained {
    /// The network with its final weights, averaged if the settings ask for it.
    pub model: Model,
    /// The final figures.
    pub summary: Summary,
    /// The run folder, if there is one.
    pub dir: Option<RunDir>,
    /// The network of the best validation, if no folder keeps it as `best.safetensors`.
    pub best: Option<Model>,
}

impl Session<'_> {
    /// Writes the final weights and figures. A run that was finished before stays unchanged.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged) where a final weight is not finite;
    /// [`Error::Io`](crate::Error::Io) for a disk that is full.
    pub(super) fn finish(mut self) -> Result<Trained> {
        let model = self.learner.result();
        let summary = match self.written_before()? {
            Some(summary) => {
                let text = format!("the run is finished: {} epochs are trained", summary.epochs);
                self.tell(&Event::Message(&text))?;
                summary
            }
            None => self.write_result(&model)?,
        };
        if let Some(folder) = &self.folder {
            // A kill right after the last checkpoint may have left old ones that its pruning would
            // have removed.
            checkpoint::prune(&folder.dir.checkpoints(), self.config.keep, self.needed()?)?;
        }
        let dir = self.folder.map(|folder| folder.dir);
        Ok(Trained { model, summary, dir, best: self.best })
    }

    fn write_result(&mut self, model: &Model) -> Result<Summary> {
        let tensors = model.to_host()?;
        if let Some(tensor) = files::not_finite(&tensors) {
            return Err(self.diverged(self.progress.step, &format!("tensor '{tensor}'")));
        }
        let mut summary = self.summary();
        let file = self.about().file(&tensors)?;
        if let Some(folder) = &mut self.folder {
            summary.logs = folder.sync()?.1;
            files::write_atomic(&folder.dir.model(), &file)?;
            sealed::write(&folder.dir.summary(), &summary)?;
        }
        Ok(summary)
    }

    /// The summary of a run that was finished before this process continued it. Of one that was
    /// changed since, or of damaged weights, the user is told; both are written anew.
    fn written_before(&mut self) -> Result<Option<Summary>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let weights = folder.dir.model();
        if self.last_epoch.is_some() || !weights.exists() {
            return Ok(None);
        }
        let path = folder.dir.summary();
        if let Err(e) = files::read_safetensors(&weights) {
            self.tell(&Event::Warning(&format!("{e}; they are written anew")))?;
            return Ok(None);
        }
        match sealed::read::<Summary>(&path) {
            Ok(summary) => Ok(Some(summary).filter(|found| found.steps == self.progress.step)),
            Err(_) if !path.exists() => Ok(None),
            Err(e) => {
                self.tell(&Event::Warning(&format!("{e}; it is written anew")))?;
                Ok(None)
            }
        }
    }

    fn summary(&self) -> Summary {
        let progress = &self.progress;
        let last_epoch = self.last_epoch.clone().or_else(|| {
            let folder = self.folder.as_ref()?;
            Lines::<EpochLine>::read(&folder.dir.epochs()).lines.pop()
        });
        let last = last_epoch.as_ref().and_then(|line| line.val);
        let gap = progress.best.zip(last);
        Summary {
            method: self.config.method.clone(),
            dataset: self.config.dataset.clone(),
            epochs: progress.epoch,
            steps: progress.step,
            co: progress.co.event(),
            rollback: progress.rollback.clone(),
            last_epoch,
            best: progress.best,
            robust_overfitting: gap
                .map(|(best, last)| best.figures.pgd.accuracy - last.pgd.accuracy),
            stopped_early: progress.stopped_early == Some(self.config.epochs),
            passes: progress.passes,
            parameters: self.learner.model.params.num_elements() as u64,
            seconds: progress.seconds,
            peak_rss_mib: device::peak_rss_mib(),
            logs: LogDigests::new(),
        }
    }
}
