//! The run folder while a training writes to it: logs and checkpoints.

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
    /// Opens the logs of `dir` for what follows the checkpoint `found`.
    ///
    /// # Errors
    /// A file that cannot be opened or cut off.
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

    /// The newest checkpoint: all its values are finite.
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
    /// Opens a log for appending after its first `bytes`; what lies beyond was written after the
    /// checkpoint that the run goes on from. A log that is shorter has lost lines: that is said, and
    /// costs nothing else.
    fn open(path: PathBuf, bytes: u64, told: &mut dyn FnMut(&str)) -> Result<Self> {
        let cannot = |e| Error::io("open", &path, e);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        if len > bytes {
            file.set_len(bytes).map_err(cannot)?;
        } else if len < bytes {
            told(&format!(
                "{}: {len} bytes, and {bytes} when the checkpoint was written: the lines between are lost, the run goes on",
                path.display()
            ));
            file.set_len(whole_lines(&path)?).map_err(cannot)?;
        }
        Ok(Self { path, file })
    }

    /// Writes `line` at the end.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec(line)
            .map_err(|e| Error::defect(format!("cannot serialise a log line: {e}")))?;
        json.push(b'\n');
        self.file.write_all(&json).map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Waits until everything is on disk, and gives the length.
    fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.file.metadata().map_err(|e| Error::io("look at", &self.path, e))?.len())
    }

    /// Forgets what follows the first `bytes`.
    ///
    /// # Errors
    /// A file that cannot be cut off.
    pub(super) fn cut(&mut self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(|e| Error::io("cut off", &self.path, e))
    }

    /// What follows the first `bytes`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn after(&self, bytes: u64) -> Result<Vec<u8>> {
        let lines = fs::read(&self.path).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(lines.get(bytes as usize..).unwrap_or_default().to_vec())
    }
}

/// Length of the lines of `path` that end.
fn whole_lines(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end as u64 + 1))
}

impl Session<'_> {
    /// Writes a checkpoint of where the run stands; a training in memory has none.
    ///
    /// # Errors
    /// [`Error::Diverged`] where a value is not finite; a disk that is full.
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

    /// The newest checkpoint of at most `step` steps that every run with these settings writes,
    /// whether or not it was interrupted.
    ///
    /// # Errors
    /// A folder that cannot be read.
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

    /// Whether a rollback that may still come could go back to a checkpoint.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn needed(&self) -> Result<impl Fn(&Path) -> bool + use<>> {
        let (now, steps_per_epoch) = (self.progress.step, self.steps_per_epoch);
        let guarded = self.config.on_co == OnCo::Rollback && self.progress.rollback.is_none();
        // The detector's safe points either stay or jump to within a window of the present.
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

    /// What the weights say about themselves: after a rollback, both methods.
    pub(super) fn about(&self) -> About {
        let mut about = About::of_run(self.config, self.plan, self.progress.step);
        if let Some(Rollback { to_step, from_method, method, .. }) = &self.progress.rollback {
            about.method = format!("{from_method}, from step {to_step} {method}");
        }
        about
    }
}

/// Whether a checkpoint that was written with the settings `then` is one of the run that now has
/// `now`: all but the number of epochs is the same, and that only where the run was extended.
pub(super) fn same_settings(found: &Checkpoint, digest: &str, config: &RunConfig) -> Result<()> {
    let problem = match &found.manifest {
        Some(manifest) => {
            let same = manifest.config.as_deref() == Some(digest);
            if same || !config.extended.is_empty() {
                return Ok(());
            }
            "written with another config.toml than the run has now"
        }
        // Runs whose settings carry a digest have written a manifest with every checkpoint.
        None if config.sealed => "its MANIFEST.json is missing",
        None => return Ok(()),
    };
    Err(Error::mismatch(&found.path, problem))
}

/// Settings that a run may be extended with.
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
