//! One step: attack, training pass, update.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

use super::Session;
use crate::{
    config::TrainConfig,
    data,
    error::{Error, Result},
    method::{self, Place, StepContext, StepMetrics, StepSettings, TrainBatch},
    nn::BatchPart,
    noise::Noise,
    optim::{OptimizerKind, Rates},
    profile::{self, Stage},
    ranks::scope,
    run::{TrainPlan, log::StepLine},
    threat::Threat,
};

/// The batch as tensors on `device`.
pub(super) fn on_device(batch: data::Batch, device: &Device) -> TrainBatch {
    let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
    TrainBatch {
        x: Tensor::from_data(TensorData::new(batch.images, batch.shape), device),
        labels: Tensor::from_data(labels.as_slice(), device),
        ids: batch.ids,
        draws: batch.draws,
    }
}

impl Session<'_> {
    /// One update on `batch`.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss is not finite; [`Error`] when a device fails.
    pub(super) fn step(&mut self, batch: &TrainBatch) -> Result<StepLine> {
        let started = Instant::now();
        let Self { config, progress, learner, ranks, .. } = self;
        let (epoch, step) = (progress.epoch, progress.step);
        let (rank, world, images) = (ranks.link().rank(), ranks.world(), batch.ids.len());
        learner.model.begin_step_of(config.seed, step, BatchPart { rank, world, images });
        let mut noise =
            Noise::training(config.seed, epoch, step, batch.ids.clone(), &learner.device);
        let settings = StepSettings {
            threat: step_threat(config, self.plan, step),
            attack_bn: learner.attack_bn,
            place: Place { epoch, epochs: config.epochs, step, steps: self.plan.steps(config) },
            extras: config.extras(),
        };
        let rates = config.rates().at(step, self.plan.steps(config));
        let mut cx = StepContext::new(&mut learner.model, &mut noise, settings);
        cx.velocity = learner.optimizer.velocity(rates);
        let out = ranks.enter(|| {
            let mut out = method::run_step(learner.method.as_mut(), &mut cx, batch)?;
            // Of a method that chooses it image by image: the mean over this rank's.
            [out.metrics.alpha] = scope::mean_values([out.metrics.alpha]);
            Ok::<_, Error>(out)
        })??;
        progress.passes += cx.passes;
        if !out.metrics.loss.is_finite() {
            return Err(self.diverged("the loss"));
        }
        let learner = &mut self.learner;
        profile::time(Stage::Optimizer, || {
            learner.optimizer.step(&mut learner.model.params, out.gradients, rates)
        });
        if let Some(average) = &mut learner.average
            && (step + 1).is_multiple_of(u64::from(self.config.accumulate))
        {
            average.update(&learner.model);
        }
        let seconds = started.elapsed().as_secs_f64();
        let images = images * world;
        let line = self.line(&out.metrics, rates, images as f64 / seconds.max(1e-9));
        let progress = &mut self.progress;
        progress.totals.add(&out.metrics, images, seconds);
        progress.seconds += seconds;
        progress.step += 1;
        Ok(line)
    }

    /// The log line of the current step.
    fn line(&self, metrics: &StepMetrics, rates: Rates, images_per_s: f64) -> StepLine {
        let (step, rollback) = (self.progress.step, self.progress.rollback.as_ref());
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

    pub(super) fn diverged(&self, figure: &str) -> Error {
        let last_good = self.folder.as_ref().and_then(|folder| folder.newest_checkpoint());
        Error::Diverged { step: self.progress.step, figure: figure.into(), last_good }
    }
}

/// Norm and radius of `step`; epsilon may still be growing.
fn step_threat(config: &TrainConfig, plan: &TrainPlan, step: u64) -> Threat {
    let mut threat = config.training_threat(plan.network.shape.channels);
    if config.warming_up(step, plan.steps_per_epoch) {
        threat.epsilon *= config.warm_up(step, plan.steps_per_epoch);
    }
    threat
}
