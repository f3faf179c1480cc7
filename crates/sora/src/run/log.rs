//! The lines of `metrics.jsonl` and `epochs.jsonl`, for writers and readers.
//!
//! A figure that is not finite is written as `"NaN"`, `"inf"` or `"-inf"`, because JSON has no such
//! numbers, and is read back as the same value. A figure that an older or newer version, or a
//! damaged line, lacks is read as NaN or absent, so that every reader can use the same types.

pub use robustness::Accuracy;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::{
    diagnose::CoEvent,
    method::{Passes, StepMetrics},
};

/// A figure in a JSON line, finite or not.
pub(crate) mod figure {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Json {
        Number(f64),
        Text(String),
        Nothing(()),
    }

    /// A float of either size. A number is written with the digits of its own size: `0.1f32` as
    /// `0.1`.
    pub(crate) trait Figure: Copy {
        const NAN: Self;
        fn wide(self) -> f64;
        fn narrow(value: f64) -> Self;
        fn write<S: Serializer>(self, serializer: S) -> Result<S::Ok, S::Error>;
    }

    impl Figure for f32 {
        const NAN: Self = Self::NAN;
        fn wide(self) -> f64 {
            self.into()
        }
        fn narrow(value: f64) -> Self {
            value as Self
        }
        fn write<S: Serializer>(self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_f32(self)
        }
    }

    impl Figure for f64 {
        const NAN: Self = Self::NAN;
        fn wide(self) -> f64 {
            self
        }
        fn narrow(value: f64) -> Self {
            value
        }
        fn write<S: Serializer>(self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_f64(self)
        }
    }

    pub(crate) fn serialize<F: Figure, S: Serializer>(
        value: &F,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value.wide() {
            wide if wide.is_finite() => value.write(serializer),
            wide if wide.is_nan() => serializer.serialize_str("NaN"),
            wide if wide > 0.0 => serializer.serialize_str("inf"),
            _ => serializer.serialize_str("-inf"),
        }
    }

    pub(crate) fn deserialize<'de, F: Figure, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<F, D::Error> {
        Ok(match Json::deserialize(deserializer)? {
            Json::Number(value) => F::narrow(value),
            // A text that is not a number counts as absent.
            Json::Text(text) => F::narrow(text.parse().unwrap_or(f64::NAN)),
            Json::Nothing(()) => F::NAN,
        })
    }

    pub(crate) fn nan<F: Figure>() -> F {
        F::NAN
    }
}

/// The same conversion for a figure that may be absent.
mod maybe {
    use super::{Deserialize, Deserializer, Serialize, Serializer, figure};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "figure")] f32);

    pub(super) fn serialize<S: Serializer>(
        value: &Option<f32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Wrapped).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f32>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Step, from 0.
    pub step: u64,
    /// Epoch, from 0.
    #[serde(default)]
    pub epoch: u64,
    /// Mean training loss of the batch.
    #[serde(with = "figure", default = "figure::nan")]
    pub loss: f32,
    /// Fraction of the batch's training examples classified correctly.
    #[serde(with = "figure", default = "figure::nan")]
    pub adv_acc: f32,
    /// Learning rate of the update.
    #[serde(with = "figure", default = "figure::nan")]
    pub lr: f32,
    /// Step size of the attack, pixel units.
    #[serde(with = "figure", default = "figure::nan")]
    pub alpha: f32,
    /// Batch linearity, in [-1, 1].
    #[serde(with = "figure", default = "figure::nan")]
    pub linearity: f32,
    /// PertAlign, in [-1, 1].
    #[serde(with = "figure", default = "figure::nan")]
    pub pert_align: f32,
    /// Mean absolute perturbation, pixel units.
    #[serde(with = "figure", default = "figure::nan")]
    pub delta_mean: f32,
    /// Throughput of the step (wall clock), images per second.
    #[serde(with = "figure", default = "figure::nan")]
    pub images_per_s: f32,
    /// Momentum of the update; `None` for an optimizer without momentum, or in a line of an old
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub momentum: Option<f32>,
    /// Batch linearity, not clipped; like the next two, `None` in lines of old versions.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub linearity_raw: Option<f32>,
    /// Ratio of the batch's sums of slopes; `linearity_raw` is the mean of the samples' ratios.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub linearity_of_sums: Option<f32>,
    /// Sum of the norms of the training pass's gradients divided by the sum for the attack pass.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub grad_ratio: Option<f32>,
    /// Share of the samples whose loss at the training point is below the loss at the last attack
    /// pass's point; `None` without an attack pass.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub abnormal: Option<f32>,
    /// Validation after this step, where `val_steps` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<ValFigures>,
    /// The event, if catastrophic overfitting was noticed at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub co: Option<CoEvent>,
    /// The rollback, if this step is the first after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Method of the step, if it differs from the one in config.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A return to an earlier checkpoint because of catastrophic overfitting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The event that caused it.
    pub co: CoEvent,
    /// The step from which training continued. Steps `to_step..=co.step` were trained, discarded
    /// (`abandoned.jsonl` has their lines) and trained again.
    pub to_step: u64,
    /// Method before the rollback.
    pub from_method: String,
    /// Method after the rollback.
    pub method: String,
}

/// Sums over the batches of an epoch, in the order of the batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochTotals {
    images: u64,
    steps: u64,
    #[serde(with = "figure", default = "figure::nan")]
    loss: f64,
    #[serde(with = "figure", default = "figure::nan")]
    adv_acc: f64,
    #[serde(with = "figure", default = "figure::nan")]
    pert_align: f64,
    #[serde(with = "figure", default = "figure::nan")]
    linearity: f64,
    #[serde(with = "figure", default = "figure::nan")]
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

    /// The means over the epoch.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainFigures {
    /// Mean training loss.
    #[serde(with = "figure", default = "figure::nan")]
    pub loss: f64,
    /// Accuracy on the training examples.
    #[serde(with = "figure", default = "figure::nan")]
    pub adv_acc: f64,
    /// Mean PertAlign.
    #[serde(with = "figure", default = "figure::nan")]
    pub pert_align: f64,
    /// Mean linearity.
    #[serde(with = "figure", default = "figure::nan")]
    pub linearity: f64,
    /// Mean step size, pixel units.
    #[serde(with = "figure", default = "figure::nan")]
    pub alpha: f64,
}

/// Validation figures of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValFigures {
    /// Number of images held out of the training split.
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
    /// Number of steps since the start.
    #[serde(default)]
    pub step: u64,
    /// Training figures.
    #[serde(default)]
    pub train: TrainFigures,
    /// Validation figures; `None` without held-out images.
    pub val: Option<ValFigures>,
    /// The event of catastrophic overfitting so far; after a rollback, since the rollback.
    pub co: Option<CoEvent>,
    /// The rollback of the run, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Seconds of training in this epoch (wall clock).
    #[serde(default)]
    pub seconds: f64,
    /// Seconds of validation in and after it (wall clock).
    #[serde(default)]
    pub val_seconds: f64,
    /// Numbers of forward and backward passes since the start, without validation.
    #[serde(default)]
    pub passes: Passes,
    /// Largest resident memory so far (MiB).
    #[serde(default)]
    pub peak_rss_mib: u64,
}

/// The readable lines of a log, and warnings about the others.
#[derive(Clone, Debug)]
pub struct Lines<T> {
    /// The lines that could be parsed, in order.
    pub lines: Vec<T>,
    /// Descriptions of missing or damaged parts, each naming the file.
    pub warnings: Vec<String>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// Reads the log `path`. It returns no error, because a run in progress, an older version or a
    /// full disk must still give its figures.
    pub fn read(path: &std::path::Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&name, &bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Self { lines: Vec::new(), warnings: vec![format!("{name} is missing")] }
            }
            Err(e) => {
                Self { lines: Vec::new(), warnings: vec![format!("{name} cannot be read: {e}")] }
            }
        }
    }

    fn parse(name: &str, bytes: &[u8]) -> Self {
        let (mut lines, mut warnings, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let whole = bytes.is_empty() || bytes.ends_with(b"\n");
        let count = bytes.split(|byte| *byte == b'\n').count();
        let rows = bytes.split(|byte| *byte == b'\n').enumerate();
        for (i, line) in rows.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => lines.push(line),
                // The last line is still being written.
                Err(_) if !whole && i + 1 == count => {
                    warnings.push(format!("{name} ends in the middle of line {}", i + 1));
                }
                Err(e) => damaged.push(format!("line {}: {e}", i + 1)),
            }
        }
        if let Some(first) = damaged.first() {
            warnings.push(format!(
                "{name}: {} of {count} lines are damaged and left out, the first is {first}",
                damaged.len()
            ));
        }
        if lines.is_empty() && damaged.is_empty() {
            warnings.push(format!("{name} is empty"));
        }
        Self { lines, warnings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_are_not_finite_are_written_and_read_back() {
        let line = StepLine {
            step: 3,
            loss: f32::INFINITY,
            pert_align: f32::NAN,
            alpha: 0.1,
            grad_ratio: Some(f32::NEG_INFINITY),
            ..StepLine::default()
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains("\"loss\":\"inf\"") && text.contains("\"alpha\":0.1"), "{text}");
        let back: StepLine = serde_json::from_str(&text).unwrap();
        assert!(back.pert_align.is_nan() && back.loss == f32::INFINITY && back.alpha == 0.1);
        assert_eq!((back.grad_ratio, back.abnormal), (Some(f32::NEG_INFINITY), None));
        let totals = EpochTotals { loss: f64::NAN, ..EpochTotals::default() };
        let back: EpochTotals =
            serde_json::from_str(&serde_json::to_string(&totals).unwrap()).unwrap();
        assert!(back.means().loss.is_nan());
    }

    #[test]
    fn what_is_missing_or_damaged_is_said_once_and_the_rest_is_read() {
        let log =
            "{\"step\":0,\"loss\":null,\"new\":1}\nnonsense\n{\"step\":1,\"loss\":2.5}\n{\"st";
        let read = Lines::<StepLine>::parse("metrics.jsonl", log.as_bytes());
        assert_eq!((read.lines.len(), read.lines[1].loss), (2, 2.5));
        assert!(read.lines[0].loss.is_nan() && read.lines[1].lr.is_nan());
        let text = read.warnings.join("\n");
        assert!(text.contains("1 of 4 lines") && text.contains("middle of line 4"), "{text}");
        let none = Lines::<EpochLine>::read(std::path::Path::new("no/epochs.jsonl"));
        assert_eq!(none.warnings, ["epochs.jsonl is missing"]);
    }
}
