//! The errors of drawing a figure.

use std::path::PathBuf;

/// A figure that cannot be drawn as asked, or a drawing that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ending of a file name names no format.
    #[error("{}: expected a file name that ends in .svg or .png", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// This build of the crate leaves out the format.
    #[error("this build cannot write {format} files; build it with the feature `{feature}`")]
    NotBuilt {
        /// Name of the format.
        format: &'static str,
        /// The feature that adds the format.
        feature: &'static str,
    },
    /// A picture has no pixels or too many.
    #[error(
        "a picture of {width} x {height} pixels: expected 1 to {most} a side; draw fewer runs or choose .svg"
    )]
    PictureSize {
        /// Width in pixels.
        width: f64,
        /// Height in pixels.
        height: f64,
        /// Most pixels of a side.
        most: f64,
    },
    /// An animation has no frames.
    #[error("an animation needs at least one frame")]
    NoFrame,
    /// A frame is too large for the GIF format.
    #[error("a frame is {pixels} pixels wide or high; GIF holds 1 to 65535")]
    FrameSize {
        /// Number of pixels of the larger side.
        pixels: u32,
    },
    /// The renderer or an encoder failed.
    #[error("cannot draw the figure: {0}")]
    Draw(String),
}

impl Error {
    /// Whether the call is wrong, as against work that failed.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Draw(_))
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
