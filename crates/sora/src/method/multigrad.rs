//! MultiGrad (Golgooni et al. 2021, arXiv 2103.15476).
//!
//! Gradients at `starts` points `x + eta_k`, `eta_k ~ U(-eps, eps)`, a pass each; `delta = box(eps
//! s)` with s the sign where all agree, else 0. The step starts at x, not at a random point.
//! PertAlign and linearity use the mean of the gradients.

use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed, options::range};
use crate::{error::Result, perturbation::Perturb};

/// MultiGrad training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MultiGrad {
    /// Step size in epsilons.
    alpha: f64,
    /// Number of random points.
    starts: u32,
}

impl MultiGrad {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.0, starts: 3 })
    }

    pub(super) fn check(self) -> Result<Self> {
        range("starts", f64::from(self.starts), 1.0, 100.0).map(|()| self)
    }
}

impl Method for MultiGrad {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let (mut votes, mut sum) = (batch.x.zeros_like(), batch.x.zeros_like());
        for _ in 0..self.starts {
            let eta = boxed(batch, cx.threat.random_start(cx.noise, batch.x.dims()));
            let grad = cx.input_gradient(batch.x.clone() + eta, &batch.labels).grad;
            votes = votes + grad.clone().sign();
            sum = sum + grad;
        }
        let starts = self.starts as f32;
        let unanimous = (votes.clone().abs() - (starts - 0.5)).sign().clamp_min(0.0);
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = boxed(batch, cx.threat.project(votes.sign() * unanimous * alpha));
        Ok(cx.train(batch, delta, Some(sum / starts))?.with_alpha(alpha))
    }
}
