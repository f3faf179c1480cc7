//! Training methods: the way from a batch to a perturbation, a loss and a gradient.
//!
//! A method is one file with one row in [`METHODS`] (or, outside this crate, one call of
//! [`register`]). It makes a perturbation with [`StepContext::input_gradient`] and trains with
//! [`StepContext::train`] or, on a loss of its own, with [`StepContext::train_with`]; the loop
//! applies the gradient.

mod aaer;
mod atas;
mod context;
mod elle;
mod fgm;
mod fgsm;
mod fgsm_pgi;
mod fgsm_rs;
mod free;
mod gradalign;
mod lap;
mod lp_fgsm;
mod mart;
mod multigrad;
mod n_fgsm;
mod none;
mod nuat;
mod options;
mod pgd;
mod registry;
mod sora;
mod store;
mod trades;
mod zerograd;

use std::{collections::BTreeMap, fmt::Debug};

use burn::tensor::Tensor;

pub use aaer::Aaer;
pub use atas::Atas;
pub use context::{Extras, Passes, Place, StepContext, StepSettings, TrainBatch};
pub use elle::{Base, Elle};
pub use fgm::Fgm;
pub use fgsm::Fgsm;
pub use fgsm_pgi::FgsmPgi;
pub use fgsm_rs::FgsmRs;
pub use free::Free;
pub use gradalign::GradAlign;
pub use lap::Lap;
pub use lp_fgsm::LpFgsm;
pub use mart::Mart;
pub use multigrad::MultiGrad;
pub use n_fgsm::NFgsm;
pub use none::Standard;
pub use nuat::NuAt;
pub use options::{Hyperparameters, Options, Variant, range};
pub use pgd::Pgd;
pub use registry::{METHODS, MethodInfo, method, register};
#[cfg(any(test, fuzzing))]
pub(crate) use sora::recorded_steps;
pub use sora::{Sora, StepFactor};
pub use trades::Trades;
pub use zerograd::ZeroGrad;

pub use crate::compute::{Agreement, Awaited, Number, linearity, pert_align};
use crate::{
    compute::Figures,
    data::Augment,
    error::{Error, Result},
    nn::{Backend, BnMode, HostTensor},
    profile::{self, Stage},
    ranks::scope,
};

/// The figures of a step that are logged, for every method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Mean training loss.
    pub loss: f32,
    /// Fraction of the training examples classified correctly.
    pub adv_acc: f32,
    /// Step size, in pixel units.
    pub alpha: f32,
    /// Batch linearity, in [-1, 1].
    pub linearity: f32,
    /// Batch linearity, not clipped.
    pub linearity_raw: f32,
    /// Ratio of the batch's sums of slopes; `linearity_raw` is the mean of the samples' ratios.
    pub linearity_of_sums: f32,
    /// Sum of the norms of the training pass's gradients divided by the sum for the attack pass.
    pub grad_ratio: f32,
    /// PertAlign, in [-1, 1].
    pub pert_align: f32,
    /// Mean absolute perturbation, in pixel units.
    pub delta_mean: f32,
    /// Share of the samples whose loss at the training point is below the loss at the last attack
    /// pass's point (Lin et al. 2024, arXiv 2404.08154, call them abnormal); `None` without an
    /// attack pass.
    pub abnormal: Option<f32>,
}

impl StepMetrics {
    /// The figures of a step without a step size; the ranks that share the step must all call it.
    fn of(figures: Figures) -> Self {
        let Agreement { pert_align, linearity, linearity_of_sums, grad_ratio, delta_mean } =
            figures.agreement;
        let [loss, adv_acc, abnormal] = scope::mean_values([
            figures.loss,
            figures.accuracy,
            figures.abnormal.unwrap_or_default(),
        ]);
        Self {
            loss,
            adv_acc,
            alpha: 0.0,
            linearity: linearity.clamp(-1.0, 1.0),
            linearity_raw: linearity,
            linearity_of_sums,
            grad_ratio,
            pert_align,
            delta_mean,
            abnormal: figures.abnormal.map(|_| abnormal),
        }
    }
}

/// The result of a step for the loop.
#[derive(Debug)]
pub struct StepOutput {
    /// Gradient of each parameter, flat.
    pub gradients: Vec<Tensor<1>>,
    /// The perturbation that was trained on, `[N, C, H, W]`.
    pub delta: Tensor<4>,
    /// Gradient with respect to the training point, `[N, C, H, W]`.
    pub input_gradient: Tensor<4>,
    /// Logits at the training point.
    pub logits: Tensor<2>,
    /// Figures to log, for which the host need not wait within the step.
    pub metrics: Awaited<StepMetrics>,
    /// [`StepMetrics::linearity`], where a device keeps it.
    pub(crate) linearity: Option<Tensor<1>>,
}

impl StepOutput {
    /// Sets the step size in the figures, in pixel units.
    pub fn with_alpha(mut self, alpha: impl Into<Number>) -> Self {
        self.metrics =
            self.metrics.with(alpha.into(), |metrics, alpha| StepMetrics { alpha, ..metrics });
        self
    }

    /// The batch linearity, in [-1, 1], where it was computed.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn linearity(&mut self) -> Result<Number> {
        match &self.linearity {
            Some(linearity) => Ok(Number::OnDevice(linearity.clone())),
            None => Ok(Number::Known(self.metrics.get()?.linearity)),
        }
    }
}

/// The training data as a method sees them before the run.
#[derive(Clone, Copy, Debug)]
pub struct DataInfo {
    /// Number of training images.
    pub images: usize,
    /// `[C, H, W]` of an image.
    pub shape: [usize; 3],
    /// Augmentation.
    pub augment: Augment,
}

/// A training method with its state.
///
/// Several ranks may share a batch: then [`TrainBatch`] is this rank's part, losses are means over
/// it, and a method that computes with a figure of the whole batch adds it up with
/// [`ranks::sum`](crate::ranks::sum).
pub trait Method: Debug + Send {
    /// Number of updates that the loop makes on each batch; it calls [`step`](Self::step) that many
    /// times.
    fn updates_per_batch(&self) -> u32 {
        1
    }

    /// The batch-norm mode of the attack pass, where the options need another mode than the row's.
    fn attack_bn(&self) -> Option<BnMode> {
        None
    }

    /// Whether the method differentiates the network's layers along a direction
    /// ([`TrainPass::forward_along`](crate::gradient::TrainPass::forward_along)), which the graph of
    /// an ONNX file cannot.
    fn needs_tangents(&self) -> bool {
        false
    }

    /// Number of bytes of state that the method will keep for the training data, besides a few
    /// numbers.
    ///
    /// # Errors
    /// [`Error`] for data that the method cannot work with.
    fn memory(&self, _data: &DataInfo) -> Result<u64> {
        Ok(0)
    }

    /// Makes one step on `batch`: returns the gradient to apply and the figures to log.
    ///
    /// # Errors
    /// [`Error`] when a device fails.
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput>;

    /// The state that a checkpoint keeps; empty for a method without state.
    ///
    /// # Errors
    /// [`Error`] when a device fails.
    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(Vec::new())
    }

    /// Restores the state that [`state`](Self::state) returned.
    ///
    /// # Errors
    /// [`Error`] for a checkpoint of another method.
    fn load_state(&mut self, _state: &BTreeMap<String, HostTensor>) -> Result<()> {
        Ok(())
    }
}

/// Runs one step of `method`: on the CPU inside the thread pool, because a kernel that is called from
/// outside of the pool waits each time for a thread to wake up. A GPU orders the work of each thread by
/// itself and records passes for each, so its steps stay on the thread that calls.
///
/// # Errors
/// Those of the step.
pub fn run_step(
    method: &mut dyn Method,
    cx: &mut StepContext<'_>,
    batch: &TrainBatch,
) -> Result<StepOutput> {
    if Backend::of(&batch.x.device()) == Backend::Burn {
        return profile::time(Stage::Perturbation, || method.step(cx, batch));
    }
    // The pool's thread is one of the ranks, too.
    let ranks = scope::current();
    rayon::scope(|_| {
        scope::within(ranks, || profile::time(Stage::Perturbation, || method.step(cx, batch)))
    })
}

/// The error for a checkpoint without `what`, a part of the state of `method`.
fn no_state(method: &str, what: &str) -> Error {
    Error::unfit(
        "checkpoint",
        format!(
            "the state '{what}' of method {method} is missing or damaged; was the run made with \
             another method?"
        ),
    )
}
