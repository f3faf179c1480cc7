//! FGSM-PGI: FGSM with prior-guided initialization (Jia et al. 2022, "Prior-guided adversarial
//! initialization for fast adversarial training", ECCV, arXiv 2207.08859), in its best form,
//! FGSM-MEP: the prior is the momentum of an image's gradients over all epochs.
//!
//! For each image a prior (first eps times a random sign) and a momentum (first 0) are kept. `d0 =
//! box(prior)`; `g = g(x + d0)`; `momentum <- decay momentum + g / ||g||_1`; `delta = box(ball(d0 +
//! eps sign g))`; `prior <- box(ball(d0 + eps sign momentum))`. Loss: `L(x + delta) + lambda mean
//! (f(x + delta) - f(x + d0))^2`, the mean over samples and classes, both logits differentiated.
//! Deviations: prior and momentum are kept in the coordinates of the image before augmentation, so
//! crop and flip are allowed and nothing else; label smoothing, which the authors always use, is
//! the run's option `--label-smoothing`. Memory: two images of f32 for each training image, twice
//! that while a checkpoint is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Batch, DataInfo, Method, Options, StepContext, StepOutput, boxed, options::range,
    store::SampleStore,
};
use crate::{
    error::Result,
    nn::HostTensor,
    noise::Draw,
    perturbation::{Perturb, sum_per_sample},
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FgsmPgiOptions {
    /// Step size in epsilons.
    alpha: f64,
    /// Weight of the past in the momentum.
    decay: f64,
    /// Weight of the change of the logits.
    lambda: f64,
}

impl FgsmPgiOptions {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.0, decay: 0.3, lambda: 10.0 })
    }
}

/// FGSM-PGI training.
#[derive(Clone, Debug)]
pub(super) struct FgsmPgi {
    options: FgsmPgiOptions,
    prior: SampleStore,
    momentum: SampleStore,
}

impl FgsmPgi {
    pub(super) fn new(options: FgsmPgiOptions) -> Result<Self> {
        range("decay", options.decay, 0.0, 1.0)?;
        range("lambda", options.lambda, 0.0, 1e6)?;
        Ok(Self { options, prior: SampleStore::default(), momentum: SampleStore::default() })
    }
}

impl Method for FgsmPgi {
    fn memory(&self, data: &DataInfo) -> Result<u64> {
        SampleStore::memory("fgsm-pgi", data).map(|bytes| 2 * bytes)
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let alpha = self.options.alpha as f32 * cx.threat.epsilon;
        let prior = self
            .prior
            .gather(batch, || cx.noise.sign(Draw::Sign, batch.x.dims()) * cx.threat.epsilon)?;
        let momentum = self.momentum.gather(batch, || batch.x.zeros_like())?;
        let start = boxed(batch, cx.threat.project(prior));
        let point = batch.x.clone() + start.clone();
        let grad = cx.input_gradient(point.clone(), &batch.labels).grad;
        let size = sum_per_sample(grad.clone().abs()).clamp_min(1e-12);
        let momentum = momentum * self.options.decay + grad.clone() / size;
        let stepped = |direction: burn::tensor::Tensor<4>| {
            boxed(batch, cx.threat.project(start.clone() + direction.sign() * alpha))
        };
        let (delta, prior) = (stepped(grad.clone()), stepped(momentum.clone()));
        self.prior.scatter(batch, &prior)?;
        self.momentum.scatter(batch, &momentum)?;
        let out = cx.train_with(batch, delta, Some(grad), |pass| {
            let start = pass.forward(point.clone());
            let logits = pass.at_point();
            let change = (logits.clone() - start).square().mean();
            Ok((
                pass.cross_entropy(logits.clone(), &batch.labels) + change * self.options.lambda,
                logits,
            ))
        })?;
        Ok(out.with_alpha(alpha))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = self.prior.state("prior");
        state.extend(self.momentum.state("momentum"));
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.prior = SampleStore::load(state, "prior", "fgsm-pgi")?;
        self.momentum = SampleStore::load(state, "momentum", "fgsm-pgi")?;
        Ok(())
    }
}
