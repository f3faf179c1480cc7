//! The logs and checkpoints of a run folder during a training.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Event, Session};
use crate::{
    config::{OnCo, TrainConfig},
    diagnose,
    error::{Error, Result},
    run::{
        About, RunConfig, RunDir,
        checkpoint::{self, Checkpoint, Content},
        log::Rollback,
    },
};

/// A run folder that this process trains in.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: RunDir,
    /// SHA-256 of its config.toml.
    pub(super) digest: String,
    pub(super) metrics: Log,
    pub(super) epochs: Log,
    _lock: File,
}

impl Folder {
    /// Opens the logs of `dir` at the position of the checkpoint `found`.
    ///
    /// # Errors
    /// [`Error`] for a file that cannot be opened or truncated.
    pub(super) fn open(
        dir: RunDir,
        digest: String,
        lock: File,
        found: Option<&Checkpoint>,
        told: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let (metrics, epochs) =
            found.map_or((0, 0), |c| (c.progress.metrics_bytes, c.progress.epochs_bytes));
        Ok(Self {
            digest,
            metrics: Log::open(dir.metrics(), metrics, told)?,
            epochs: Log::open(dir.epochs(), epochs, told)?,
            dir,
            _lock: lock,
        })
    }

    /// The newest checkpoint, whose values are all finite.
    pub(super) fn newest_checkpoint(&self) -> Option<PathBuf> {
        checkpoint::list(&self.dir.checkpoints()).ok()?.pop()
    }
}

/// A file of JSON lines that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a log for appending after its first `bytes`; the rest was written after the checkpoint
    /// from which the run continues, and is removed. A log that is shorter has lost lines; a
    /// message says so, and the run goes on.
    fn open(path: PathBuf, bytes: u64, told: &mut dyn FnMut(&str)) -> Result<Self> {
        let cannot = |e| Error::io("open", &path, e);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        if len > bytes {
            file.set_len(bytes).map_err(cannot)?;
        } else if len < bytes {
            told(&format!(
                "{}: {len} bytes, and {bytes} when the checkpoint was written: the lines between \
                 are lost, the run goes on",
                path.display()
            ));
            file.set_len(whole_lines(&path)?).map_err(cannot)?;
        }
        Ok(Self { path, file })
    }

    /// Writes `line` at the end.
    ///
    /// # Errors
    /// [`Error::Io`] for a disk that is full.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec(line)
            .map_err(|e| Error::defect(format!("cannot serialise a log line: {e}")))?;
        json.push(b'\n');
        self.file.write_all(&json).map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Waits until everything is on disk, and returns the length in bytes.
    fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.file.metadata().map_err(|e| Error::io("look at", &self.path, e))?.len())
    }

    /// Removes everything after the first `bytes`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be truncated.
    pub(super) fn cut(&mut self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(|e| Error::io("cut off", &self.path, e))
    }

    /// Reads everything after the first `bytes`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub(super) fn after(&self, bytes: u64) -> Result<Vec<u8>> {
        let lines = fs::read(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(lines.get(bytes as usize..).unwrap_or_default().to_vec())
    }
}

/// Length in bytes of the complete lines of `path`.
fn whole_lines(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end as u64 + 1))
}

impl Session<'_> {
    /// Writes a checkpoint of the current position; a training in memory writes none.
    ///
    /// # Errors
    /// [`Error::Diverged`] where a value is not finite; [`Error::Io`] for a disk that is full.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        self.progress.metrics_bytes = folder.metrics.sync()?;
        self.progress.epochs_bytes = folder.epochs.sync()?;
        let (dir, config) = (folder.dir.checkpoints(), folder.digest.clone());
        let state = self.learner.state()?;
        let needed = self.needed()?;
        let metadata = self.about().metadata()?;
        let content = Content {
            progress: &self.progress,
            state: &state,
            metadata: &metadata,
            config: &config,
        };
        let path = checkpoint::save(&dir, content, self.config.keep, needed)?;
        self.tell(&Event::Checkpoint(&path))
    }

    /// The newest checkpoint of at most `step` steps among those that every run with these settings
    /// writes, whether or not it was interrupted.
    ///
    /// # Errors
    /// [`Error`] for a folder that cannot be read.
    pub(super) fn regular_checkpoint(&self, step: u64) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        Ok(checkpoint::list(&folder.dir.checkpoints())?.into_iter().rev().find(|path| {
            checkpoint::step(path, self.steps_per_epoch)
                .is_some_and(|at| at <= step && self.is_regular(at))
        }))
    }

    fn is_regular(&self, step: u64) -> bool {
        let due = |every: u64| step / every > step.saturating_sub(self.updates) / every;
        step.is_multiple_of(self.steps_per_epoch.max(1))
            || self.config.checkpoint_steps.is_some_and(due)
    }

    /// Returns the test whether a later rollback could return to a checkpoint.
    ///
    /// # Errors
    /// [`Error`] for a folder that cannot be read.
    pub(super) fn needed(&self) -> Result<impl Fn(&Path) -> bool + use<>> {
        let (now, steps_per_epoch) = (self.progress.step, self.steps_per_epoch);
        let guarded = self.config.on_co == OnCo::Rollback && self.progress.rollback.is_none();
        // The detector's safe points either stay or move to within a window of the present step.
        let recent = now.saturating_sub(diagnose::WINDOW as u64);
        let mut kept = Vec::new();
        if guarded {
            for step in self.progress.co.safe_points().into_iter().chain([recent]) {
                kept.extend(self.regular_checkpoint(step)?);
            }
        }
        Ok(move |path: &Path| {
            guarded
                && (kept.iter().any(|kept| kept == path)
                    || checkpoint::step(path, steps_per_epoch).is_some_and(|step| step > recent))
        })
    }

    /// The description of the weights; after a rollback it names both methods.
    pub(super) fn about(&self) -> About {
        let mut about = About::of_run(self.config, self.plan, self.progress.step);
        if let Some(Rollback { to_step, from_method, method, .. }) = &self.progress.rollback {
            about.method = format!("{from_method}, from step {to_step} {method}");
        }
        about
    }
}

/// Checks that a checkpoint was written by this run: all settings are the same, except the number
/// of epochs if the run was extended.
pub(super) fn same_settings(found: &Checkpoint, digest: &str, config: &RunConfig) -> Result<()> {
    let problem = match &found.manifest {
        Some(manifest) => {
            let same = manifest.config.as_deref() == Some(digest);
            if same || !config.extended.is_empty() {
                return Ok(());
            }
            "written with another config.toml than the run has now"
        }
        // A run whose config.toml has a digest has written a manifest with every checkpoint.
        None if config.sealed => "its MANIFEST.json is missing",
        None => return Ok(()),
    };
    Err(Error::mismatch(&found.path, problem))
}

/// Extends a run to `epochs` epochs in its settings.
pub(super) fn extend(config: &mut RunConfig, epochs: u64, done: u64) -> Result<()> {
    let before = config.settings.epochs;
    if epochs == before {
        return Ok(());
    }
    if epochs < before || epochs <= done {
        let problem = format!("the run has {before}, of which {done} are done; expected more");
        return Err(Error::setting("epochs", epochs, problem));
    }
    config.extended.push(before);
    config.settings = TrainConfig { epochs, ..config.settings.clone() };
    config.settings.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_lost_lines_is_said_and_goes_on_with_whole_ones() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("metrics.jsonl");
        fs::write(&path, "1\n22\n333\n").unwrap();
        let mut lines = Vec::new();
        let mut open =
            |bytes| Log::open(path.clone(), bytes, &mut |line| lines.push(line.to_owned()));
        let mut log = open(5).unwrap();
        log.append(&4).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n22\n4\n", "cut after the checkpoint");
        fs::write(&path, "1\n2").unwrap();
        let mut log = open(5).unwrap();
        log.append(&5).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n5\n");
        assert!(lines.len() == 1 && lines[0].contains("are lost"), "{lines:?}");
    }
}
