//! The one error type of this crate. Every message is a single line that says what was wrong,
//! where, what was expected, and what to do about it. A message names an option by its field in
//! backticks (`` `image_size` ``); a program may put its own name of the option in that place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::text::{nearest, one_line, shown};

/// Shorthand for results of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// An error about a data set. `Display` is always one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// An option has a value outside its range.
    #[error("wrong {what}: {found}; expected {expected}")]
    Value {
        /// The option, in words.
        what: String,
        /// The value given.
        found: String,
        /// The values that are allowed.
        expected: String,
    },

    /// The name is not registered and no folder of that name exists.
    #[error("unknown data set '{name}'; {}", instead(name, known))]
    Unknown {
        /// The name given.
        name: String,
        /// The registered names.
        known: Vec<String>,
    },

    /// The set is known and readable, but its files are not on this machine.
    #[error("data set '{name}' is not here: {file} is in none of {looked}; {get}")]
    Missing {
        /// Registered name.
        name: String,
        /// The first file not found.
        file: String,
        /// Folders searched, comma separated.
        looked: String,
        /// How to get the file.
        get: Fix,
    },

    /// A file or folder does not have the expected content.
    #[error("{}: found {found}; expected {expected}; {fix}", shown(path))]
    Bad {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
        /// How to repair it.
        fix: Fix,
    },

    /// The operating system refused an operation.
    #[error("cannot {doing} {}: {source}; {}", shown(path), io_hint(source))]
    Io {
        /// A verb: `read`, `write`, ...
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A download failed after all its attempts.
    #[error("cannot fetch {url}: {reason}; {fix}")]
    Fetch {
        /// The full address.
        url: String,
        /// What happened.
        reason: String,
        /// What to do.
        fix: String,
    },

    /// Neither an option, nor the environment, nor the system names a folder for data sets.
    #[error(
        "no data folder: there is no home folder; give `data_dir`, or set the environment variable SORA_DATA"
    )]
    NoDataFolder,

    /// This build of the crate lacks a feature that the call needs.
    #[error("{needed} needs the feature `{feature}`, which this build of sora-robust-data lacks")]
    Feature {
        /// The feature's name.
        feature: &'static str,
        /// What was asked for, in words.
        needed: String,
    },

    /// The call needs more memory than the machine has.
    #[error("{what} takes {} of memory; this machine has {}; {fix}", mib(*needed), mib(*limit))]
    Memory {
        /// What the memory is for, in words.
        what: String,
        /// Number of bytes that are needed.
        needed: u64,
        /// Number of bytes that the machine has.
        limit: u64,
        /// What to do.
        fix: String,
    },

    /// The loader's background thread died; the epoch is incomplete.
    #[error(
        "the batch loader stopped after {done} of {total} batches; this is a defect of the \
         program, please report it"
    )]
    Loader {
        /// Batches delivered.
        done: usize,
        /// Batches expected.
        total: usize,
    },
}

/// What to do about an error: words, and the remedy that a program could offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix(Box<Advice>);

/// The advice lies behind a pointer, which keeps the errors small.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Advice {
    words: String,
    remedy: Option<Remedy>,
}

/// A remedy that a program can offer with a command of its own; this crate's messages describe it
/// in words only. See [`DataError::remedy`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Download the registered set: [`fetch`](crate::fetch()).
    Fetch {
        /// The registered name.
        name: String,
    },
}

impl Fix {
    pub(crate) fn new(words: impl Into<String>, remedy: Option<Remedy>) -> Self {
        Self(Box::new(Advice { words: words.into(), remedy }))
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.words)
    }
}

impl From<&str> for Fix {
    fn from(words: &str) -> Self {
        Self::new(words, None)
    }
}

impl From<&Self> for Fix {
    fn from(fix: &Self) -> Self {
        fix.clone()
    }
}

impl From<String> for Fix {
    fn from(words: String) -> Self {
        Self::new(words, None)
    }
}

impl DataError {
    /// Whether the call or its input is at fault, rather than the work itself (network, disk, a
    /// defect).
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotADirectory
                )
            }
            Self::Fetch { .. } | Self::Loader { .. } => false,
            _ => true,
        }
    }

    /// The remedy that a program can offer with a command of its own, if there is one.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Missing { get: fix, .. } | Self::Bad { fix, .. } => fix.0.remedy.clone(),
            _ => None,
        }
    }

    pub(crate) fn value(
        what: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value {
            what: what.into(),
            found: one_line(&found.to_string()),
            expected: expected.into(),
        }
    }

    pub(crate) fn bad(
        path: impl Into<PathBuf>,
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<Fix>,
    ) -> Self {
        let found: String = found.into();
        Self::Bad {
            path: path.into(),
            found: one_line(&found),
            expected: expected.into(),
            fix: fix.into(),
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another `data_dir`"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose another `data_dir`",
        _ => "check the path and the disk",
    }
}

/// Names that an unknown name could have meant.
fn instead(name: &str, known: &[String]) -> String {
    let own = "folder:PATH, or an existing folder with train/ and test/";
    match nearest(name, known) {
        Some(near) => format!("did you mean '{near}'? A set of your own is named {own}"),
        None => format!("expected one of {}, {own}", known.join(", ")),
    }
}

fn mib(bytes: u64) -> String {
    if bytes >= 10 << 30 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_in_a_file_name_stays_on_one_line() {
        let error = DataError::bad("a\nb", "x\r\ny", "z", "do");
        assert_eq!(error.to_string(), "a\\nb: found x\\r\\ny; expected z; do");
    }

    #[test]
    fn exit_status_follows_the_cause() {
        let full = DataError::io("write", "x")(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!full.is_input());
        assert!(full.to_string().contains("free some space"));
        assert!(DataError::io("read", "x")(io::Error::from(io::ErrorKind::NotFound)).is_input());
        assert!(DataError::value("batch size", 0, "1 or more").is_input());
    }

    #[test]
    fn remedies_are_told_apart_from_words() {
        let fix = Fix::new("download it", Some(Remedy::Fetch { name: "mnist".into() }));
        let bad = DataError::bad("x", "y", "z", fix);
        assert_eq!(bad.to_string(), "x: found y; expected z; download it");
        assert_eq!(bad.remedy(), Some(Remedy::Fetch { name: "mnist".into() }));
        assert_eq!(DataError::value("a", 1, "2").remedy(), None);
    }

    #[test]
    fn a_name_that_is_nearly_right_is_not_answered_with_the_whole_list() {
        let known = vec!["cifar10".to_owned(), "svhn".into()];
        let message =
            |name: &str| DataError::Unknown { name: name.into(), known: known.clone() }.to_string();
        assert!(
            message("cifar-10").starts_with("unknown data set 'cifar-10'; did you mean 'cifar10'?")
        );
        assert!(!message("cifar-10").contains("svhn"));
        assert!(message("imagery").contains("expected one of cifar10, svhn, folder:PATH"));
    }
}
