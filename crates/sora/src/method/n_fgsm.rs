//! N-FGSM: noise instead of projection (de Jorge et al. 2022, arXiv 2202.01181).
//!
//! `eta = box(U(-2 eps, 2 eps))`, `delta = box(eta + eps sign g(x + eta))`; no projection on the
//! ball.

use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed};
use crate::{
    error::Result,
    noise::Draw,
    perturbation::{Bound, Perturb},
};

/// N-FGSM training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NFgsm {
    /// Step size in epsilons.
    alpha: f64,
    /// Half-width of the noise in epsilons.
    noise: f64,
}

impl NFgsm {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.0, noise: 2.0 })
    }
}

impl Method for NFgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let radius = self.noise as f32 * cx.threat.epsilon;
        let eta = boxed(batch, cx.noise.uniform(Draw::Eta, batch.x.dims(), -radius, radius));
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, None, Bound::Box);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
