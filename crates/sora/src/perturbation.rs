//! Arithmetic of perturbations on a device: the sets of a threat model as operations on tensors.
//! Everything is in pixel space, x in [0, 1].

use burn::tensor::Tensor;

use crate::{
    compute::{self, Number, SignStep},
    noise::{Draw, Noise},
    threat::{Norm, Threat},
};

/// Smallest denominator of a normalised gradient.
const TINY: f32 = 1e-12;

/// The sets that bound a step of a perturbation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The box of pixels alone.
    Box,
    /// The box, and the ball of radius epsilon.
    Ball,
}

/// Operations of a threat model on perturbations `[N, C, H, W]`.
pub trait Perturb {
    /// Projects `delta` on the ball of radius epsilon.
    fn project(&self, delta: Tensor<4>) -> Tensor<4>;

    /// The direction of steepest ascent of a loss with gradient `grad`: its sign (l-inf) or the
    /// normalised gradient of each sample (l2).
    fn ascent(&self, grad: Tensor<4>) -> Tensor<4>;

    /// A step of length `alpha` from `start` (`None` for 0) along the ascent of a loss with
    /// gradient `grad`, with each element multiplied by `factor` where there is one: `box(start +
    /// alpha factor p)`, and with [`Bound::Ball`] inside the ball too. `x` holds the pixels.
    fn step(
        &self,
        x: &Tensor<4>,
        start: Option<Tensor<4>>,
        grad: Tensor<4>,
        alpha: impl Into<Number>,
        factor: Option<Tensor<4>>,
        bound: Bound,
    ) -> Tensor<4>;

    /// A random start: uniform in (-epsilon, epsilon) per element (l-inf), or a uniform direction
    /// with a length uniform in (0, epsilon) per sample (l2).
    fn random_start(&self, noise: &mut Noise, shape: [usize; 4]) -> Tensor<4>;
}

impl Perturb for Threat {
    fn project(&self, delta: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => delta.clamp(-self.epsilon, self.epsilon),
            Norm::L2 | Norm::L1 => {
                let scale = l2_norm(delta.clone())
                    .clamp_min(TINY)
                    .recip()
                    .mul_scalar(self.epsilon)
                    .clamp_max(1.0);
                delta * scale
            }
        }
    }

    fn ascent(&self, grad: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => grad.sign(),
            Norm::L2 | Norm::L1 => {
                let norm = l2_norm(grad.clone()).clamp_min(TINY);
                grad / norm
            }
        }
    }

    fn step(
        &self,
        x: &Tensor<4>,
        start: Option<Tensor<4>>,
        grad: Tensor<4>,
        alpha: impl Into<Number>,
        factor: Option<Tensor<4>>,
        bound: Bound,
    ) -> Tensor<4> {
        let alpha = alpha.into();
        if self.norm == Norm::Linf {
            let radius = (bound == Bound::Ball).then_some(self.epsilon);
            let step = SignStep { x, start, grad, factor, alpha, radius };
            return compute::of(&x.device()).sign_step(step);
        }
        let mut delta = alpha.times(self.ascent(grad));
        if let Some(factor) = factor {
            delta = delta * factor;
        }
        if let Some(start) = start {
            delta = start + delta;
        }
        if bound == Bound::Ball {
            delta = self.project(delta);
        }
        clamp_to_box(x, delta)
    }

    fn random_start(&self, noise: &mut Noise, shape: [usize; 4]) -> Tensor<4> {
        match self.norm {
            Norm::Linf => noise.uniform(Draw::Eta, shape, -self.epsilon, self.epsilon),
            Norm::L2 | Norm::L1 => {
                let direction = self.ascent(noise.normal(Draw::Dir, shape));
                direction * noise.uniform(Draw::Radius, [shape[0], 1, 1, 1], 0.0, self.epsilon)
            }
        }
    }
}

/// Clamps `delta` so that `x + delta` stays in [0, 1].
pub fn clamp_to_box(x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
    compute::of(&x.device()).clamp_to_box(x, delta)
}

/// Sum over all values of each sample: `[N, C, H, W]` to `[N, 1, 1, 1]`.
pub fn sum_per_sample(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c * h * w]).sum_dim(1).reshape([n, 1, 1, 1])
}

/// Euclidean norm of each sample: `[N, C, H, W]` to `[N, 1, 1, 1]`.
pub fn l2_norm(x: Tensor<4>) -> Tensor<4> {
    // The values are divided by the largest one, so that squares of tiny gradients do not
    // underflow.
    let [n, c, h, w] = x.dims();
    let largest = x
        .clone()
        .abs()
        .reshape([n, c * h * w])
        .max_dim(1)
        .reshape([n, 1, 1, 1])
        .clamp_min(f32::MIN_POSITIVE);
    sum_per_sample((x / largest.clone()).square()).sqrt() * largest
}
