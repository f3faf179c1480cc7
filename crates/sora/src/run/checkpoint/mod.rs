//! Checkpoints: all the state that a run needs to continue to the same bits, in a folder that
//! appears in one step.
//!
//! `checkpoints/epoch-NNN/` holds the state after NNN epochs (`epoch-NNN-step-SSSSSS/`, a state
//! inside the next epoch): `model.safetensors`, `optimizer.safetensors`, `method.safetensors`,
//! `state.json`, and `MANIFEST.json` with the SHA-256 of each file, of the run's config.toml and of its
//! logs up to there.
//! The folder is written under a name that starts with a dot, synchronised, and renamed. A kill
//! therefore leaves the old checkpoints, with or without the new one. Only finite values are
//! written, and a changed byte is noticed when a checkpoint is read.

mod prune;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::prune::{discard, remove};
pub use self::prune::{discard_after, prune};
use super::{
    digests::LogDigests,
    log::{EpochTotals, Rollback, ValFigures},
};
use crate::{
    diagnose::CoDetector,
    error::{Error, Result},
    files,
    method::Passes,
    nn::HostTensor,
};

/// Format of `state.json`.
const FORMAT: u32 = 1;

/// Names of a checkpoint's files.
pub(crate) const STATE: &str = "state.json";
const MANIFEST: &str = "MANIFEST.json";
/// File name of the weights of a checkpoint.
pub const MODEL: &str = "model.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const METHOD: &str = "method.safetensors";

/// The content of `MANIFEST.json`: the parts of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of each file, in hexadecimal.
    pub files: BTreeMap<String, String>,
    /// SHA-256 of the config.toml that the run had; absent for a training without a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// SHA-256 of the run's logs: of their first bytes, as many as [`Position`] says, and of all of
    /// abandoned.jsonl. Older versions wrote none.
    #[serde(default, skip_serializing_if = "LogDigests::is_empty")]
    pub logs: LogDigests,
}

/// The best validation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of completed steps at this validation.
    pub step: u64,
    /// Number of completed epochs at this validation.
    pub epoch: u64,
    /// Figures of the validation.
    pub figures: ValFigures,
}

/// The position of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Format of this file.
    pub format: u32,
    /// Number of completed epochs.
    pub epoch: u64,
    /// Number of completed batches of the epoch that follows them.
    pub batch: u64,
    /// Number of completed steps since the start.
    pub step: u64,
    /// Length of `metrics.jsonl` in bytes at this point; later lines were written after the
    /// checkpoint.
    pub metrics_bytes: u64,
    /// Length of `epochs.jsonl` in bytes at this point.
    pub epochs_bytes: u64,
    /// Sums over the batches of the unfinished epoch.
    pub totals: EpochTotals,
    /// State of the catastrophic-overfitting detector.
    pub co: CoDetector,
    /// The rollback of the run, if there was one.
    #[serde(default)]
    pub rollback: Option<Rollback>,
    /// The best validation so far.
    #[serde(default)]
    pub best: Option<Best>,
    /// The planned number of epochs, if the run ended before its last epoch because validation no
    /// longer improved.
    #[serde(default)]
    pub stopped_early: Option<u64>,
    /// Numbers of forward and backward passes so far.
    pub passes: Passes,
    /// Seconds of training so far (wall clock).
    pub seconds: f64,
}

/// The tensors of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Parameters and running statistics.
    pub model: Vec<HostTensor>,
    /// State of the optimizer, such as momentum.
    pub optimizer: Vec<HostTensor>,
    /// The method's own state.
    pub method: Vec<HostTensor>,
}

impl State {
    fn parts(&self) -> [(&'static str, &[HostTensor]); 3] {
        [(MODEL, &self.model), (OPTIMIZER, &self.optimizer), (METHOD, &self.method)]
    }

    /// The name of the first tensor with a value that is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        self.parts().into_iter().find_map(|(_, tensors)| files::not_finite(tensors))
    }
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The position of the run.
    pub progress: Position,
    /// The manifest; `None` where an older version wrote the checkpoint.
    pub manifest: Option<Manifest>,
    /// Parameters and running statistics by name.
    pub model: BTreeMap<String, HostTensor>,
    /// Optimizer state by name.
    pub optimizer: BTreeMap<String, HostTensor>,
    /// Method state by name.
    pub method: BTreeMap<String, HostTensor>,
}

/// The content of a new checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The position of the run.
    pub progress: &'a Position,
    /// The tensors.
    pub state: &'a State,
    /// The description of the weights.
    pub metadata: &'a HashMap<String, String>,
    /// SHA-256 of the run's config.toml.
    pub config: &'a str,
    /// SHA-256 of the run's logs up to this position.
    pub logs: &'a LogDigests,
}

/// Writes a checkpoint under `dir` (the run's `checkpoints/`), then removes all checkpoints except
/// the newest `keep` and those for which `needed` returns true.
///
/// # Errors
/// [`Error::Diverged`] where a value is not finite; [`Error::Io`] for a disk that is full or not
/// writable. The older checkpoints are then unchanged.
pub fn save(
    dir: &Path,
    content: Content<'_>,
    keep: usize,
    needed: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let Content { progress, state, .. } = content;
    if let Some(tensor) = state.not_finite() {
        return Err(Error::Diverged {
            step: progress.step,
            figure: format!("tensor '{tensor}'"),
            last_good: list(dir)?.pop(),
        });
    }
    let name = match progress.batch {
        0 => format!("epoch-{:03}", progress.epoch),
        _ => format!("epoch-{:03}-step-{:06}", progress.epoch, progress.step),
    };
    let temporary = dir.join(format!(".{name}.tmp"));
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    fill(&temporary, content)?;
    let path = dir.join(&name);
    if path.exists() {
        discard(&path)?;
    }
    fs::rename(&temporary, &path).map_err(|e| Error::io("rename into place", &path, e))?;
    files::sync_dir(dir)?;
    prune(dir, keep, needed)?;
    Ok(path)
}

/// Writes the files of a checkpoint into the empty folder `dir`.
fn fill(dir: &Path, content: Content<'_>) -> Result<()> {
    let Content { progress, state, metadata, config, logs } = content;
    let config = Some(config.to_owned());
    let mut manifest = Manifest { files: BTreeMap::new(), config, logs: logs.clone() };
    let mut write = |name: &str, bytes: Vec<u8>| {
        manifest.files.insert(name.to_owned(), files::sha256(&bytes));
        files::write_new(&dir.join(name), &bytes)
    };
    for (name, tensors) in state.parts() {
        write(name, files::to_safetensors(tensors, metadata.clone())?)?;
    }
    write(STATE, files::json(&Position { format: FORMAT, ..progress.clone() })?)?;
    files::write_new(&dir.join(MANIFEST), &files::json(&manifest)?)?;
    files::sync_dir(dir)
}

/// Checkpoint folders under `dir`, oldest first. Their names sort in the order of writing: (epoch,
/// step).
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

/// Number of completed steps at the checkpoint folder `path` of a run with `steps_per_epoch`;
/// `None` if the name is not that of a checkpoint.
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

/// Returns the first checkpoint under `dir` that `take` accepts, beginning with the newest. A
/// checkpoint that is damaged or that `take` refuses is skipped, with a line to `told`. Returns
/// `None` if there is no checkpoint.
///
/// # Errors
/// [`Error`] if all checkpoints are damaged or refused.
pub fn newest<T>(
    dir: &Path,
    mut take: impl FnMut(Checkpoint) -> Result<T>,
    mut told: impl FnMut(&str),
) -> Result<Option<T>> {
    let mut all = list(dir)?;
    let mut first = None;
    while let Some(path) = all.pop() {
        match load(&path).and_then(&mut take) {
            Ok(taken) => return Ok(Some(taken)),
            Err(e) => {
                if let Some(before) = all.last() {
                    told(&format!("{e}; going on from the one before it, {}", before.display()));
                }
                first.get_or_insert(e);
            }
        }
    }
    first.map_or(Ok(None), Err)
}

/// Reads the checkpoint folder `path` and checks its files against their digests.
///
/// # Errors
/// [`Error`] for a file that is missing, or that was changed.
pub fn load(path: &Path) -> Result<Checkpoint> {
    let manifest = manifest(path)?;
    let progress = position(path, manifest.as_ref())?;
    let tensors = |name: &str| {
        let (file, bytes) = read(path, name, manifest.as_ref())?;
        Ok::<_, Error>(files::parse_safetensors(&file, &bytes)?.0)
    };
    Ok(Checkpoint {
        progress,
        model: tensors(MODEL)?,
        optimizer: tensors(OPTIMIZER)?,
        method: tensors(METHOD)?,
        path: path.to_owned(),
        manifest,
    })
}

/// Reads where the run was at the checkpoint folder `path`, and the digests of its logs, without the
/// tensors.
///
/// # Errors
/// Those of [`load`].
pub fn logs(path: &Path) -> Result<(Position, LogDigests)> {
    let manifest = manifest(path)?;
    let progress = position(path, manifest.as_ref())?;
    Ok((progress, manifest.map(|manifest| manifest.logs).unwrap_or_default()))
}

/// Reads the file `name` of the checkpoint folder `path` and checks its digest.
fn read(path: &Path, name: &str, manifest: Option<&Manifest>) -> Result<(PathBuf, Vec<u8>)> {
    let file = path.join(name);
    let bytes = fs::read(&file).map_err(|e| Error::read(&file, e))?;
    verify(manifest, name, &file, &bytes)?;
    Ok((file, bytes))
}

/// Reads state.json of the checkpoint folder `path`.
fn position(path: &Path, manifest: Option<&Manifest>) -> Result<Position> {
    let (file, state) = read(path, STATE, manifest)?;
    let progress: Position = serde_json::from_slice(&state)
        .map_err(|e| Error::damaged(&file, format!("damaged: {e}")))?;
    if progress.format != FORMAT {
        let problem = format!(
            "written in format {}, this version reads {FORMAT}; use the version of sora that the \
             run's config.toml names",
            progress.format
        );
        return Err(Error::mismatch(&file, problem));
    }
    Ok(progress)
}

/// The manifest of the checkpoint folder `path`; `None` where an older version wrote it.
fn manifest(path: &Path) -> Result<Option<Manifest>> {
    let file = path.join(MANIFEST);
    match fs::read(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::read(&file, e)),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::damaged(&file, format!("damaged: {e}"))),
    }
}

/// Checks that the file `name` of a checkpoint was not changed.
fn verify(manifest: Option<&Manifest>, name: &str, file: &Path, bytes: &[u8]) -> Result<()> {
    let Some(manifest) = manifest else { return Ok(()) };
    match manifest.files.get(name) {
        Some(expected) if *expected == files::sha256(bytes) => Ok(()),
        Some(_) => Err(Error::damaged(file, "not as it was written: its SHA-256 is another")),
        None => Err(Error::damaged(file, format!("{MANIFEST} does not list it"))),
    }
}

/// Reads the tensors and metadata of the weights in the checkpoint folder `path`, and checks their
/// digest.
///
/// # Errors
/// Those of [`load`].
pub fn weights(path: &Path) -> Result<files::Loaded> {
    let (file, bytes) = read(path, MODEL, manifest(path)?.as_ref())?;
    files::parse_safetensors(&file, &bytes)
}

#[cfg(test)]
mod tests;
