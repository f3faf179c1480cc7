//! TRADES (Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy",
//! arXiv 1901.08573).
//!
//! Attack: from `box(0.001 N(0,1))`, `steps` steps of `delta <- box(ball(delta + alpha
//! ascent(g)))`, where g is the gradient of `mean KL(f(x) || f(x + delta))` and f(x) is computed
//! once. Loss: `CE(x) + lambda mean KL(f(x) || f(x + delta))`, both predictions differentiated. The
//! attack runs in eval mode, as in the authors' code, unless the run sets another mode; the
//! training passes see x, then x + delta.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::BOTH,
};
use crate::{error::Result, loss::kl_divergence, nn::BnMode, noise::Draw, perturbation::Perturb};

/// The row of `trades`.
pub static INFO: MethodInfo = MethodInfo {
    name: "trades",
    summary: "10 steps on the divergence from the clean prediction, which the loss weighs against \
              clean accuracy",
    source: "Zhang et al. 2019, arXiv 1901.08573",
    norms: BOTH,
    attack_bn: BnMode::Eval,
    stored_images: 0,
    passes: Passes { forward: 13, backward_input: 10, backward_full: 2 },
    bound: 1.0,
    options: Options::defaults::<Trades>,
    build: Options::build::<Trades>,
};

/// TRADES training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trades {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Weight of the divergence.
    pub lambda: f64,
    /// Standard deviation of the start, in pixel units.
    pub start: f64,
    /// Number of steps.
    pub steps: u32,
}

impl Default for Trades {
    fn default() -> Self {
        Self { alpha: 0.25, lambda: 6.0, start: 0.001, steps: 10 }
    }
}

impl Hyperparameters for Trades {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("lambda", self.lambda, 0.0, 1e6),
            ("start", self.start, 0.0, 1.0),
            ("steps", f64::from(self.steps), 1.0, 1000.0),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Trades {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let clean = cx.logits(batch.x.clone());
        let mut delta =
            batch.clamp_to_box(cx.noise.normal(Draw::Start, batch.x.dims()) * self.start);
        let mut last: Option<Tensor<4>> = None;
        for _ in 0..self.steps {
            let point = batch.at(&delta);
            let grad = cx
                .input_gradient_of(point, |logits| Ok(kl_divergence(clean.clone(), logits).mean()))?
                .grad;
            delta = batch
                .clamp_to_box(cx.threat.project(delta + cx.threat.ascent(grad.clone()) * alpha));
            last = Some(grad);
        }
        let out = cx.train_with(batch, delta, last, |pass| {
            let clean = pass.forward(batch.x.clone());
            let logits = pass.at_point();
            let distance = kl_divergence(clean.clone(), logits.clone()).mean();
            Ok((pass.cross_entropy(clean, &batch.labels) + distance * self.lambda, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}
