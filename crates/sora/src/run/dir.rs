//! The paths of a run folder, its lock, and its creation.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{RunConfig, checkpoint};
use crate::{
    error::{Error, Result},
    files, sealed,
};

/// Name of the file that is locked by the process that trains in the folder.
const LOCK: &str = "lock";

/// Folders of a run to which others than its training write.
const FOLDERS: [&str; 4] = ["eval", "plots", "csv", "export"];

/// A run folder: every path in it is a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The folder `path`, whatever it holds.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Opens the folder `path` of an existing run, and its config.toml.
    ///
    /// # Errors
    /// [`Error`] if it has no config.toml, or a damaged one.
    pub fn open(path: &Path) -> Result<(Self, RunConfig)> {
        let dir = Self::at(path);
        let file = dir.config();
        let text = fs::read_to_string(&file).map_err(|e| Error::NotARun {
            path: path.to_owned(),
            problem: format!("cannot read its config.toml ({e})"),
        })?;
        let config = RunConfig::parse(&text, &file)?;
        Ok((dir, config))
    }

    /// Makes the folder of a new run, locks it as [`lock`](Self::lock) does, and writes its
    /// config.toml.
    ///
    /// # Errors
    /// [`Error`] for a folder that already holds files, that another process has begun to train in,
    /// or that cannot be written.
    pub fn create(
        path: &Path,
        config: &RunConfig,
        told: &mut dyn FnMut(&str),
    ) -> Result<(Self, fs::File)> {
        let dir = Self::at(path);
        dir.check_free()?;
        let cannot =
            |e| Error::setting("out", path.display(), format!("cannot make the folder: {e}"));
        fs::create_dir_all(dir.checkpoints()).map_err(cannot)?;
        let lock = dir.lock(told)?;
        // Another process may have begun a run before the lock was taken.
        dir.check_free()?;
        dir.write_config(config)?;
        Ok((dir, lock))
    }

    /// Refuses a folder that a new run cannot use. What a process has left that was killed before it
    /// wrote config.toml does not count.
    ///
    /// # Errors
    /// [`Error`] for a folder that holds files, or a path that is not a folder.
    pub fn check_free(&self) -> Result<()> {
        let out = |problem: String| Err(Error::setting("out", self.0.display(), problem));
        if self.config().exists() {
            return out("holds a run already; resume it or choose another folder".into());
        }
        match fs::read_dir(&self.0).and_then(|entries| self.only_begun(entries)) {
            Ok(false) => out("not empty; choose a new folder".into()),
            Err(e) if e.kind() != ErrorKind::NotFound => {
                out(format!("cannot use it as a folder: {e}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether `entries` of the folder are only what is made before config.toml.
    fn only_begun(&self, entries: fs::ReadDir) -> std::io::Result<bool> {
        for entry in entries {
            let path = entry?.path();
            let begun = if path == self.checkpoints() {
                fs::read_dir(&path)?.next().is_none()
            } else if path == self.0.join(LOCK) {
                fs::symlink_metadata(&path)?.len() == 0
            } else {
                files::is_unfinished(path.file_name().unwrap_or_default())
            };
            if !begun {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes config.toml.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write_config(&self, config: &RunConfig) -> Result<()> {
        files::write_atomic(&self.config(), config.to_text()?.as_bytes())
    }

    /// SHA-256 of config.toml, as stored in the manifests of checkpoints.
    ///
    /// # Errors
    /// [`Error`] for a file that cannot be read.
    pub fn config_digest(&self) -> Result<String> {
        let path = self.config();
        Ok(files::sha256(&fs::read(&path).map_err(|e| Error::read(&path, e))?))
    }

    /// Prepares the folder for a process that trains in it. No other process can train there while
    /// the returned file is open (a kill closes it); symbolic links are refused, and the unfinished
    /// files of killed processes are removed.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process trains in the folder; [`Error`] for a symbolic link
    /// among its files, or a folder that cannot be written.
    pub fn lock(&self, told: &mut dyn FnMut(&str)) -> Result<fs::File> {
        self.refuse_links()?;
        let path = self.0.join(LOCK);
        let file = fs::File::create(&path).map_err(|e| Error::io("make", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::InUse { path: self.0.clone() });
            }
            Err(fs::TryLockError::Error(e)) => told(&format!(
                "{}: this file system has no locks ({e}); see to it that no second process trains here",
                path.display()
            )),
        }
        files::remove_leftovers(&self.0)?;
        Ok(file)
    }

    /// A run folder that came from others must not make this program write to other places.
    fn refuse_links(&self) -> Result<()> {
        let entries = fs::read_dir(&self.0).map_err(|e| Error::read(&self.0, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::read(&self.0, e))?;
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                return Err(linked(&entry.path()));
            }
        }
        Ok(())
    }

    /// Refuses `folder` if it is a symbolic link among the folders of a run: whoever writes to one of
    /// them calls this first.
    ///
    /// # Errors
    /// [`Error`] for such a link.
    pub fn refuse_link(folder: &Path) -> Result<()> {
        let is_own = folder.file_name().is_some_and(|name| FOLDERS.iter().any(|own| name == *own));
        let is_link = || fs::symlink_metadata(folder).is_ok_and(|entry| entry.is_symlink());
        let in_a_run = || folder.parent().is_some_and(|parent| Self::open(parent).is_ok());
        if is_own && is_link() && in_a_run() { Err(linked(folder)) } else { Ok(()) }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its config.toml.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The log of steps, with one line per step.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The lines of steps that a rollback discarded.
    pub fn abandoned(&self) -> PathBuf {
        self.0.join("abandoned.jsonl")
    }

    /// The log of epochs, with one line per epoch.
    pub fn epochs(&self) -> PathBuf {
        self.0.join("epochs.jsonl")
    }

    /// Final weights.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The final weights of a finished run. Those of a run that goes on (it was extended) are of an
    /// earlier end, and its newest checkpoint counts. A folder that keeps neither final figures nor
    /// checkpoints has nothing else.
    pub fn final_weights(&self) -> Option<PathBuf> {
        let alone = || {
            checkpoint::list(&self.checkpoints()).is_ok_and(|checkpoints| checkpoints.is_empty())
        };
        let counts = self.model().exists() && (self.summary().exists() || alone());
        counts.then(|| self.model())
    }

    /// Weights of the best validation.
    pub fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// Final figures.
    pub fn summary(&self) -> PathBuf {
        self.0.join("summary.json")
    }

    /// Folder of the evaluations.
    pub fn evaluations(&self) -> PathBuf {
        self.0.join("eval")
    }

    /// Folder of the figures.
    pub fn plots(&self) -> PathBuf {
        self.0.join("plots")
    }

    /// Folder of the TensorBoard event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// Whether a training writes `path` and goes on from it, or from what it says; what was computed
    /// from a run does not count.
    pub fn consists_of(&self, path: &Path) -> bool {
        let logs = [self.metrics(), self.abandoned(), self.epochs(), self.summary()];
        let others = [self.config(), self.model(), self.best(), self.0.join(LOCK)];
        logs.iter().chain(&others).any(|own| own == path)
            || path.starts_with(self.checkpoints())
            || path.starts_with(self.tensorboard())
    }

    /// Writes an evaluation to `eval/NAME.json`.
    ///
    /// # Errors
    /// [`Error`] for a folder that cannot be written, or a symbolic link in the run folder.
    pub fn write_report(&self, name: &str, report: &impl Serialize) -> Result<PathBuf> {
        let dir = self.evaluations();
        Self::refuse_link(&dir)?;
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let path = dir.join(format!("{name}.json"));
        sealed::write(&path, report)?;
        Ok(path)
    }
}

fn linked(path: &Path) -> Error {
    let problem = "a symbolic link; a run is written only inside of its own folder: put the file \
                   itself here";
    Error::mismatch(path, problem)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_start_left_is_no_hindrance_and_anything_else_is() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let free = || RunDir::at(&run).check_free().is_ok();
        assert!(free());
        fs::create_dir_all(run.join("checkpoints")).unwrap();
        fs::write(run.join(".config.toml.7-0.sora-tmp"), "epo").unwrap();
        fs::write(run.join(LOCK), "").unwrap();
        assert!(free());
        for path in ["notes", "checkpoints/epoch-001"] {
            fs::write(run.join(path), "mine").unwrap();
            assert!(!free(), "{path}");
            fs::remove_file(run.join(path)).unwrap();
        }
        fs::write(run.join(LOCK), "mine").unwrap();
        assert!(!free());
    }

    #[test]
    fn a_link_in_a_received_folder_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let (run, mine) = (root.path().join("run"), root.path().join("mine"));
        fs::create_dir(&run).unwrap();
        fs::write(&mine, "precious").unwrap();
        for name in ["lock", "metrics.jsonl", "checkpoints", "tensorboard"] {
            let link = run.join(name);
            std::os::unix::fs::symlink(&mine, &link).unwrap();
            let error = RunDir::at(&run).lock(&mut |_| {}).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read(&mine).unwrap(), b"precious");
        let lock = RunDir::at(&run).lock(&mut |_| {}).unwrap();
        assert!(matches!(RunDir::at(&run).lock(&mut |_| {}), Err(Error::InUse { .. })));
        drop(lock);
    }

    #[test]
    fn results_are_not_written_through_a_link_in_a_run() {
        let root = tempfile::tempdir().unwrap();
        let (run, outside) = (root.path().join("run"), root.path().join("outside"));
        fs::create_dir(&run).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("eval")).unwrap();
        assert!(RunDir::refuse_link(&run.join("eval")).is_ok(), "no run");
        fs::write(run.join("config.toml"), "of = 'something else'").unwrap();
        assert!(RunDir::refuse_link(&run.join("eval")).is_ok(), "no run");
        let network = "[network]\nname = 'preact-resnet18'\nwidth = 4\nmean = [0.5]\nstd = [0.5]\n\
                       [network.shape]\nchannels = 1\nheight = 8\nwidth = 8\nclasses = 10\n";
        fs::write(run.join("config.toml"), network).unwrap();
        let error = RunDir::at(&run).write_report("report", &1).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(RunDir::refuse_link(&run.join("plots")).is_ok());
    }
}
