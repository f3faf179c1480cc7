//! Validation, within an epoch and after it, with its consequences: the best weights and the early
//! stop.

use std::time::Instant;

use super::{Event, Session};
use crate::{
    device,
    diagnose::CoEvent,
    error::{Error, Result},
    evaluate::{self, EvalConfig},
    files,
    run::{
        checkpoint::Best,
        log::{EpochLine, EpochTotals, StepLine, ValFigures},
    },
};

impl Session<'_> {
    /// Validates within an epoch where it is due, after a batch whose first step was `first`.
    ///
    /// # Errors
    /// [`Error`] when a device fails, or best weights cannot be written.
    pub(super) fn validate_within(&mut self, first: u64, line: &mut StepLine) -> Result<()> {
        if !self.validation_due(first) {
            return Ok(());
        }
        let started = Instant::now();
        let figures = self.validate()?;
        self.progress.totals.val_seconds += started.elapsed().as_secs_f64();
        line.co = line.co.or_else(|| self.watch_validation(line.step, &figures));
        line.val = Some(figures);
        self.validated = self.serves_epoch().then_some(figures);
        Ok(())
    }

    /// Whether a validation is due after a batch whose first step was `first`.
    pub(super) fn validation_due(&self, first: u64) -> bool {
        self.serves_epoch() || due(self.config.val_steps, first, self.progress.step)
    }

    /// Whether a validation takes place that also serves as the validation after the epoch: the one
    /// after its last batch.
    fn serves_epoch(&self) -> bool {
        self.progress.batch == self.batches && self.config.val_steps.is_some()
    }

    /// Validates, unless the epoch's last step did, and logs the epoch.
    ///
    /// # Errors
    /// Those of [`validate_within`](Self::validate_within), and an error for a log that cannot be
    /// written.
    pub(super) fn finish_epoch(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut figures = self.validated.take();
        if figures.is_none() && !self.plan.val.is_empty() {
            let new = self.validate()?;
            self.watch_validation(self.progress.step.saturating_sub(1), &new);
            figures = Some(new);
        }
        let progress = &self.progress;
        let line = EpochLine {
            epoch: progress.epoch,
            step: progress.step,
            train: progress.totals.means(),
            val: figures,
            co: progress.co.event(),
            rollback: progress.rollback.clone(),
            seconds: progress.totals.seconds,
            val_seconds: progress.totals.val_seconds + started.elapsed().as_secs_f64(),
            passes: progress.passes,
            peak_rss_mib: device::peak_rss_mib(),
        };
        if let Some(folder) = &mut self.folder {
            folder.epochs.append(&line)?;
        }
        self.tell(&Event::Epoch(&line))?;
        self.last_epoch = Some(line);
        let progress = &mut self.progress;
        progress.epoch += 1;
        progress.batch = 0;
        progress.totals = EpochTotals::default();
        self.stop_early()
    }

    /// Ends the run if validation has not improved for the number of epochs that the settings
    /// allow.
    fn stop_early(&mut self) -> Result<()> {
        let (patience, epoch) = (self.config.early_stop, self.progress.epoch);
        let Some(best) = self.progress.best.filter(|_| patience > 0) else { return Ok(()) };
        if epoch >= best.epoch + patience && epoch < self.config.epochs {
            self.progress.stopped_early = Some(self.config.epochs);
            self.tell(&Event::Message(&format!(
                "stopping after epoch {epoch}: validation accuracy under pgd-10 has not risen \
                 since step {} ({:.3})",
                best.step, best.figures.pgd.accuracy
            )))?;
        }
        Ok(())
    }

    fn watch_validation(&mut self, step: u64, figures: &ValFigures) -> Option<CoEvent> {
        if self.warming_up(step) || self.config.method == "none" {
            None
        } else {
            self.progress.co.observe_validation(step, figures)
        }
    }

    fn validate(&mut self) -> Result<ValFigures> {
        let config = EvalConfig {
            seed: self.config.seed,
            batch: self.config.batch,
            ..EvalConfig::under(self.config.threat())
        };
        let val = &self.plan.val;
        let model = self.learner.result().in_f32();
        let names = ["clean", "fgsm", "pgd-10"];
        let outcome = evaluate::evaluate_shared(self.ranks.link(), &model, val, &names, config)?;
        let figures = match outcome.results.0.as_slice() {
            [(_, clean), (_, fgsm), (_, pgd)] => ValFigures {
                n: val.len() as u64,
                clean: clean.accuracy,
                fgsm: fgsm.accuracy,
                pgd: pgd.accuracy,
            },
            other => {
                let found = other.len();
                return Err(Error::defect(format!("validation gave {found} figures instead of 3")));
            }
        };
        let step = self.progress.step;
        self.tell(&Event::Validation { step, figures: &figures })?;
        self.keep_best(figures)?;
        Ok(figures)
    }

    /// Keeps the weights if the validation is the best so far.
    fn keep_best(&mut self, figures: ValFigures) -> Result<()> {
        let before = self.progress.best.map(|best| best.figures.pgd.accuracy);
        if before.is_some_and(|before| figures.pgd.accuracy <= before) {
            return Ok(());
        }
        let complete = u64::from(self.progress.batch == self.batches);
        let (step, epoch) = (self.progress.step, self.progress.epoch + complete);
        let model = self.learner.result();
        if let Some(folder) = &self.folder {
            let tensors = model.to_host()?;
            if let Some(tensor) = files::not_finite(&tensors) {
                let step = self.progress.step;
                return Err(self.diverged(step, &format!("tensor '{tensor}'")));
            }
            files::write_atomic(&folder.dir.best(), &self.about().file(&tensors)?)?;
        } else if !self.in_folder {
            self.best = Some(model);
        }
        self.progress.best = Some(Best { step, epoch, figures });
        Ok(())
    }
}

/// Whether an action that happens every `every` steps is due after steps `first..step`.
pub(super) fn due(every: Option<u64>, first: u64, step: u64) -> bool {
    every.is_some_and(|every| step / every > first / every)
}
