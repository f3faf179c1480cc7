//! The errors of reading a file and of a pass.

use std::path::{Path, PathBuf};

/// A file that cannot be read or used, or a pass that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", shown(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// The bytes are not an ONNX model, or the model contradicts itself.
    #[error("{}: {}", shown(path), one_line(problem))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The crate does not compute the operator, or not in this use.
    #[error(
        "{}: operator {} (node '{}', opset {opset}) is not supported: {}",
        shown(path),
        one_line(operator),
        one_line(node),
        one_line(problem)
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The operator, with its domain unless that is ONNX's own domain.
        operator: String,
        /// The node's name.
        node: String,
        /// Version of the operator set that the file asks for.
        opset: i64,
        /// The part that is not supported.
        problem: String,
    },
    /// The graph is not an image classifier.
    #[error("{}: not an image classifier: {}", shown(path), one_line(problem))]
    NotAClassifier {
        /// The file.
        path: PathBuf,
        /// What was found, and what is expected.
        problem: String,
    },
    /// The graph is a classifier whose weights cannot be trained as asked.
    #[error("{}: cannot be trained: {}", shown(path), one_line(problem))]
    Untrainable {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        problem: String,
    },
    /// A node failed on its inputs.
    #[error("{} (node '{}'): {}", one_line(operator), one_line(node), one_line(problem))]
    Node {
        /// The operator.
        operator: String,
        /// The node's name.
        node: String,
        /// What is wrong.
        problem: String,
    },
    /// The number of pixels is not that of whole images of the network.
    #[error("{found} pixels: expected a multiple of the {expected} of an image")]
    Pixels {
        /// Number of pixels given.
        found: usize,
        /// Number of pixels of one image.
        expected: usize,
    },
}

/// `text` on one line. Names in a file may hold line breaks, a terminal's escape characters, and
/// characters that turn the direction of writing; they are escaped.
pub(crate) fn one_line(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if steers(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operator's complaint about its inputs; the graph adds the node.
#[derive(Debug)]
pub(crate) struct Problem(pub String);

impl Problem {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<sora_kernels::ShapeError> for Problem {
    fn from(e: sora_kernels::ShapeError) -> Self {
        Self(e.to_string())
    }
}

impl From<ndarray::ShapeError> for Problem {
    fn from(e: ndarray::ShapeError) -> Self {
        Self(format!("its shapes do not fit: {e}"))
    }
}

/// Result of an operator.
pub(crate) type Outcome<T> = std::result::Result<T, Problem>;

/// Ends an operator with a problem.
macro_rules! problem {
    ($($text:tt)*) => { return Err($crate::error::Problem::new(format!($($text)*))) };
}
pub(crate) use problem;
