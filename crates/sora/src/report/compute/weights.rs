//! The weights that a run has kept.

use std::path::PathBuf;

use crate::{
    error::{Error, Result},
    files,
    model::Model,
    run::{RunDir, checkpoint},
};

/// Weights that a run has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptWeights {
    /// Their name: `epoch 3`, `step 160` or `final`.
    pub name: String,
    /// Completed epochs and steps, from the checkpoint's name; `None` for the final weights.
    pub position: Option<(u64, u64)>,
    /// The file.
    pub file: PathBuf,
}

/// A choice among a run's weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The final weights, else those of the newest checkpoint.
    #[default]
    Newest,
    /// The weights of the checkpoint after this many epochs.
    Epoch(u64),
    /// The weights of every checkpoint, and the final weights.
    All,
}

impl std::str::FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "newest" | "final" => Ok(Self::Newest),
            number => number.parse().map(Self::Epoch).map_err(|_| {
                let problem = "expected a number of epochs, 'final' or 'all'";
                Error::setting("checkpoint", format!("'{text}'"), problem)
            }),
        }
    }
}

/// The weights of the run `dir` that `choice` selects, oldest first.
///
/// # Errors
/// [`Error`] for a run without weights, or without those of the epoch.
pub fn weights(dir: &RunDir, choice: &Choice) -> Result<Vec<KeptWeights>> {
    let mut all: Vec<_> =
        checkpoint::list(&dir.checkpoints())?.into_iter().map(of_checkpoint).collect();
    if let Some(last) = dir.final_weights() {
        // A checkpoint after the last step holds the same weights, unless they are averaged, so the
        // final weights stand for both.
        all.push(KeptWeights { name: "final".into(), position: None, file: last });
    }
    if all.is_empty() {
        return Err(Error::mismatch(dir.path(), "the run has no weights yet; resume it"));
    }
    match choice {
        Choice::All => Ok(all),
        Choice::Newest => Ok(all.pop().into_iter().collect()),
        Choice::Epoch(wanted) => {
            let at_epoch = |w: &&KeptWeights| w.position == Some((*wanted, 0));
            match all.iter().find(at_epoch) {
                Some(found) => Ok(vec![found.clone()]),
                None => Err(no_epoch(*wanted, &all)),
            }
        }
    }
}

fn of_checkpoint(path: PathBuf) -> KeptWeights {
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
    KeptWeights { name, position, file: path.join(checkpoint::MODEL) }
}

/// Names weights by the epochs of their training. `trained` is the number of epochs of a finished
/// run, which may be fewer than were planned, and `per_epoch` that of steps.
pub(super) fn named(
    mut all: Vec<KeptWeights>,
    trained: Option<u64>,
    per_epoch: f64,
) -> Vec<KeptWeights> {
    // The final weights equal those of the checkpoint after the last epoch, so only one of them is
    // kept.
    if all.len() > 1 && all.iter().any(|w| w.position.is_none()) {
        let before_the_end = |epoch: u64| trained.is_none_or(|trained| epoch < trained);
        all.retain(|w| w.position.is_none_or(|(epoch, _)| before_the_end(epoch)));
    }
    for weights in &mut all {
        let epochs = match weights.position {
            None => trained.map(|trained| trained as f64),
            Some((epoch, 0)) => Some(epoch as f64),
            Some((_, step)) => Some(step as f64 / per_epoch),
        };
        if let Some(epochs) = epochs {
            let text = format!("{epochs:.2}");
            weights.name = format!("epoch {}", text.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    all
}

fn no_epoch(wanted: u64, all: &[KeptWeights]) -> Error {
    let epochs: Vec<_> = all
        .iter()
        .filter_map(|w| w.position.filter(|(_, step)| *step == 0))
        .map(|(epoch, _)| epoch.to_string())
        .collect();
    let kept = if epochs.is_empty() { "none".into() } else { epochs.join(", ") };
    let problem = format!(
        "the run keeps no weights after that epoch, only after {kept}; train with a larger `keep`"
    );
    Error::setting("checkpoint", wanted, problem)
}

/// At most `count` of `all`, evenly spaced, including the first and the last.
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
/// [`Error`] for a file that is damaged or does not fit.
pub fn load(model: &mut Model, weights: &KeptWeights) -> Result<()> {
    let (tensors, _) = match (weights.position, weights.file.parent()) {
        // The checkpoint's manifest is checked as well.
        (Some(_), Some(checkpoint)) => checkpoint::weights(checkpoint)?,
        _ => files::read_safetensors(&weights.file)?,
    };
    model.load(&tensors, &weights.file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_named_by_the_epochs_that_were_trained() {
        let names = |positions: &[Option<(u64, u64)>], trained| {
            let kept = |position: &Option<(u64, u64)>| KeptWeights {
                name: "final".into(),
                position: *position,
                file: PathBuf::new(),
            };
            let all = named(positions.iter().map(kept).collect(), trained, 8.0);
            all.into_iter().map(|weights| weights.name).collect::<Vec<_>>()
        };
        // Stopped early, after two of eight epochs: the checkpoint after the second is the end.
        let stopped = [Some((1, 0)), Some((2, 0)), None];
        assert_eq!(names(&stopped, Some(2)), ["epoch 1", "epoch 2"]);
        assert_eq!(names(&stopped, Some(3)), ["epoch 1", "epoch 2", "epoch 3"]);
        assert_eq!(names(&stopped, None), ["epoch 1", "epoch 2", "final"]);
        assert_eq!(names(&[Some((0, 6)), Some((1, 0))], None), ["epoch 0.75", "epoch 1"]);
    }

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
