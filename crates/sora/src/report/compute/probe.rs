//! What the pictures of a network's behaviour share: images, gradients, the checkpoints of a run.

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    checkpoint,
    data::Split,
    error::{Error, Result},
    evaluate, files,
    gradient::input_gradient,
    loss::cross_entropy_per_sample,
    model::Model,
    nn::BnMode,
    noise::Noise,
    perturbation::{Perturb, clamp_to_box},
    run::RunDir,
    threat::Threat,
};

/// Pixels `[n, C, H, W]` in [0, 1] and labels `[n]` of the samples `indices` of `split`.
///
/// # Errors
/// An index that the split does not have, or an image that cannot be decoded.
pub(super) fn images(
    split: &Split,
    indices: &[usize],
    device: &Device,
) -> Result<(Tensor<4>, Tensor<1, Int>)> {
    if let Some(index) = indices.iter().find(|index| **index >= split.len()) {
        return Err(Error::input(format!(
            "--index {index}: the split has {} images, counted from 0",
            split.len()
        )));
    }
    let [c, h, w] = split.shape();
    let labels: Vec<i32> = indices.iter().map(|&i| split.label(i) as i32).collect();
    let x = Tensor::from_data(
        TensorData::new(evaluate::pixels(split, indices)?, [indices.len(), c, h, w]),
        device,
    );
    Ok((x, Tensor::from_data(labels.as_slice(), device)))
}

/// The direction of steepest ascent of the cross-entropy at `x`, in eval mode, as the norm has it.
pub(super) fn ascent(
    model: &Model,
    threat: Threat,
    x: Tensor<4>,
    labels: &Tensor<1, Int>,
) -> Tensor<4> {
    let sum = |logits| cross_entropy_per_sample(logits, labels.clone()).sum();
    threat.ascent(input_gradient(model, x, BnMode::Eval, sum).grad)
}

/// The perturbation that `steps` steps of epsilon/4 find from a random start; the start's draws are
/// those of `noise`.
pub(super) fn multi_step(
    model: &Model,
    threat: Threat,
    x: &Tensor<4>,
    labels: &Tensor<1, Int>,
    steps: u64,
    noise: &mut Noise,
) -> Tensor<4> {
    let mut delta = clamp_to_box(x, threat.random_start(noise, x.dims()));
    for _ in 0..steps {
        let direction = ascent(model, threat, x.clone() + delta.clone(), labels);
        delta = clamp_to_box(x, threat.project(delta + direction * (threat.epsilon / 4.0)));
    }
    delta
}

/// Weights that a run has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// What they are called: `epoch 3`, `step 160` or `final`.
    pub name: String,
    /// Steps trained, as far as the name of the file says; `None` for the final weights.
    pub position: Option<(u64, u64)>,
    /// The safetensors file.
    pub file: PathBuf,
}

/// Which of a run's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The final ones, else the newest checkpoint.
    Newest,
    /// Those after this epoch.
    Epoch(u64),
    /// All.
    All,
}

impl std::str::FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "newest" | "final" => Ok(Self::Newest),
            number => number.parse().map(Self::Epoch).map_err(|_| {
                Error::input(format!("'{text}': expected a number of epochs, 'final' or 'all'"))
            }),
        }
    }
}

/// The weights of the run `dir` that `choice` names, oldest first.
///
/// # Errors
/// A run without weights, or without those of the epoch.
pub fn weights(dir: &RunDir, choice: &Choice) -> Result<Vec<Weights>> {
    let mut all = Vec::new();
    for path in checkpoint::list(&dir.checkpoints())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let position = name.strip_prefix("epoch-").and_then(|rest| {
            let (epoch, step) = rest.split_once("-step-").unwrap_or((rest, "0"));
            Some((epoch.parse().ok()?, step.parse().ok()?))
        });
        let name = match position {
            Some((epoch, 0)) => format!("epoch {epoch}"),
            Some((_, step)) => format!("step {step}"),
            None => name,
        };
        all.push(Weights { name, position, file: path.join("model.safetensors") });
    }
    let last = dir.model();
    if last.exists() {
        // A checkpoint after the last step holds the same weights, unless they are averaged: the
        // final ones stand for both.
        all.push(Weights { name: "final".into(), position: None, file: last });
    }
    let epochs: Vec<_> = all
        .iter()
        .filter_map(|w| w.position.filter(|(_, step)| *step == 0))
        .map(|(epoch, _)| epoch.to_string())
        .collect();
    let found = match choice {
        Choice::All => all,
        Choice::Newest => all.pop().into_iter().collect(),
        Choice::Epoch(wanted) => {
            all.into_iter().filter(|w| w.position == Some((*wanted, 0))).collect()
        }
    };
    match (found.is_empty(), choice) {
        (true, Choice::Epoch(wanted)) => Err(Error::input(format!(
            "--checkpoint {wanted}: {} keeps none after that epoch, only after {}; train with a larger --keep",
            dir.path().display(),
            if epochs.is_empty() { "none".into() } else { epochs.join(", ") }
        ))),
        (true, _) => Err(Error::input(format!(
            "{}: the run has no weights yet; go on with `sora resume {}`",
            dir.path().display(),
            dir.path().display()
        ))),
        _ => Ok(found),
    }
}

/// At most `count` of `all`, evenly spaced, with the first and the last.
pub fn evenly<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    match (all.len(), count) {
        (len, count) if len <= count => all.to_vec(),
        (_, 0) => Vec::new(),
        (len, 1) => vec![all[len - 1].clone()],
        (len, count) => (0..count).map(|i| all[i * (len - 1) / (count - 1)].clone()).collect(),
    }
}

/// Loads `weights` into `model`, which has the right structure.
///
/// # Errors
/// A file that is damaged or does not fit.
pub fn load(model: &mut Model, weights: &Weights) -> Result<()> {
    let (tensors, _) = files::read_safetensors(&weights.file)?;
    model.load(&tensors, &weights.file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_even_and_holds_both_ends() {
        let all: Vec<_> = (0..25).collect();
        assert_eq!(evenly(&all, 5), [0, 6, 12, 18, 24]);
        assert_eq!(evenly(&all, 1), [24]);
        assert_eq!(evenly(&all, 40), all);
        assert_eq!("all".parse::<Choice>().unwrap(), Choice::All);
        assert!("-1".parse::<Choice>().is_err());
    }
}
