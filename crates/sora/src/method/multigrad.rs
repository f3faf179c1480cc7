//! MultiGrad (Golgooni et al. 2021, arXiv 2103.15476).
//!
//! One pass computes the gradient at each of `starts` points `x + eta_k`, `eta_k ~ U(-eps, eps)`.
//! `delta = box(eps s)`, where s is the sign where all gradients agree, else 0. The step starts at
//! x, not at a random point. PertAlign and linearity use the mean of the gradients.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::passes,
};
use crate::{error::Result, nn::BnMode, perturbation::Perturb, threat::Norm};

/// The row of `multigrad`.
pub static INFO: MethodInfo = MethodInfo {
    name: "multigrad",
    summary: "one step of epsilon where the gradients at 3 random points agree in sign",
    source: "Golgooni et al. 2021, arXiv 2103.15476",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(3),
    bound: 1.0,
    options: Options::defaults::<MultiGrad>,
    build: Options::build::<MultiGrad>,
};

/// MultiGrad training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiGrad {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Number of random points.
    pub starts: u32,
}

impl Default for MultiGrad {
    fn default() -> Self {
        Self { alpha: 1.0, starts: 3 }
    }
}

impl Hyperparameters for MultiGrad {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0), ("starts", f64::from(self.starts), 1.0, 100.0)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for MultiGrad {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (mut votes, mut sum) = (batch.x.zeros_like(), batch.x.zeros_like());
        for _ in 0..self.starts {
            let eta = batch.clamp_to_box(cx.threat.random_start(cx.noise, batch.x.dims()));
            let grad = cx.input_gradient(batch.at(&eta), &batch.labels).grad;
            votes = votes + grad.clone().sign();
            sum = sum + grad;
        }
        let starts = self.starts as f32;
        let unanimous = (votes.clone().abs() - (starts - 0.5)).sign().clamp_min(0.0);
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = batch.clamp_to_box(cx.threat.project(votes.sign() * unanimous * alpha));
        Ok(cx.train(batch, delta, Some(sum / starts))?.with_alpha(alpha))
    }
}
