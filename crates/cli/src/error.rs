//! How a command fails: one line, and the exit status.

use std::path::Path;

use sora::error::{Error, ErrorKind};

/// What went wrong, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work failed: 1.
    Work,
    /// The call or its input is wrong: 2.
    Input,
    /// Interrupted; the state is saved: 130.
    Interrupted,
}

/// A failed command.
#[derive(Debug)]
pub enum Failure {
    /// In the library.
    Library(Box<Error>),
    /// In the program itself, told in a line.
    Line(Kind, String),
}

/// Result of a command or a part of it.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A wrong call, value or file.
    pub fn input(line: impl Into<String>) -> Self {
        Self::Line(Kind::Input, line.into())
    }

    /// A failure of the work itself.
    pub fn work(line: impl Into<String>) -> Self {
        Self::Line(Kind::Work, line.into())
    }

    /// The user asked to stop.
    pub fn interrupted(line: impl Into<String>) -> Self {
        Self::Line(Kind::Interrupted, line.into())
    }

    /// A failed file operation: `action` says what was tried on `path`.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::work(format!("cannot {action} {}: {error}", path.display()))
    }

    /// What kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Line(kind, _) => *kind,
            Self::Library(error) => match error.kind() {
                ErrorKind::Input => Kind::Input,
                ErrorKind::Interrupted => Kind::Interrupted,
                ErrorKind::Work => Kind::Work,
            },
        }
    }

    /// The exit status.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            Kind::Work => 1,
            Kind::Input => 2,
            Kind::Interrupted => 130,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(Box::new(error))
    }
}

impl From<sora::data::DataError> for Failure {
    fn from(error: sora::data::DataError) -> Self {
        Error::from(error).into()
    }
}

impl From<sora::plot::Error> for Failure {
    fn from(error: sora::plot::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<sora::robustness::Error> for Failure {
    fn from(error: sora::robustness::Error) -> Self {
        Error::from(error).into()
    }
}
