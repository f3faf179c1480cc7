//! Adversarial training with the fast gradient sign method (Goodfellow et al. 2015, arXiv
//! 1412.6572).
//!
//! `delta = box(eps sign g(x))`. Cheap, and the classic victim of catastrophic overfitting.

use super::{Batch, Method, StepContext, StepOutput};
use crate::{
    error::Result,
    perturbation::{Bound, Perturb},
};

/// FGSM training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fgsm;

impl Method for Fgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, None, grad.clone(), alpha, None, Bound::Box);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
