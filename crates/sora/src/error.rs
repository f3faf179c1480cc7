//! The two kinds of failure that the command line tells apart by its exit status.

use std::path::Path;

/// What went wrong, as one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call or its input is wrong: exit status 2.
    #[error("{0}")]
    Input(String),
    /// The work failed: exit status 1.
    #[error("{0}")]
    Work(String),
    /// Ctrl-C or a termination signal; the state is saved: exit status 130.
    #[error("{0}")]
    Interrupted(String),
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A wrong call, value or file.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// A failure of the work itself.
    pub fn work(message: impl Into<String>) -> Self {
        Self::Work(message.into())
    }

    /// A failed file operation: `action` says what was tried on `path`.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Work(format!("cannot {action} {}: {error}", path.display()))
    }

    /// The exit status of the command line.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Work(_) => 1,
            Self::Input(_) => 2,
            Self::Interrupted(_) => 130,
        }
    }
}

impl From<sora_plot::Error> for Error {
    fn from(e: sora_plot::Error) -> Self {
        if e.is_input() { Self::input(e.to_string()) } else { Self::work(e.to_string()) }
    }
}
