//! The seam for devices: what a training step and an attack ask of one.
//!
//! A device is asked coarse questions: the gradient of a loss over a network and its named values,
//! a step of a perturbation, the figures of a step, an optimizer's update. The CPU engine and
//! Burn's own operations answer them here; a plan that is compiled for one network and device
//! would be a third [`Compute`]. [`of`] chooses, and nothing else asks what the device is.
//!
//! A loss that is no mean cross-entropy is made of Burn's operations by whoever wants it, and
//! recorded: see [`gradient`].

mod burn_ops;
mod cpu_engine;
pub mod gradient;

use std::fmt::Debug;

use burn::tensor::{Device, Int, Tensor};
use sora_kernels::sgd::Sgd;

pub use burn_ops::{linearity, pert_align};
use gradient::{InputGradient, TrainGradient};

use crate::{
    error::Result,
    model::Model,
    nn::{Backend, BnMode, TensorSet},
    threat::Norm,
};

/// The mean cross-entropy of a network's logits, to be differentiated.
#[derive(Clone, Debug)]
pub struct LossAt<'a> {
    /// The graph, its parameters and its running statistics.
    pub model: &'a Model,
    /// Pixels in [0, 1], `[N, C, H, W]`.
    pub x: Tensor<4>,
    /// Classes, `[N]`.
    pub labels: Tensor<1, Int>,
    /// Which statistics batch norm normalises with; a training gradient takes the batch's.
    pub mode: BnMode,
    /// Label smoothing, from 0 to 1.
    pub smoothing: f32,
}

/// One step of a perturbation along the sign of a gradient. All tensors are `[N, C, H, W]`, without
/// autodiff.
#[derive(Debug)]
pub struct SignStep<'a> {
    /// Pixels in [0, 1].
    pub x: &'a Tensor<4>,
    /// Where the step begins; `None`: at 0.
    pub start: Option<Tensor<4>>,
    /// The gradient.
    pub grad: Tensor<4>,
    /// What the step of each element is multiplied by; `None`: 1.
    pub factor: Option<Tensor<4>>,
    /// Length, in pixel units on [0, 1].
    pub alpha: f32,
    /// Radius of the l-inf ball around 0 that the result is projected on; `None`: the box alone
    /// bounds it.
    pub radius: Option<f32>,
}

/// What the figures of a training step are made of.
#[derive(Debug)]
pub struct FigureInputs<'a> {
    /// Mean loss, `[1]`.
    pub loss: &'a Tensor<1>,
    /// Logits at the training point, `[N, K]`.
    pub logits: &'a Tensor<2>,
    /// Logits of the last attack pass, `[N, K]`; `None`: there was none.
    pub attacked: Option<&'a Tensor<2>>,
    /// Classes, `[N]`.
    pub labels: &'a Tensor<1, Int>,
    /// The threat's norm.
    pub norm: Norm,
    /// Gradient of the attack pass for the pixels, `[N, C, H, W]`.
    pub attack: &'a Tensor<4>,
    /// Gradient of the training pass for the pixels.
    pub train: &'a Tensor<4>,
    /// The perturbation trained on.
    pub delta: &'a Tensor<4>,
}

/// The figures of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean loss.
    pub loss: f32,
    /// Fraction of the examples classified correctly.
    pub accuracy: f32,
    /// Share of the examples whose loss at the training point is below that at the last attack
    /// pass's point; `None` without an attack pass.
    pub abnormal: Option<f32>,
    /// How the two passes' gradients agree.
    pub agreement: Agreement,
}

/// How the gradients of the attack pass and of the training pass agree, over a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// [`pert_align`].
    pub pert_align: f32,
    /// [`linearity`].
    pub linearity: f32,
    /// As `linearity`, but the sum of the upper slopes over the sum of the lower ones.
    pub linearity_of_sums: f32,
    /// Summed norms of the training pass's gradients over those of the attack pass's.
    pub grad_ratio: f32,
    /// Mean absolute perturbation, in pixel units.
    pub delta_mean: f32,
}

/// A device as the rest of the library sees it.
pub trait Compute: Debug + Sync {
    /// What computes a network's layers, unless its model is told otherwise.
    fn layers(&self) -> Backend;

    /// Gradient of a loss with respect to the pixels; no weight gradient is computed.
    fn input_gradient(&self, loss: LossAt<'_>) -> InputGradient {
        gradient::recorded_input_gradient(loss)
    }

    /// Gradient of a loss with respect to the parameters and, free with it, the pixels, in training
    /// mode.
    fn training_gradient(&self, loss: LossAt<'_>) -> TrainGradient {
        gradient::recorded_training_gradient(loss)
    }

    /// `box(project(start + alpha factor sign(grad)))`.
    fn sign_step(&self, step: SignStep<'_>) -> Tensor<4>;

    /// Clamps `delta` so that `x + delta` stays in [0, 1]; both `[N, C, H, W]`.
    fn clamp_to_box(&self, x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4>;

    /// Cross-entropy of each sample against `(1 - smoothing) onehot(label) + smoothing / K`
    /// (Szegedy et al. 2016, arXiv 1512.00567): logits `[N, K]`, labels `[N]` to `[N]`.
    fn cross_entropy(&self, logits: Tensor<2>, labels: Tensor<1, Int>, smoothing: f32)
    -> Tensor<1>;

    /// The figures of a step, read back at once: each figure by itself would wait for the device.
    ///
    /// # Errors
    /// A device that fails.
    fn figures(&self, step: &FigureInputs<'_>) -> Result<Figures>;

    /// One update of every parameter and its momentum by stochastic gradient descent; `gradients`
    /// are flat, in the order of `params`.
    fn sgd_update(
        &self,
        rule: &Sgd,
        params: &mut TensorSet,
        momenta: &mut TensorSet,
        gradients: Vec<Tensor<1>>,
    );
}

/// What computes on `device`, with autodiff or without.
pub fn of(device: &Device) -> &'static dyn Compute {
    match Backend::of(device) {
        Backend::Engine => &cpu_engine::CpuEngine,
        Backend::Burn => &burn_ops::BurnOps,
    }
}
