//! ZeroGrad (Golgooni et al. 2021, "ZeroGrad: mitigating and explaining catastrophic overfitting in
//! FGSM adversarial training", arXiv 2103.15476).
//!
//! `eta ~ U(-eps, eps)`; entries of `g = g(x + eta)` whose absolute value is below the sample's
//! `quantile` of |g| count as 0; `delta = box(ball(eta + alpha sign g))` with alpha = 2 eps. The
//! paper's quantile is 0.35 on CIFAR-10 and 0.45 elsewhere; it is interpolated linearly between
//! order statistics. PertAlign and linearity use g before the zeroing.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::passes,
};
use crate::{error::Result, nn::BnMode, perturbation::Perturb, threat::Norm};

/// The row of `zerograd`.
pub static INFO: MethodInfo = MethodInfo {
    name: "zerograd",
    summary: "random start, one step of 2 epsilon that leaves out the smallest gradient entries, \
              projected on the ball",
    source: "Golgooni et al. 2021, arXiv 2103.15476",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<ZeroGrad>,
    build: Options::build::<ZeroGrad>,
};

/// ZeroGrad training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZeroGrad {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Share of the entries, the smallest, that count as 0.
    pub quantile: f64,
}

impl Default for ZeroGrad {
    fn default() -> Self {
        Self { alpha: 2.0, quantile: 0.35 }
    }
}

impl Hyperparameters for ZeroGrad {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0), ("quantile", self.quantile, 0.0, 1.0)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

/// The `q`-quantile of each sample's values, interpolated linearly between order statistics: `[N,
/// C, H, W]` to `[N, 1, 1, 1]`.
fn quantile(x: Tensor<4>, q: f64) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let len = c * h * w;
    let sorted = x.reshape([n, len]).sort(1);
    let place = q * (len - 1) as f64;
    let low = place.floor() as usize;
    let at = |index: usize| sorted.clone().slice([0..n, index..index + 1]);
    let value = at(low) * (1.0 - place.fract()) + at((low + 1).min(len - 1)) * place.fract();
    value.reshape([n, 1, 1, 1])
}

impl Method for ZeroGrad {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let eta = batch.clamp_to_box(cx.threat.random_start(cx.noise, batch.x.dims()));
        let grad = cx.input_gradient(batch.at(&eta), &batch.labels).grad;
        let size = grad.clone().abs();
        let below = (quantile(size.clone(), self.quantile) - size).sign().clamp_min(0.0);
        let step = grad.clone().sign() * (below.neg() + 1.0);
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = batch.clamp_to_box(cx.threat.project(eta + step * alpha));
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
