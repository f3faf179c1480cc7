//! Adversarial training with the fast gradient method, the l2 form of FGSM (Goodfellow et al. 2015,
//! arXiv 1412.6572).
//!
//! `delta = box(eps g / ||g||_2)`, normalised for each sample.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    registry::passes,
};
use crate::{error::Result, nn::BnMode, perturbation::Perturb, threat::Norm};

/// The row of `fgm`.
pub static INFO: MethodInfo = MethodInfo {
    name: "fgm",
    summary: "one step of length epsilon along the gradient",
    source: "Goodfellow et al. 2015, arXiv 1412.6572",
    norms: &[Norm::L2],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<Fgm>,
    build: Options::build::<Fgm>,
};

/// FGM training; it has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fgm {}

impl Hyperparameters for Fgm {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Fgm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon;
        let delta = batch.clamp_to_box(cx.threat.ascent(grad.clone()) * alpha);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
