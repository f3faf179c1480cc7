//! Adversarial training with the fast gradient method, the l2 form of FGSM (Goodfellow et al. 2015,
//! arXiv 1412.6572).
//!
//! `delta = box(eps g / ||g||_2)`, normalised for each sample.

use super::{Batch, Method, StepContext, StepOutput, boxed};
use crate::{error::Result, perturbation::Perturb};

/// FGM training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fgm;

impl Method for Fgm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon;
        let delta = boxed(batch, cx.threat.ascent(grad.clone()) * alpha);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
