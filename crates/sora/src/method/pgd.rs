//! Multi-step adversarial training with projected gradient descent (Madry et al. 2018, arXiv
//! 1706.06083).
//!
//! `delta_0` random in the ball, then `delta <- box(ball(delta + alpha ascent(g(x + delta))))`,
//! with ascent(g) = sign g (l-inf) or g / ||g||_2 (l2). PertAlign compares the last attack gradient
//! with the training gradient.

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

/// The row of `pgd`.
pub static INFO: MethodInfo = MethodInfo {
    name: "pgd",
    summary: "random start, 10 steps of epsilon/4, projected on the ball",
    source: "Madry et al. 2018, arXiv 1706.06083",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(10),
    bound: 1.0,
    options: Options::defaults::<Pgd>,
    build: Options::build::<Pgd>,
};

/// The row of `pgd-2`.
pub static INFO_2: MethodInfo = MethodInfo {
    name: "pgd-2",
    summary: "random start, 2 steps of epsilon/2, projected on the ball",
    source: "Madry et al. 2018, arXiv 1706.06083",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(2),
    bound: 1.0,
    options: || Options::of(&Pgd { alpha: 0.5, steps: 2 }),
    build: Options::build::<Pgd>,
};

/// PGD training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pgd {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Number of steps.
    pub steps: u32,
}

impl Default for Pgd {
    fn default() -> Self {
        Self { alpha: 0.25, steps: 10 }
    }
}

impl Hyperparameters for Pgd {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0), ("steps", f64::from(self.steps), 1.0, 1000.0)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Pgd {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let mut delta = batch.clamp_to_box(cx.threat.random_start(cx.noise, batch.x.dims()));
        let mut last = None;
        for _ in 0..self.steps {
            let grad = cx.input_gradient(batch.at(&delta), &batch.labels).grad;
            delta = cx.threat.step(&batch.x, Some(delta), grad.clone(), alpha, None, Bound::Ball);
            last = Some(grad);
        }
        Ok(cx.train(batch, delta, last)?.with_alpha(alpha))
    }
}
