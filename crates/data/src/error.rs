//! The one error type of this crate. Every message is a single line that says what was wrong,
//! where, what was expected, and what to do about it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Shorthand for results of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// What can go wrong with a data set. `Display` is always one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// An option has a value that makes no sense.
    #[error("wrong {what}: {found}; expected {expected}")]
    Value {
        /// The option, in words.
        what: String,
        /// The value given.
        found: String,
        /// What is allowed.
        expected: String,
    },

    /// The name is not registered and no folder of that name exists.
    #[error(
        "unknown data set '{name}'; expected one of {known}, folder:PATH, or an existing folder with train/ and test/"
    )]
    Unknown {
        /// The name given.
        name: String,
        /// The registered names, comma separated.
        known: String,
    },

    /// The set is known and readable, but its files are not on this machine.
    #[error("data set '{name}' is not here: {file} is in none of {looked}; get it with {get}")]
    Missing {
        /// Registered name.
        name: String,
        /// The first file not found.
        file: String,
        /// Folders searched, comma separated.
        looked: String,
        /// The command or package that gets it.
        get: String,
    },

    /// A file or folder is not what it should be.
    #[error("{}: found {found}; expected {expected}; {fix}", shown(path))]
    Bad {
        /// The file or folder.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
        /// What to do.
        fix: String,
    },

    /// The operating system refused.
    #[error("cannot {doing} {}: {source}; {}", shown(path), io_hint(source))]
    Io {
        /// A verb: `read`, `write`, ...
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A download failed for good.
    #[error("cannot fetch {url}: {reason}; {fix}")]
    Fetch {
        /// The full address.
        url: String,
        /// What happened.
        reason: String,
        /// What to do.
        fix: String,
    },

    /// The loader's background thread died; the epoch is incomplete.
    #[error(
        "the batch loader stopped after {done} of {total} batches; this is a defect of the program, please report it"
    )]
    Loader {
        /// Batches delivered.
        done: usize,
        /// Batches expected.
        total: usize,
    },
}

impl DataError {
    /// Whether the call or its input is at fault (exit status 2) rather than the work itself (exit
    /// status 1: network, disk, a defect).
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
        fix: impl Into<String>,
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
            "free some space or choose another --data-dir"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose another --data-dir",
        _ => "check the path and the disk",
    }
}

/// A path on one line whatever its bytes are.
pub(crate) fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// The text with control characters (a newline in a file name, a library's two-line message)
/// escaped.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A list of paths for a message: `a, b`.
pub(crate) fn shown_all(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| shown(p)).collect::<Vec<_>>().join(", ")
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
}
