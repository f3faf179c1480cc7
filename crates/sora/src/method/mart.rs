//! MART (Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified
//! examples", ICLR).
//!
//! Attack: PGD on the cross-entropy from `box(0.001 N(0,1))`. Loss: `CE(x + delta) + mean -log(1 -
//! max_{k != y} p_k(x + delta)) + lambda mean (1 - p_y(x)) KL(f(x) || f(x + delta))`, all of it
//! differentiated. The attack runs in eval mode, as in the authors' code, unless the run sets
//! another mode. Deviation: log(1 - p_k) is computed from the logits, without the small constants
//! that the authors add inside their logarithms. The l2 form steps along the normalised gradient.

use burn::tensor::{Int, Tensor, activation::softmax};
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::BOTH,
};
use crate::{error::Result, loss::kl_divergence, nn::BnMode, noise::Draw, perturbation::Perturb};

/// The row of `mart`.
pub static INFO: MethodInfo = MethodInfo {
    name: "mart",
    summary: "pgd with a loss that weighs misclassified samples more",
    source: "Wang et al. 2020, ICLR",
    norms: BOTH,
    attack_bn: BnMode::Eval,
    stored_images: 0,
    passes: Passes { forward: 12, backward_input: 10, backward_full: 2 },
    bound: 1.0,
    options: Options::defaults::<Mart>,
    build: Options::build::<Mart>,
};

/// MART training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mart {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Weight of the divergence.
    pub lambda: f64,
    /// Standard deviation of the start, in pixel units.
    pub start: f64,
    /// Number of steps.
    pub steps: u32,
}

impl Default for Mart {
    fn default() -> Self {
        Self { alpha: 0.25, lambda: 5.0, start: 0.001, steps: 10 }
    }
}

impl Hyperparameters for Mart {
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

/// log sum exp over the classes where `keep` is 1: `[N, K]` to `[N, 1]`.
fn log_sum_exp(logits: Tensor<2>, keep: Tensor<2>) -> Tensor<2> {
    let largest = (logits.clone().inner() * keep.clone() + (keep.clone() - 1.0) * 1e30).max_dim(1);
    // Dropped logits become zero first, so that a large one cannot overflow.
    let shifted = (logits - largest.clone()) * keep.clone();
    (shifted.exp() * keep).sum_dim(1).log() + largest
}

/// `-log(1 - max_{k != y} p_k)` of each sample, `[N, 1]`.
fn margin(logits: Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<2> {
    let classes = logits.dims()[1];
    let one_hot = |index: Tensor<1, Int>| index.one_hot::<2>(classes).float();
    let others = logits.clone().inner() - one_hot(labels.clone()) * 1e30;
    let rival = one_hot(others.argmax(1).reshape([-1]));
    let all = rival.ones_like();
    log_sum_exp(logits.clone(), all.clone()) - log_sum_exp(logits, all - rival)
}

impl Method for Mart {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let n = batch.x.dims()[0];
        let mut delta =
            batch.clamp_to_box(cx.noise.normal(Draw::Start, batch.x.dims()) * self.start);
        let mut last = None;
        for _ in 0..self.steps {
            let grad = cx.input_gradient(batch.at(&delta), &batch.labels).grad;
            delta = batch
                .clamp_to_box(cx.threat.project(delta + cx.threat.ascent(grad.clone()) * alpha));
            last = Some(grad);
        }
        let out = cx.train_with(batch, delta, last, |pass| {
            let clean = pass.forward(batch.x.clone());
            let logits = pass.at_point();
            let right = softmax(clean.clone(), 1)
                .gather(1, batch.labels.clone().reshape([n, 1]))
                .reshape([n]);
            let distance = (kl_divergence(clean, logits.clone()) * (right.neg() + 1.0)).mean();
            let boosted = pass.cross_entropy(logits.clone(), &batch.labels)
                + margin(logits.clone(), &batch.labels).mean();
            Ok((boosted + distance * self.lambda, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}
