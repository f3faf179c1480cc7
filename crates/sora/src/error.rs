//! The errors of this crate, as one enum that a caller can match on.
//!
//! A message is one line: what is wrong, where, what was expected, what to do. It names a setting
//! by its field ([`Setting`](Error::Setting), or in backticks inside a sentence: `` `val` ``); a
//! program with flags turns such a name into its own name for the setting. No message names a flag.

use std::{
    borrow::Cow,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::diagnose::CoEvent;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of a failure: the input, or the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The call or its input is wrong.
    Input,
    /// The work failed: a disk, a device, a training that diverged.
    Work,
    /// The work was interrupted and its state is saved.
    Interrupted,
}

/// An error of training, evaluation, or their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is in no registry.
    #[error("unknown {kind} '{name}'{}", hint(name, known))]
    UnknownName {
        /// The kind of the name: `method`, `network`, `attack`, `device`, `recipe`, ...
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that the registry holds.
        known: Vec<String>,
    },
    /// A setting has a value that is not possible.
    #[error("{setting}{}: {problem}", spaced(value))]
    Setting {
        /// The setting: a field of [`TrainConfig`](crate::config::TrainConfig), or of the options
        /// struct that the call takes.
        setting: Cow<'static, str>,
        /// Its value; empty where no value can be shown.
        value: String,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// Parts of the input that do not fit each other, or something that is not supported.
    #[error("{subject}: {problem}")]
    Unfit {
        /// The part that does not fit.
        subject: String,
        /// The reason, and what would fit.
        problem: String,
    },
    /// An input file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file operation failed during the work.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that failed: `write`, `rename into place`, ...
        action: Cow<'static, str>,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bytes of a file are not those that its writer wrote, or not of the expected format.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A whole file is not the one that is needed, such as the weights of another network.
    #[error("{}: {problem}", path.display())]
    Mismatch {
        /// The file or folder.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A setting that stands in a file is wrong. `source` names it by its key there.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A folder is not a run folder.
    #[error("{}: not a run folder: {problem}; expected a folder that a training made", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// Another process works in the folder.
    #[error("{}: another process is training in this folder; wait for it or stop it first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The work needs more memory than the machine has left.
    #[error("{subject} takes about {} MiB, and {} MiB are free; {advice}", mib(*needed), mib(*free))]
    Memory {
        /// The thing that takes the memory.
        subject: String,
        /// Number of bytes that it takes.
        needed: u64,
        /// Number of bytes that are free.
        free: u64,
        /// What to do.
        advice: String,
    },
    /// A figure or a weight of the training is not finite.
    #[error("training has diverged: {figure} is not finite at step {step}; try a smaller `lr_max`. \
             {}", last(last_good.as_deref()))]
    Diverged {
        /// The step.
        step: u64,
        /// The name of the figure or of the tensor.
        figure: String,
        /// The newest checkpoint, whose values are all finite.
        last_good: Option<PathBuf>,
    },
    /// Training stopped on request; its state is saved.
    #[error("interrupted after step {step}{}", saved(run.as_deref()))]
    Interrupted {
        /// Number of completed steps.
        step: u64,
        /// The run folder with the checkpoint; `None` for a training in memory.
        run: Option<PathBuf>,
    },
    /// Training stopped because of catastrophic overfitting, as its settings ask.
    #[error("{event}; stopped as `on_co` asks{}", saved(run.as_deref()))]
    CoStopped {
        /// The event that was noticed.
        event: Box<CoEvent>,
        /// The run folder with the checkpoint; `None` for a training in memory.
        run: Option<PathBuf>,
    },
    /// An error of a data set.
    #[error(transparent)]
    Data(#[from] sora_data::DataError),
    /// An error of a figure.
    #[error(transparent)]
    Plot(#[from] sora_plot::Error),
    /// An error of an evaluation.
    #[error(transparent)]
    Evaluation(robustness::Error),
    /// An ONNX file that cannot be trained.
    #[error(transparent)]
    Onnx(#[from] sora_onnx::Error),
    /// Another process of a training that several share.
    #[error("{0}")]
    Ranks(String),
    /// The engine or a device failed.
    #[error("{0}")]
    Device(String),
    /// An error that only a defect of the program can cause.
    #[error("{0}; this is a defect of the program, please report it")]
    Defect(String),
}

impl Error {
    /// Whether the input or the work caused the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. }
            | Self::Diverged { .. }
            | Self::CoStopped { .. }
            | Self::Device(_)
            | Self::Ranks(_)
            | Self::Defect(_) => ErrorKind::Work,
            Self::Interrupted { .. } => ErrorKind::Interrupted,
            Self::InFile { source, .. } => source.kind(),
            Self::Data(e) if !e.is_input() => ErrorKind::Work,
            Self::Plot(e) if !e.is_input() => ErrorKind::Work,
            Self::Evaluation(e) if !e.is_input() => ErrorKind::Work,
            _ => ErrorKind::Input,
        }
    }

    /// The error for a wrong `value` of `setting`; `problem` says what is expected.
    pub fn setting(
        setting: impl Into<Cow<'static, str>>,
        value: impl ToString,
        problem: impl Into<String>,
    ) -> Self {
        Self::Setting { setting: setting.into(), value: value.to_string(), problem: problem.into() }
    }

    /// The error for a `kind` called `name` that is not among `known`.
    pub fn unknown<S: Into<String>>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = S>,
    ) -> Self {
        let known = known.into_iter().map(Into::into).collect();
        Self::UnknownName { kind, name: name.into(), known }
    }

    /// The error for a `subject` that does not fit; `problem` says why.
    pub fn unfit(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unfit { subject: subject.into(), problem: problem.into() }
    }

    /// The error for an input file that cannot be read.
    pub fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.into(), source }
    }

    /// The error for a failed file operation: `action` names the operation on `path`.
    pub fn io(action: impl Into<Cow<'static, str>>, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action: action.into(), path: path.into(), source }
    }

    /// The error for a file whose content was changed after it was written.
    pub fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), problem: problem.into() }
    }

    /// The error for a whole file that is not the one that is needed.
    pub fn mismatch(path: &Path, problem: impl Into<String>) -> Self {
        Self::Mismatch { path: path.into(), problem: problem.into() }
    }

    /// A wrong value or name of a setting becomes one that stands in `file`; other errors stay.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Setting { .. } | Self::UnknownName { .. } => {
                Self::InFile { path: file.into(), source: Box::new(self) }
            }
            other => other,
        }
    }

    /// The error for a state that only a defect of the program can cause.
    pub fn defect(message: impl Into<String>) -> Self {
        Self::Defect(message.into())
    }
}

fn spaced(value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(" {value}") }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn last(path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("The last good checkpoint is {}", path.display()),
        None => "No checkpoint was written before".into(),
    }
}

fn saved(run: Option<&Path>) -> String {
    run.map_or_else(String::new, |run| format!("; a checkpoint is in {}", run.display()))
}

/// The known names that are similar to `name`, or all known names if they are few.
fn hint(name: &str, known: &[String]) -> String {
    const FEW: usize = 12;
    let near = nearest(name, known);
    let mut text = String::new();
    if !near.is_empty() {
        let _ = write!(text, "; did you mean {}?", near.join(" or "));
    } else if known.len() <= FEW {
        let _ = write!(text, "; expected one of {}", known.join(", "));
    } else {
        let _ =
            write!(text, "; there are {} of them, such as {}", known.len(), known[..3].join(", "));
    }
    text
}

/// At most three of `known` that are similar to `name`, the most similar first.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Vec<&'a str> {
    const ALIKE: f64 = 0.8;
    let wanted = name.to_lowercase();
    let mut scored: Vec<_> = known
        .iter()
        .map(|known| (likeness(&wanted, &known.to_lowercase()), known.as_str()))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, known)| known).collect()
}

/// Similarity from 0 to 1; a name that begins or ends with the wanted one counts as similar.
fn likeness(wanted: &str, known: &str) -> f64 {
    let part = wanted.len() >= 3 && (known.starts_with(wanted) || known.ends_with(wanted));
    // Two letters that changed places, or one that is wrong, in a short name.
    let slip = wanted.len() >= 3 && strsim::osa_distance(wanted, known) == 1;
    strsim::jaro_winkler(wanted, known).max(if part || slip { 0.85 } else { 0.0 })
}

impl From<robustness::Error> for Error {
    fn from(e: robustness::Error) -> Self {
        match e {
            robustness::Error::UnknownAttack { name, known } => {
                Self::UnknownName { kind: "attack", name, known }
            }
            // An error of this crate's own network or data set is unwrapped.
            robustness::Error::Classifier(inner) | robustness::Error::Samples(inner) => inner
                .downcast::<Self>()
                .map_or_else(|other| Self::Device(other.to_string()), |e| *e),
            e => Self::Evaluation(e),
        }
    }
}

impl From<Error> for robustness::Error {
    fn from(e: Error) -> Self {
        Self::classifier(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_ones() {
        let known = ["sora", "fgsm", "n-fgsm", "pgd"];
        let text = Error::unknown("method", "sorra", known).to_string();
        assert_eq!(text, "unknown method 'sorra'; did you mean sora?");
        let text = Error::unknown("method", "xyz", known).to_string();
        assert!(text.ends_with("expected one of sora, fgsm, n-fgsm, pgd"), "{text}");
    }

    #[test]
    fn the_kind_follows_the_cause() {
        let io = |kind| std::io::Error::from(kind);
        let path = Path::new("x");
        assert_eq!(Error::read(path, io(std::io::ErrorKind::NotFound)).kind(), ErrorKind::Input);
        assert_eq!(
            Error::io("write", path, io(std::io::ErrorKind::StorageFull)).kind(),
            ErrorKind::Work
        );
        assert_eq!(Error::Interrupted { step: 1, run: None }.kind(), ErrorKind::Interrupted);
        assert_eq!(
            Error::setting("epochs", 0, "expected 1 or more").to_string(),
            "epochs 0: expected 1 or more"
        );
    }
}
