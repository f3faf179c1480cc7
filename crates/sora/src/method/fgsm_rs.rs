//! FGSM with a random start: "Fast is better than free" (Wong, Rice and Kolter 2020, arXiv
//! 2001.03994).
//!
//! `eta ~ U(-eps, eps)`, `delta = box(ball(eta + 1.25 eps sign g(x + eta)))`.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges,
    registry::{BOTH, passes},
};
use crate::{
    error::Result,
    nn::BnMode,
    perturbation::{Bound, Perturb},
};

/// The row of `fgsm-rs`.
pub static INFO: MethodInfo = MethodInfo {
    name: "fgsm-rs",
    summary: "random start in the ball, one step of 1.25 epsilon, projected on the ball",
    source: "Wong et al. 2020, arXiv 2001.03994",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<FgsmRs>,
    build: Options::build::<FgsmRs>,
};

/// FGSM-RS training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FgsmRs {
    /// Step size in epsilons.
    pub alpha: f64,
}

impl Default for FgsmRs {
    fn default() -> Self {
        Self { alpha: 1.25 }
    }
}

impl Hyperparameters for FgsmRs {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for FgsmRs {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let eta = batch.clamp_to_box(cx.threat.random_start(cx.noise, batch.x.dims()));
        let grad = cx.input_gradient(batch.at(&eta), &batch.labels).grad;
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, None, Bound::Ball);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}
