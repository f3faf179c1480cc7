//! GradAlign (Andriushchenko and Flammarion 2020, "Understanding and improving fast adversarial
//! training", arXiv 2007.02617).
//!
//! `delta` as FGSM-RS (step 1.25 eps from x + eta). Loss: `L(x + delta) + lambda (1 - mean cos(c,
//! g))`, c the gradient at x (constant), g that at x + eta (differentiated). The paper's lambda is
//! 0.2 on CIFAR-10, 2.5 on SVHN.
//!
//! The weight gradient of a function R(g) of an input gradient: with `w = dR/dg` held constant it
//! is that of the directional derivative `<w, grad_x L(x + eta)>`, which is carried forward through
//! the layers along w and then differentiated by one ordinary backward pass. This is the double
//! backward, exactly (to 1e-4 of PyTorch's in the golden step). The alternative, a central
//! difference of two weight gradients at x + eta +- h w, takes two forward and two backward passes
//! as well, but each ReLU that switches between the two points adds its jump over 2 h: on the
//! golden network its error is 74 times the gradient at h = 1e-4, and 3 % at best, where f32's
//! rounding takes over (docs/methods.md has PyTorch's figures, in f64 too). Cost: 5 forward-sized
//! and 5 backward-sized passes, of which the directional derivative takes 2 and 2; a step took 4.0
//! and 4.8 times as long as one of fgsm-rs, and 521 MiB instead of 179 (width 16, batch 64, 32 x
//! 32, two busy threads with AVX-512, medians of 3 steps, 2 runs). The l2 form starts in the l2
//! ball and steps along the normalised gradient.

use burn::tensor::{Tensor, activation::softmax};
use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed, options::range};
use crate::{
    error::Result,
    perturbation::{Perturb, l2_norm, sum_per_sample},
};

/// GradAlign training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GradAlign {
    /// Step size in epsilons.
    alpha: f64,
    /// Weight of the regulariser.
    lambda: f64,
}

impl GradAlign {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.25, lambda: 0.2 })
    }

    pub(super) fn check(self) -> Result<Self> {
        range("lambda", self.lambda, 0.0, 1e6).map(|()| self)
    }
}

/// `R = 1 - mean cos(c, g)`, `[1]`, and `dR/dg`.
fn misalignment(c: Tensor<4>, g: Tensor<4>) -> (Tensor<1>, Tensor<4>) {
    let n = g.dims()[0];
    let length = l2_norm(g.clone()).clamp_min(1e-12);
    let c = c.clone() / l2_norm(c).clamp_min(1e-12);
    let g = g / length.clone();
    let cosine = sum_per_sample(c.clone() * g.clone());
    let slope = (g * cosine.clone() - c) / (length * n as f32);
    (cosine.reshape([n]).mean().neg() + 1.0, slope)
}

impl Method for GradAlign {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let (n, mode) = (batch.x.dims()[0], cx.attack_bn);
        let clean = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let eta = boxed(batch, cx.threat.random_start(cx.noise, batch.x.dims()));
        let point = batch.x.clone() + eta.clone();
        let grad = cx.input_gradient(point.clone(), &batch.labels).grad;
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = boxed(batch, cx.threat.project(eta + cx.threat.ascent(grad.clone()) * alpha));
        let (penalty, direction) = misalignment(clean, grad.clone());
        // A direction of unit size keeps the derivative in f32's range; the scale comes back as a
        // factor.
        let scale = direction.clone().abs().max().clamp_min(1e-30);
        let direction = direction / scale.clone().reshape([1, 1, 1, 1]);
        let out = cx.train_with(batch, delta, Some(grad), |pass| {
            let logits = pass.at_point();
            let (at_start, along) = pass.forward_along(point.clone(), direction.clone(), mode);
            let labels = batch.labels.clone().reshape([n, 1]);
            // d CE = <softmax(z) - onehot(y), dz>
            let derivative =
                (softmax(at_start, 1) * along.clone()).sum_dim(1) - along.gather(1, labels);
            let derivative = derivative.mean() * scale.clone();
            // The derivative stands for the penalty in the gradient; its value is the penalty's.
            let regulariser = derivative.clone() + (penalty.clone() - derivative.inner());
            Ok((
                pass.cross_entropy(logits.clone(), &batch.labels) + regulariser * self.lambda,
                logits,
            ))
        })?;
        Ok(out.with_alpha(alpha))
    }
}
