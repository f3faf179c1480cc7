//! What can go wrong while a figure is drawn.

use std::path::PathBuf;

/// A figure that cannot be drawn as asked, or a drawing that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file name whose ending names no format.
    #[error("{}: expected a file name that ends in .svg or .png", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A format that this build of the crate leaves out.
    #[error("this build cannot write {format} files; build it with the feature `{feature}`")]
    NotBuilt {
        /// Name of the format.
        format: &'static str,
        /// The feature that adds it.
        feature: &'static str,
    },
    /// A picture of no pixels or of too many.
    #[error(
        "a picture of {width} x {height} pixels: expected 1 to {most} a side; draw fewer runs or choose .svg"
    )]
    PictureSize {
        /// Pixels from left to right.
        width: f64,
        /// Pixels from top to bottom.
        height: f64,
        /// The most pixels of a side.
        most: f64,
    },
    /// An animation without frames.
    #[error("an animation needs at least one frame")]
    NoFrame,
    /// A frame that the GIF format cannot hold.
    #[error("a frame is {pixels} pixels wide or high; GIF holds 1 to 65535")]
    FrameSize {
        /// Pixels of the side.
        pixels: u32,
    },
    /// The renderer or an encoder failed.
    #[error("cannot draw the figure: {0}")]
    Draw(String),
}

impl Error {
    /// Whether the call is wrong, rather than the work failed.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Draw(_))
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
