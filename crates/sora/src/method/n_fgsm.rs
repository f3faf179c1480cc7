//! N-FGSM: noise instead of projection (de Jorge et al. 2022, arXiv 2202.01181).
//!
//! `eta = box(U(-2 eps, 2 eps))`, `delta = box(eta + eps sign g(x + eta))`; no projection on the
//! ball.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::passes,
};
use crate::{
    error::Result,
    nn::BnMode,
    noise::Draw,
    perturbation::{Bound, Perturb},
    threat::Norm,
};

/// The row of `n-fgsm`.
pub static INFO: MethodInfo = MethodInfo {
    name: "n-fgsm",
    summary: "random start in twice the ball, one step of epsilon, no projection",
    source: "de Jorge et al. 2022, arXiv 2202.01181",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 3.0,
    options: Options::defaults::<NFgsm>,
    build: Options::build::<NFgsm>,
};

/// N-FGSM training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NFgsm {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Half-width of the noise in epsilons.
    pub noise: f64,
}

impl Default for NFgsm {
    fn default() -> Self {
        Self { alpha: 1.0, noise: 2.0 }
    }
}

impl Hyperparameters for NFgsm {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0), ("noise", self.noise, 0.0, 100.0)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for NFgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let radius = self.noise as f32 * cx.threat.epsilon;
        let eta = batch.clamp_to_box(cx.noise.uniform(Draw::Eta, batch.x.dims(), -radius, radius));
        let grad = cx.input_gradient(batch.at(&eta), &batch.labels).grad;
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, None, Bound::Box);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
