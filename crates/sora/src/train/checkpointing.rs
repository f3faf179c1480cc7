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
    files::{self, Digest},
    run::{
        About, RunConfig, RunDir,
        checkpoint::{self, Checkpoint, Content, State},
        digests::{LogDigests, changed_line},
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
    /// SHA-256 of abandoned.jsonl, where there is one.
    abandoned: Option<String>,
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
        let logs = found.and_then(|c| c.manifest.as_ref()).map(|manifest| &manifest.logs);
        let sum = |path: &Path| logs.and_then(|logs| logs.get(&name_of(path))).map(String::as_str);
        let mut open = |path: PathBuf, bytes| {
            let sum = sum(&path);
            Log::open(path, bytes, sum, told)
        };
        let (metrics, epochs) = (open(dir.metrics(), metrics)?, open(dir.epochs(), epochs)?);
        let abandoned = fs::read(dir.abandoned()).ok().map(|lines| files::sha256(&lines));
        if sum(&dir.abandoned()).is_some_and(|sum| Some(sum) != abandoned.as_deref()) {
            told(&changed_line(&name_of(&dir.abandoned())));
        }
        Ok(Self { digest, metrics, epochs, abandoned, dir, _lock: lock })
    }

    /// Waits until the logs are on disk, and returns the lengths in bytes of metrics.jsonl and
    /// epochs.jsonl, and the digests of all.
    ///
    /// # Errors
    /// [`Error::Io`] for a disk that fails.
    pub(super) fn sync(&mut self) -> Result<([u64; 2], LogDigests)> {
        let abandoned = self.abandoned.clone().map(|sum| (name_of(&self.dir.abandoned()), sum));
        let (metrics, epochs) = (self.metrics.sync()?, self.epochs.sync()?);
        let named = |log: &Log, sum| (name_of(&log.path), sum);
        let logs = [named(&self.metrics, metrics.1), named(&self.epochs, epochs.1)];
        Ok(([metrics.0, epochs.0], logs.into_iter().chain(abandoned).collect()))
    }

    /// Writes abandoned.jsonl.
    ///
    /// # Errors
    /// [`Error::Io`] for a folder that cannot be written.
    pub(super) fn abandon(&mut self, lines: &[u8]) -> Result<()> {
        files::write_atomic(&self.dir.abandoned(), lines)?;
        self.abandoned = Some(files::sha256(lines));
        Ok(())
    }

    /// The newest checkpoint, whose values are all finite.
    pub(super) fn newest_checkpoint(&self) -> Option<PathBuf> {
        checkpoint::list(&self.dir.checkpoints()).ok()?.pop()
    }
}

/// The file name of `path`, as text.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file of JSON lines that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Of the whole file so far.
    digest: Digest,
}

impl Log {
    /// Opens a log for appending after its first `bytes`; the rest was written after the checkpoint
    /// from which the run continues, and is removed. A log that is shorter has lost lines; a
    /// message says so, as of one whose digest is not `sum`, and the run goes on.
    fn open(
        path: PathBuf,
        bytes: u64,
        sum: Option<&str>,
        told: &mut dyn FnMut(&str),
    ) -> Result<Self> {
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
        let digest = digest_of(&path)?;
        if len >= bytes && sum.is_some_and(|sum| sum != digest.text()) {
            told(&changed_line(&name_of(&path)));
        }
        Ok(Self { path, file, digest })
    }

    /// Writes `line` at the end.
    ///
    /// # Errors
    /// [`Error::Io`] for a disk that is full.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec(line)
            .map_err(|e| Error::defect(format!("cannot serialise a log line: {e}")))?;
        json.push(b'\n');
        self.file.write_all(&json).map_err(|e| Error::io("append to", &self.path, e))?;
        self.digest.add(&json);
        Ok(())
    }

    /// Waits until everything is on disk, and returns the length in bytes and the SHA-256.
    fn sync(&mut self) -> Result<(u64, String)> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))?;
        let found = self.file.metadata().map_err(|e| Error::io("look at", &self.path, e))?;
        Ok((found.len(), self.digest.text()))
    }

    /// Removes everything after the first `bytes`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be truncated.
    pub(super) fn cut(&mut self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(|e| Error::io("cut off", &self.path, e))?;
        self.digest = digest_of(&self.path)?;
        Ok(())
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

/// The digest of the file `path`.
fn digest_of(path: &Path) -> Result<Digest> {
    let mut digest = Digest::default();
    digest.add(&fs::read(path).map_err(|e| Error::io("read", path, e))?);
    Ok(digest)
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
        if !self.in_folder {
            return Ok(());
        }
        // Every rank has a part in what a method keeps.
        let state = self.ranks.enter(|| self.learner.state())??;
        self.check_agreement(&state)?;
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let (bytes, logs) = folder.sync()?;
        [self.progress.metrics_bytes, self.progress.epochs_bytes] = bytes;
        let (dir, config) = (folder.dir.checkpoints(), folder.digest.clone());
        let needed = self.needed()?;
        let metadata = self.about().metadata()?;
        let content = Content {
            progress: &self.progress,
            state: &state,
            metadata: &metadata,
            config: &config,
            logs: &logs,
        };
        let path = checkpoint::save(&dir, content, self.config.keep, needed)?;
        self.tell(&Event::Checkpoint(&path))
    }

    /// Refuses to keep what the ranks do not agree on.
    fn check_agreement(&self, state: &State) -> Result<()> {
        if self.ranks.world() == 1 {
            return Ok(());
        }
        let all = self.ranks.link().gather_each(files::digest(&state.model).as_bytes())?;
        match all.iter().position(|digest| *digest != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Ranks(format!(
                "processes 0 and {rank} have different weights after step {}: one of the \
                 machines computes wrongly, or they are not alike; nothing was written",
                self.progress.step
            ))),
        }
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
            if same || !config.extended.is_empty() || !config.worlds.is_empty() {
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
            |bytes| Log::open(path.clone(), bytes, None, &mut |line| lines.push(line.to_owned()));
        let mut log = open(5).unwrap();
        log.append(&4).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n22\n4\n", "cut after the checkpoint");
        fs::write(&path, "1\n2").unwrap();
        let mut log = open(5).unwrap();
        log.append(&5).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n5\n");
        assert!(lines.len() == 1 && lines[0].contains("are lost"), "{lines:?}");
    }

    #[test]
    fn the_digest_of_a_log_is_that_of_its_bytes_and_another_is_said() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("epochs.jsonl");
        fs::write(&path, "1\n22\n").unwrap();
        let mut lines = Vec::new();
        let mut open = |sum: &str| {
            Log::open(path.clone(), 5, Some(sum), &mut |line| lines.push(line.to_owned())).unwrap()
        };
        let sum = files::sha256(b"1\n22\n");
        let mut log = open(&sum);
        log.append(&333).unwrap();
        assert_eq!(log.sync().unwrap(), (9, files::sha256(b"1\n22\n333\n")));
        log.cut(5).unwrap();
        log.append(&4).unwrap();
        assert_eq!(log.sync().unwrap(), (7, files::sha256(b"1\n22\n4\n")));
        fs::write(&path, "1\n23\n").unwrap();
        open(&sum);
        assert!(lines.len() == 1 && lines[0].contains("epochs.jsonl was changed"), "{lines:?}");
    }
}
