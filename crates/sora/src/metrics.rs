//! The lines of `metrics.jsonl` and `epochs.jsonl`.

pub use robustness::Accuracy;
use serde::{Deserialize, Serialize};

use crate::{
    diagnose::CoEvent,
    method::{Passes, StepMetrics},
};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Step, from 0.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Mean training loss of the batch.
    pub loss: f32,
    /// Fraction of the batch's training examples classified correctly.
    pub adv_acc: f32,
    /// Learning rate of the update.
    pub lr: f32,
    /// Momentum of the update; `None`: the optimizer has none, or the line is an old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f32>,
    /// Step size of the attack, pixel units.
    pub alpha: f32,
    /// Batch linearity, in [-1, 1].
    pub linearity: f32,
    /// Batch linearity, not clipped; `None` in lines of old versions, as the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linearity_raw: Option<f32>,
    /// Ratio of the batch's sums of slopes, beside `linearity_raw`, the mean of the samples' ratios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linearity_of_sums: Option<f32>,
    /// Summed norms of the training pass's gradients over those of the attack pass's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_ratio: Option<f32>,
    /// Share of the samples whose loss at the training point is below that at the last attack
    /// pass's point; `None` without an attack pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abnormal: Option<f32>,
    /// PertAlign, in [-1, 1].
    pub pert_align: f32,
    /// Mean absolute perturbation, pixel units.
    pub delta_mean: f32,
    /// Throughput of the step (wall clock).
    pub images_per_s: f32,
    /// Validation after this step, with `--val-steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<ValFigures>,
    /// Catastrophic overfitting noticed at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub co: Option<CoEvent>,
    /// The rollback after which this step is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Method of the step, where it is not the one in config.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A return to an earlier checkpoint because of catastrophic overfitting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// What was noticed, and when.
    pub co: CoEvent,
    /// The step that training went on from: steps `to_step..=co.step` were trained, thrown away
    /// (`abandoned.jsonl` has their lines) and trained again.
    pub to_step: u64,
    /// Method until then.
    pub from_method: String,
    /// Method since.
    pub method: String,
}

/// Sums over the batches of an epoch, in the order of the batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochTotals {
    images: u64,
    steps: u64,
    loss: f64,
    adv_acc: f64,
    pert_align: f64,
    linearity: f64,
    alpha: f64,
    /// Seconds of the epoch so far (wall clock).
    pub seconds: f64,
    /// Seconds of validation within the epoch so far (wall clock).
    #[serde(default)]
    pub val_seconds: f64,
}

impl EpochTotals {
    /// Adds a step on `images` images.
    pub fn add(&mut self, metrics: &StepMetrics, images: usize, seconds: f64) {
        let weight = images as f64;
        self.images += images as u64;
        self.steps += 1;
        self.loss += f64::from(metrics.loss) * weight;
        self.adv_acc += f64::from(metrics.adv_acc) * weight;
        self.pert_align += f64::from(metrics.pert_align);
        self.linearity += f64::from(metrics.linearity);
        self.alpha += f64::from(metrics.alpha);
        self.seconds += seconds;
    }

    /// Means over the epoch.
    pub fn means(&self) -> TrainFigures {
        let (images, steps) = (self.images.max(1) as f64, self.steps.max(1) as f64);
        TrainFigures {
            loss: self.loss / images,
            adv_acc: self.adv_acc / images,
            pert_align: self.pert_align / steps,
            linearity: self.linearity / steps,
            alpha: self.alpha / steps,
        }
    }

    /// Images per second over the epoch.
    pub fn images_per_s(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }
}

/// Training figures of an epoch: means over images (loss, accuracy) or steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainFigures {
    /// Mean training loss.
    pub loss: f64,
    /// Accuracy on the training examples.
    pub adv_acc: f64,
    /// Mean PertAlign.
    pub pert_align: f64,
    /// Mean linearity.
    pub linearity: f64,
    /// Mean step size, pixel units.
    pub alpha: f64,
}

/// Validation figures of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValFigures {
    /// Images held out of the training split.
    pub n: u64,
    /// Clean accuracy.
    pub clean: Accuracy,
    /// Accuracy under fgsm.
    pub fgsm: Accuracy,
    /// Accuracy under pgd-10.
    pub pgd: Accuracy,
}

/// One line of `epochs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLine {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Steps since the start.
    pub step: u64,
    /// Training figures.
    pub train: TrainFigures,
    /// Validation figures; `None` with `--val 0`.
    pub val: Option<ValFigures>,
    /// Catastrophic overfitting found so far; after a rollback, since then.
    pub co: Option<CoEvent>,
    /// The rollback of the run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Seconds of training in this epoch (wall clock).
    pub seconds: f64,
    /// Seconds of validation in and after it (wall clock).
    pub val_seconds: f64,
    /// Forward and backward passes since the start, without validation.
    pub passes: Passes,
    /// Largest resident memory so far (MiB).
    pub peak_rss_mib: u64,
}
