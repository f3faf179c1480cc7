//! GradAlign (Andriushchenko and Flammarion 2020, "Understanding and improving fast adversarial
//! training", arXiv 2007.02617).
//!
//! Loss: `L(x + delta) + lambda (1 - mean cos(c, g))`, where c is the gradient at x and g the
//! gradient at x + eta.
//!
//! The authors' repository (`official`): `delta = box(ball(1.25 eps sign c))`, from x; both
//! gradients are differentiated; lambda is `0.02 10^(255 eps / 8)`, 0.2 at 8/255 and 2 at 16/255
//! (CIFAR-10; 2.5 on SVHN at 8/255; in l2 0.2). The SORA reference (`reference`): `delta` as in
//! FGSM-RS, c constant, lambda 0.2.
//!
//! The weight gradient of a function R(g) of an input gradient: with `w = dR/dg` held constant it
//! is that of the directional derivative `<w, grad_x L(x + eta)>`, which is carried forward through
//! the layers along w and then differentiated by one ordinary backward pass. This is the double
//! backward, exactly (to 1e-4 of PyTorch's in the golden step). The alternative, a central
//! difference of two weight gradients at x + eta +- h w, takes two forward and two backward passes
//! as well, but each ReLU that switches between the two points adds its jump over 2 h: on the
//! golden network its error is 74 times the gradient at h = 1e-4, and 3 % at best, where f32's
//! rounding takes over (docs/methods.md has PyTorch's figures, in f64 too). Cost: 7 forward-sized
//! and 7 backward-sized passes (`variant=reference`: 5 and 5), of which a directional derivative
//! takes 2 and 2; a step took 4.0 and 4.8 times as long as one of fgsm-rs, and 521 MiB instead of
//! 179 (width 16, batch 64, 32 x 32, two busy threads with AVX-512, medians of 3 steps, 2 runs).
//! The l2 form starts in the l2 ball and steps along the normalised gradient.

use burn::tensor::{Tensor, activation::softmax};
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch,
    Variant, options::ranges, registry::BOTH,
};
use crate::{
    error::Result,
    gradient::TrainPass,
    nn::BnMode,
    perturbation::{Perturb, l2_norm, sum_per_sample},
    ranks,
    threat::{Norm, Threat},
};

/// The row of `gradalign`.
pub static INFO: MethodInfo = MethodInfo {
    name: "gradalign",
    summary: "fgsm with a penalty on the angle between the gradients at the image and at a random point",
    source: "Andriushchenko and Flammarion 2020, arXiv 2007.02617",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 7, backward_input: 2, backward_full: 5 },
    bound: 1.0,
    options: Options::defaults::<GradAlign>,
    build: Options::build::<GradAlign>,
};

/// GradAlign training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GradAlign {
    /// Step size in epsilons, 0 to 100.
    pub alpha: f64,
    /// Weight of the regulariser; negative: the authors' for the epsilon.
    pub lambda: f64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

impl Default for GradAlign {
    fn default() -> Self {
        Self { alpha: 1.25, lambda: -1.0, variant: Variant::Official }
    }
}

impl Hyperparameters for GradAlign {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([("alpha", self.alpha, 0.0, 100.0), ("lambda", self.lambda, -1.0, 1e6)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }

    fn reference() -> Option<Self> {
        Some(Self { lambda: 0.2, variant: Variant::Reference, ..Self::default() })
    }
}

impl GradAlign {
    /// The weight of the regulariser, for each norm and epsilon.
    fn lambda_at(&self, Threat { norm, epsilon }: Threat) -> f64 {
        if self.lambda >= 0.0 {
            return self.lambda;
        }
        match norm {
            Norm::Linf => 0.02 * 10f64.powf(255.0 * f64::from(epsilon) / 8.0),
            // The authors trained in the l-inf ball only, so one weight serves every epsilon in l2.
            Norm::L2 | Norm::L1 => 0.2,
        }
    }
}

/// `R = 1 - mean cos(c, g)` over this rank's part of the batch, `[1]`, and `dR/dg` of the mean over
/// the whole batch.
fn misalignment(c: Tensor<4>, g: Tensor<4>) -> (Tensor<1>, Tensor<4>) {
    let n = g.dims()[0];
    let length = l2_norm(g.clone()).clamp_min(1e-12);
    let c = c.clone() / l2_norm(c).clamp_min(1e-12);
    let g = g / length.clone();
    let cosine = sum_per_sample(c.clone() * g.clone());
    let slope = (g * cosine.clone() - c) / (length * (n * ranks::world()) as f32);
    (cosine.reshape([n]).mean().neg() + 1.0, slope)
}

/// A point and the direction along which the loss is differentiated there.
#[derive(Debug)]
struct Tangent {
    point: Tensor<4>,
    /// The direction, scaled so that its largest entry is 1 (at most 1 over several ranks), which keeps
    /// the derivative in f32's range. All ranks scale alike: batch norm adds up their tangents.
    direction: Tensor<4>,
    scale: Tensor<1>,
}

impl Tangent {
    fn new(point: Tensor<4>, direction: Tensor<4>) -> Self {
        let scale = ranks::sum(direction.clone().abs().max()).clamp_min(1e-30);
        Self { point, direction: direction / scale.clone().reshape([1, 1, 1, 1]), scale }
    }

    /// The directional derivative of the mean cross-entropy, `[1]`, with its gradient by the
    /// weights.
    fn derivative(&self, pass: &mut TrainPass<'_>, batch: &TrainBatch, mode: BnMode) -> Tensor<1> {
        let n = batch.x.dims()[0];
        let (logits, along) = pass.forward_along(self.point.clone(), self.direction.clone(), mode);
        let labels = batch.labels.clone().reshape([n, 1]);
        // d CE = <softmax(z) - onehot(y), dz>
        let derivative = (softmax(logits, 1) * along.clone()).sum_dim(1) - along.gather(1, labels);
        derivative.mean() * self.scale.clone()
    }
}

impl Method for GradAlign {
    fn needs_tangents(&self) -> bool {
        true
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (mode, epsilon) = (cx.attack_bn, cx.threat.epsilon);
        let (alpha, lambda) = (self.alpha as f32 * epsilon, self.lambda_at(cx.threat));
        let clean = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let eta = batch.clamp_to_box(cx.threat.random_start(cx.noise, batch.x.dims()));
        let point = batch.at(&eta);
        let grad = cx.input_gradient(point.clone(), &batch.labels).grad;
        let (penalty, direction) = misalignment(clean.clone(), grad.clone());
        let mut tangents = vec![Tangent::new(point, direction)];
        let (delta, attack) = match self.variant {
            Variant::Official => {
                let (_, direction) = misalignment(grad, clean.clone());
                tangents.push(Tangent::new(batch.x.clone(), direction));
                (cx.threat.ascent(clean.clone()) * alpha, clean)
            }
            Variant::Reference => (eta + cx.threat.ascent(grad.clone()) * alpha, grad),
        };
        let delta = batch.clamp_to_box(cx.threat.project(delta));
        let out = cx.train_with(batch, delta, Some(attack), |pass| {
            let logits = pass.at_point();
            let mut loss = pass.cross_entropy(logits.clone(), &batch.labels);
            for tangent in &tangents {
                // The derivatives stand for the penalty in the gradient; their own value is
                // subtracted.
                let derivative = tangent.derivative(pass, batch, mode);
                loss = loss + (derivative.clone() - derivative.inner()) * lambda;
            }
            Ok((loss + penalty.clone() * lambda, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_follows_the_authors_table() {
        let at = |eps: f32| {
            let threat = Threat { norm: Norm::Linf, epsilon: eps / 255.0 };
            GradAlign::default().lambda_at(threat)
        };
        for (eps, lambda) in [(1.0, 0.027), (4.0, 0.063), (8.0, 0.2), (16.0, 2.0)] {
            assert!((at(eps) - lambda).abs() < 0.005 * lambda.max(0.1), "{eps}: {}", at(eps));
        }
    }
}
