//! One step: attack, training pass, update.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

use super::{Session, issued::Issued};
use crate::{
    config::TrainConfig,
    data,
    error::{Error, Result},
    method::{self, Awaited, Place, StepContext, StepSettings, TrainBatch},
    nn::BatchPart,
    noise::Noise,
    profile::{self, Stage},
    ranks::scope,
    run::TrainPlan,
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
    /// [`Error::Diverged`] where the loss is known and not finite; [`Error`] when a device fails.
    pub(super) fn step(&mut self, batch: &TrainBatch) -> Result<Issued> {
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
            if let Awaited::Known(metrics) = &mut out.metrics {
                // Of a method that chooses it image by image: the mean over this rank's.
                [metrics.alpha] = scope::mean_values([metrics.alpha]);
            }
            Ok::<_, Error>(out)
        })??;
        progress.passes += cx.passes;
        if out.metrics.known().is_some_and(|metrics| !metrics.loss.is_finite()) {
            return Err(self.diverged(step, "the loss"));
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
        self.progress.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Issued { step, rates, metrics: out.metrics, images: images * world, seconds })
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
