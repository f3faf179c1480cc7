//! Steps that were made, and whose figures may still be coming.
//!
//! On the CPU the figures of a step are known when it ends. A GPU works behind the host: the figures
//! of a step are taken after the next one was issued, so that the device never waits for the host.
//! What must not go on without them takes them first: a validation, a checkpoint, the end of an epoch.

use std::time::Instant;

use super::{Event, Flow, Session};
use crate::{
    diagnose::CoEvent,
    error::{Error, Result},
    method::{Awaited, StepMetrics},
    optim::{OptimizerKind, Rates},
    profile::{self, Stage},
    run::log::StepLine,
};

/// A step that was made.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) step: u64,
    pub(super) rates: Rates,
    pub(super) metrics: Awaited<StepMetrics>,
    /// Images of all ranks.
    pub(super) images: usize,
    /// Seconds that the host took for it.
    pub(super) seconds: f64,
}

impl Session<'_> {
    /// Takes the figures of the step that was made last, if they are still coming, and reacts to what
    /// they show.
    ///
    /// # Errors
    /// Those of [`settle`](Self::settle) and [`react`](Self::react).
    pub(super) fn catch_up(&mut self) -> Result<Flow> {
        match self.issued.take() {
            Some(issued) => match self.settle(issued, None)? {
                Some(event) => self.react(&event),
                None => Ok(Flow::On),
            },
            None => Ok(Flow::On),
        }
    }

    /// Takes the figures of a step into the log and the epoch's means; returns the event, if they show
    /// one. After the last update on a batch, whose `first` step it is then, validates where that is
    /// due.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss is not finite; [`Error`] when a device fails or a log cannot be
    /// written.
    pub(super) fn settle(&mut self, issued: Issued, first: Option<u64>) -> Result<Option<CoEvent>> {
        let Issued { step, rates, metrics, images, seconds } = issued;
        let asked = Instant::now();
        let coming = metrics.known().is_none();
        let metrics = profile::time(Stage::Metrics, || metrics.wait())?;
        let seconds = seconds + if coming { asked.elapsed().as_secs_f64() } else { 0.0 };
        if !metrics.loss.is_finite() {
            return Err(self.diverged(step, "the loss"));
        }
        let mut line = self.line(step, &metrics, rates, images as f64 / seconds.max(1e-9));
        let progress = &mut self.progress;
        progress.totals.add(&metrics, images, seconds);
        progress.seconds += seconds;
        // While epsilon grows, PertAlign falls for that reason alone, so the detector pauses.
        if !self.warming_up(step) {
            line.co = self.progress.co.observe(&line, self.config.lr_max);
        }
        if let Some(first) = first {
            self.validate_within(first, &mut line)?;
        }
        if let Some(folder) = &mut self.folder {
            profile::time(Stage::Log, || folder.metrics.append(&line))?;
        }
        self.tell(&Event::Step(&line))?;
        Ok(line.co)
    }

    /// The log line of a step.
    fn line(&self, step: u64, metrics: &StepMetrics, rates: Rates, images_per_s: f64) -> StepLine {
        let rollback = self.progress.rollback.as_ref();
        StepLine {
            step,
            epoch: self.progress.epoch,
            loss: metrics.loss,
            adv_acc: metrics.adv_acc,
            lr: rates.lr,
            momentum: (self.config.optimizer == OptimizerKind::Sgd).then_some(rates.momentum),
            alpha: metrics.alpha,
            linearity: metrics.linearity,
            pert_align: metrics.pert_align,
            delta_mean: metrics.delta_mean,
            images_per_s: images_per_s as f32,
            linearity_raw: Some(metrics.linearity_raw),
            linearity_of_sums: Some(metrics.linearity_of_sums),
            grad_ratio: Some(metrics.grad_ratio),
            abnormal: metrics.abnormal,
            val: None,
            co: None,
            rollback: rollback.filter(|rollback| rollback.to_step == step).cloned(),
            method: rollback.map(|rollback| rollback.method.clone()),
        }
    }

    pub(super) fn diverged(&self, step: u64, figure: &str) -> Error {
        let last_good = self.folder.as_ref().and_then(|folder| folder.newest_checkpoint());
        Error::Diverged { step, figure: figure.into(), last_good }
    }
}
