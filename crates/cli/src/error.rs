//! The failures of a command: a line, and an exit status.

use std::path::Path;

use sora::error::{Error, ErrorKind};

/// The kind of a failure, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work failed; the status is 1.
    Work,
    /// The call or its input is wrong; the status is 2.
    Input,
    /// The work was interrupted and its state is saved; the status is 130.
    Interrupted,
}

/// A failed command.
#[derive(Debug)]
pub enum Failure {
    /// An error of the library.
    Library(Box<Error>),
    /// A failure of the program itself, as a line.
    Line(Kind, String),
}

/// Result of a command or a part of it.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The failure for a wrong call, value or file.
    pub fn input(line: impl Into<String>) -> Self {
        Self::Line(Kind::Input, line.into())
    }

    /// The failure for work that failed.
    pub fn work(line: impl Into<String>) -> Self {
        Self::Line(Kind::Work, line.into())
    }

    /// The failure for a stop that the user asked for.
    pub fn interrupted(line: impl Into<String>) -> Self {
        Self::Line(Kind::Interrupted, line.into())
    }

    /// The failure for a file operation: `action` names the operation on `path`.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::work(format!("cannot {action} {}: {error}", path.display()))
    }

    /// The kind of the failure.
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
