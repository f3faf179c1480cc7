//! Multi-step adversarial training with projected gradient descent (Madry et al. 2018, arXiv
//! 1706.06083).
//!
//! `delta_0` random in the ball, then `delta <- box(ball(delta + alpha ascent(g(x + delta))))`,
//! with ascent(g) = sign g (l-inf) or g / ||g||_2 (l2). PertAlign compares the last attack gradient
//! with the training gradient.

use serde::{Deserialize, Serialize};

use super::{Batch, Method, StepContext, StepOutput, boxed};
use crate::{
    error::{Error, Result},
    perturbation::{Bound, Perturb},
};

/// PGD training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pgd {
    /// Step size in epsilons.
    alpha: f64,
    /// Number of steps.
    steps: u32,
}

impl Pgd {
    /// 10 steps of epsilon/4.
    pub(super) fn ten() -> Self {
        Self { alpha: 0.25, steps: 10 }
    }

    /// 2 steps of epsilon/2.
    pub(super) fn two() -> Self {
        Self { alpha: 0.5, steps: 2 }
    }

    pub(super) fn check(self) -> Result<Self> {
        if !(1..=1000).contains(&self.steps) {
            return Err(Error::input(format!(
                "option 'steps' = {}: expected 1 to 1000",
                self.steps
            )));
        }
        Ok(self)
    }
}

impl Method for Pgd {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let mut delta = boxed(batch, cx.threat.random_start(cx.noise, batch.x.dims()));
        let mut last = None;
        for _ in 0..self.steps {
            let grad = cx.input_gradient(batch.x.clone() + delta.clone(), &batch.labels).grad;
            delta = cx.threat.step(&batch.x, Some(delta), grad.clone(), alpha, None, Bound::Ball);
            last = Some(grad);
        }
        Ok(cx.train(batch, delta, last)?.with_alpha(alpha))
    }
}
