//! Adversarial training with the fast gradient sign method (Goodfellow et al. 2015, arXiv
//! 1412.6572).
//!
//! `delta = box(eps sign g(x))`. The method is cheap, and the classic victim of catastrophic
//! overfitting.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    registry::passes,
};
use crate::{
    error::Result,
    nn::BnMode,
    perturbation::{Bound, Perturb},
    threat::Norm,
};

/// The row of `fgsm`.
pub static INFO: MethodInfo = MethodInfo {
    name: "fgsm",
    summary: "one step of size epsilon along the gradient's sign; suffers catastrophic overfitting",
    source: "Goodfellow et al. 2015, arXiv 1412.6572",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<Fgsm>,
    build: Options::build::<Fgsm>,
};

/// FGSM training; it has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgsm {}

impl Hyperparameters for Fgsm {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Fgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, None, grad.clone(), alpha, None, Bound::Box);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
