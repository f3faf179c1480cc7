//! The seam for devices: the operations of a training step and an attack.
//!
//! The operations are coarse: the gradient of a loss over a network and its named values, a step of
//! a perturbation, the figures of a step, an optimizer's update. The CPU engine and GPUs implement them
//! here. [`of`] chooses the implementation, and no other code asks what the device is.
//!
//! A loss that is not a mean cross-entropy is written with Burn's operations by the method that
//! needs it, and recorded: see [`gradient`].

mod awaited;
mod burn_ops;
mod cpu_engine;
#[cfg(feature = "gpu")]
mod gpu;
pub mod gradient;
mod number;
#[cfg(any(feature = "gpu", test))]
mod read_back;
#[cfg(feature = "gpu")]
mod recorded;
mod sample_sums;

use std::fmt::Debug;

use burn::tensor::{Device, Int, Tensor};
use sora_kernels::sgd::Sgd;

pub use awaited::{Awaited, Coming};
pub use burn_ops::{linearity, pert_align};
use gradient::{InputGradient, TrainGradient};
pub use number::Number;
pub(crate) use sample_sums::SampleSums;

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
    /// The statistics with which batch norm normalises; a training gradient always uses the
    /// batch's.
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
    /// The perturbation at which the step begins; `None` for 0.
    pub start: Option<Tensor<4>>,
    /// The gradient.
    pub grad: Tensor<4>,
    /// Factor of each element's step; `None` for 1.
    pub factor: Option<Tensor<4>>,
    /// Length, in pixel units on [0, 1].
    pub alpha: Number,
    /// Radius of the l-inf ball around 0 on which the result is projected; `None` if only the box
    /// bounds it.
    pub radius: Option<f32>,
}

/// The tensors from which the figures of a training step are computed.
#[derive(Debug)]
pub struct FigureInputs<'a> {
    /// Mean loss, `[1]`.
    pub loss: &'a Tensor<1>,
    /// Logits at the training point, `[N, K]`.
    pub logits: &'a Tensor<2>,
    /// Logits of the last attack pass, `[N, K]`; `None` without an attack pass.
    pub attacked: Option<&'a Tensor<2>>,
    /// Classes, `[N]`.
    pub labels: &'a Tensor<1, Int>,
    /// The threat's norm.
    pub norm: Norm,
    /// Gradient of the attack pass by the pixels, `[N, C, H, W]`.
    pub attack: &'a Tensor<4>,
    /// Gradient of the training pass by the pixels, `[N, C, H, W]`.
    pub train: &'a Tensor<4>,
    /// The perturbation that was trained on, `[N, C, H, W]`.
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
    /// Agreement of the two passes' gradients.
    pub agreement: Agreement,
}

/// The figures of a training step, which a device may still be computing.
#[derive(Debug)]
pub struct StepFigures {
    /// All of them, for the host.
    pub figures: Awaited<Figures>,
    /// [`Agreement::linearity`] in [-1, 1], `[1]`, of a device that computes behind the host.
    pub linearity: Option<Tensor<1>>,
}

/// Agreement of the gradients of the attack pass and of the training pass, over a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// [`pert_align`].
    pub pert_align: f32,
    /// [`linearity`].
    pub linearity: f32,
    /// The sum of the upper slopes divided by the sum of the lower slopes, in place of
    /// `linearity`'s mean of ratios.
    pub linearity_of_sums: f32,
    /// Sum of the norms of the training pass's gradients divided by the sum for the attack pass.
    pub grad_ratio: f32,
    /// Mean absolute perturbation, in pixel units.
    pub delta_mean: f32,
}

/// The operations of a device.
pub trait Compute: Debug + Sync {
    /// The backend that computes a network's layers, unless its model sets another.
    fn layers(&self) -> Backend;

    /// Gradient of a loss with respect to the pixels; no weight gradient is computed.
    fn input_gradient(&self, loss: LossAt<'_>) -> InputGradient {
        gradient::recorded_input_gradient(loss)
    }

    /// Gradient of a loss with respect to the parameters and the pixels, in training mode. The
    /// gradient by the pixels costs nothing extra.
    fn training_gradient(&self, loss: LossAt<'_>) -> TrainGradient {
        gradient::recorded_training_gradient(loss)
    }

    /// Computes `box(project(start + alpha factor sign(grad)))`, `[N, C, H, W]`.
    fn sign_step(&self, step: SignStep<'_>) -> Tensor<4>;

    /// Clamps `delta` so that `x + delta` stays in [0, 1]; both `[N, C, H, W]`.
    fn clamp_to_box(&self, x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4>;

    /// `x + delta`, both `[N, C, H, W]`, without autodiff.
    fn moved(&self, x: &Tensor<4>, delta: &Tensor<4>) -> Tensor<4> {
        x.clone() + delta.clone()
    }

    /// Cross-entropy of each sample against `(1 - smoothing) onehot(label) + smoothing / K`
    /// (Szegedy et al. 2016, arXiv 1512.00567): logits `[N, K]`, labels `[N]` to `[N]`.
    fn cross_entropy(&self, logits: Tensor<2>, labels: Tensor<1, Int>, smoothing: f32)
    -> Tensor<1>;

    /// Computes the figures of a step. A device is asked for all of them at once and computes on; but
    /// where several processes share the step, they are known.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device fails.
    fn figures(&self, step: &FigureInputs<'_>) -> Result<StepFigures>;

    /// The form in which a number is kept that follows the figures of the steps on `device`.
    fn kept(&self, number: f32, device: &Device) -> Number {
        let _ = device;
        Number::Known(number)
    }

    /// Updates every parameter and its momentum once by stochastic gradient descent; `gradients`
    /// are flat, in the order of `params`.
    fn sgd_update(
        &self,
        rule: &Sgd,
        params: &mut TensorSet,
        momenta: &mut TensorSet,
        gradients: Vec<Tensor<1>>,
    );
}

/// The operations of `device`, with autodiff or without.
pub fn of(device: &Device) -> &'static dyn Compute {
    match Backend::of(device) {
        Backend::Engine => &cpu_engine::CpuEngine,
        #[cfg(feature = "gpu")]
        Backend::Burn => &gpu::Gpu,
        // There is no other device.
        #[cfg(not(feature = "gpu"))]
        Backend::Burn => &cpu_engine::CpuEngine,
    }
}
