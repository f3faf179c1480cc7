//! Checkpoints: everything that a run needs to go on to the same bits, in a folder that appears all
//! at once.
//!
//! `checkpoints/epoch-NNN/` holds the state after NNN epochs (`epoch-NNN-step-SSSSSS/` one inside
//! the next epoch): `model.safetensors`, `optimizer.safetensors`, `method.safetensors` and
//! `state.json`. The folder is written beside under a name that starts with a dot, synced, and
//! renamed: a kill leaves the old checkpoints or the old ones and the new one.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    diagnose::CoDetector,
    error::{Error, Result},
    files,
    method::Passes,
    metrics::{EpochTotals, Rollback},
    nn::HostTensor,
};

/// Format of `state.json`.
const FORMAT: u32 = 1;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Format of this file.
    pub format: u32,
    /// Complete epochs.
    pub epoch: u64,
    /// Complete batches of the epoch that follows them.
    pub batch: u64,
    /// Complete steps since the start.
    pub step: u64,
    /// Length of `metrics.jsonl` at this point: what lies beyond was written after it.
    pub metrics_bytes: u64,
    /// Length of `epochs.jsonl` at this point.
    pub epochs_bytes: u64,
    /// Sums over the batches of the unfinished epoch.
    pub totals: EpochTotals,
    /// State of the catastrophic-overfitting detector.
    pub co: CoDetector,
    /// The rollback of the run, if there was one.
    #[serde(default)]
    pub rollback: Option<Rollback>,
    /// Forward and backward passes so far.
    pub passes: Passes,
    /// Seconds of training so far (wall clock).
    pub seconds: f64,
}

/// The tensors of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Parameters and running statistics.
    pub model: Vec<HostTensor>,
    /// Momentum and the like.
    pub optimizer: Vec<HostTensor>,
    /// The method's own state.
    pub method: Vec<HostTensor>,
}

/// A checkpoint as read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub progress: Progress,
    /// Parameters and running statistics by name.
    pub model: BTreeMap<String, HostTensor>,
    /// Optimizer state by name.
    pub optimizer: BTreeMap<String, HostTensor>,
    /// Method state by name.
    pub method: BTreeMap<String, HostTensor>,
}

/// Writes a checkpoint under `dir` (the run's `checkpoints/`) and removes all but the newest `keep`
/// and those for which `needed` says so.
///
/// # Errors
/// A disk that is full or not writable; the older checkpoints are then untouched.
pub fn save(
    dir: &Path,
    progress: &Progress,
    state: &State,
    metadata: &HashMap<String, String>,
    keep: usize,
    needed: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let name = match progress.batch {
        0 => format!("epoch-{:03}", progress.epoch),
        _ => format!("epoch-{:03}-step-{:06}", progress.epoch, progress.step),
    };
    let temporary = dir.join(format!(".{name}.tmp"));
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    for (file, tensors) in
        [("model", &state.model), ("optimizer", &state.optimizer), ("method", &state.method)]
    {
        let path = temporary.join(file).with_extension("safetensors");
        files::write_synced(&path, &files::to_safetensors(tensors, metadata.clone())?)?;
    }
    let progress = Progress { format: FORMAT, ..progress.clone() };
    let json = serde_json::to_vec_pretty(&progress)
        .map_err(|e| Error::work(format!("cannot serialise a checkpoint: {e}")))?;
    files::write_synced(&temporary.join("state.json"), &json)?;
    files::sync_dir(&temporary)?;
    let path = dir.join(&name);
    remove(&path)?;
    fs::rename(&temporary, &path).map_err(|e| Error::io("rename into place", &path, e))?;
    files::sync_dir(dir)?;
    prune(dir, keep, needed)?;
    Ok(path)
}

/// Checkpoint folders under `dir`, oldest first. Names sort in the order of writing: (epoch, step).
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::io("list", dir, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        if let Some(key) = path.file_name().and_then(|name| key(name.to_str()?)) {
            found.push((key, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Steps complete at the checkpoint folder `path` of a run with `steps_per_epoch`; `None` for
/// another name.
pub fn step(path: &Path, steps_per_epoch: u64) -> Option<u64> {
    match key(path.file_name()?.to_str()?)? {
        (epoch, 0) => Some(epoch * steps_per_epoch),
        (_, step) => Some(step),
    }
}

/// (epoch, step) of a checkpoint's name; a whole epoch sorts before the steps that follow it.
fn key(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix("epoch-")?;
    match rest.split_once("-step-") {
        None => Some((rest.parse().ok()?, 0)),
        Some((epoch, step)) => Some((epoch.parse().ok()?, step.parse().ok()?)),
    }
}

/// The newest checkpoint under `dir` that is whole; a damaged one is passed over with a warning.
///
/// # Errors
/// Checkpoints that are all damaged. No checkpoint at all is `None`.
pub fn latest(dir: &Path) -> Result<Option<Checkpoint>> {
    let mut damaged = None;
    for path in list(dir)?.into_iter().rev() {
        match load(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(e) => {
                tracing::warn!("{e}; trying the one before it");
                damaged = Some(e);
            }
        }
    }
    damaged.map_or(Ok(None), Err)
}

/// Reads the checkpoint folder `path`.
///
/// # Errors
/// A file that is missing or damaged.
pub fn load(path: &Path) -> Result<Checkpoint> {
    let state = path.join("state.json");
    let text = fs::read(&state)
        .map_err(|e| Error::input(format!("cannot read {}: {e}", state.display())))?;
    let progress: Progress = serde_json::from_slice(&text)
        .map_err(|e| Error::input(format!("{}: damaged: {e}", state.display())))?;
    if progress.format != FORMAT {
        return Err(Error::input(format!(
            "{}: written in format {}, this version reads {FORMAT}; use the version of sora that its config.toml names",
            state.display(),
            progress.format
        )));
    }
    let read = |file: &str| Ok::<_, Error>(files::read_safetensors(&path.join(file))?.0);
    Ok(Checkpoint {
        progress,
        model: read("model.safetensors")?,
        optimizer: read("optimizer.safetensors")?,
        method: read("method.safetensors")?,
        path: path.to_owned(),
    })
}

/// Removes all but the newest `keep` checkpoints and those that are `needed`, and what a kill in
/// the middle of a write or a removal has left.
///
/// # Errors
/// A folder that cannot be read or written.
pub fn prune(dir: &Path, keep: usize, needed: impl Fn(&Path) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".epoch-")) {
            remove(&path)?;
        }
    }
    let all = list(dir)?;
    let surplus = all.len().saturating_sub(keep.max(1));
    all.iter().take(surplus).filter(|path| !needed(path)).try_for_each(|path| discard(path))
}

/// Removes a checkpoint.
fn discard(path: &Path) -> Result<()> {
    // Renamed first: a kill in the middle of the removal must not leave a checkpoint that looks
    // whole.
    let hidden = path
        .with_file_name(format!(".{}.old", path.file_name().unwrap_or_default().to_string_lossy()));
    remove(&hidden)?;
    fs::rename(path, &hidden).map_err(|e| Error::io("rename", path, e))?;
    remove(&hidden)
}

/// Removes the checkpoints that are newer than `path` (`None`: all), the newest first: a kill in
/// between leaves a run that can go on.
///
/// # Errors
/// A folder that cannot be written.
pub fn discard_after(dir: &Path, path: Option<&Path>) -> Result<()> {
    for newer in list(dir)?.iter().rev().take_while(|newer| Some(newer.as_path()) != path) {
        discard(newer)?;
    }
    files::sync_dir(dir)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, batch: u64, step: u64) -> Progress {
        Progress { epoch, batch, step, ..Progress::default() }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("checkpoints");
        assert!(latest(&dir).unwrap().is_none());
        let state = State {
            model: vec![HostTensor { name: "w".into(), shape: vec![1], data: vec![0.1] }],
            ..State::default()
        };
        for progress in [at(0, 3, 3), at(1, 0, 5), at(1, 2, 7), at(2, 0, 10)] {
            save(&dir, &progress, &state, &HashMap::new(), 3, |_| false).unwrap();
        }
        let names: Vec<_> = list(&dir)
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["epoch-001", "epoch-001-step-000007", "epoch-002"]);
        let newest = latest(&dir).unwrap().unwrap();
        assert_eq!((newest.progress.epoch, newest.progress.step), (2, 10));
        assert_eq!(newest.model["w"].data, [0.1]);

        // What a kill leaves behind is not taken for a checkpoint; a damaged one is passed over.
        let left = [dir.join(".epoch-003.tmp"), dir.join(".epoch-001.old")];
        left.iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(newest.path.join("model.safetensors"), b"cut").unwrap();
        assert_eq!(latest(&dir).unwrap().unwrap().progress.step, 7);
        save(&dir, &at(2, 1, 11), &state, &HashMap::new(), 3, |_| false).unwrap();
        assert!(!left.iter().any(|path| path.exists()), "the next checkpoint clears them away");
        for path in list(&dir).unwrap() {
            fs::write(path.join("state.json"), b"{").unwrap();
        }
        assert!(matches!(latest(&dir), Err(Error::Input(_))));
    }
}
