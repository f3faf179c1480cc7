//! FGSM with a random start: "Fast is better than free" (Wong, Rice and Kolter 2020, arXiv
//! 2001.03994).
//!
//! `eta ~ U(-eps, eps)`, `delta = box(ball(eta + 1.25 eps sign g(x + eta)))`.

use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed};
use crate::{
    error::Result,
    perturbation::{Bound, Perturb},
};

/// FGSM-RS training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FgsmRs {
    /// Step size in epsilons.
    alpha: f64,
}

impl FgsmRs {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.25 })
    }
}

impl Method for FgsmRs {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let eta = boxed(batch, cx.threat.random_start(cx.noise, batch.x.dims()));
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, None, Bound::Ball);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
