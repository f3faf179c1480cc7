//! Pictures of any size, as bytes.

use std::fmt::Debug;

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};

/// A decoded picture: bytes `[H, W, C]`, 0..=255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// # Shapes
    /// `pixels`: `[height, width, channels]`, interleaved.
    ///
    /// # Errors
    /// [`DataError::Value`] when the length does not fit or a dimension is 0.
    pub fn new(height: usize, width: usize, channels: usize, pixels: Vec<u8>) -> Result<Self> {
        let want =
            height.checked_mul(width).and_then(|n| n.checked_mul(channels)).filter(|&n| n > 0);
        if want != Some(pixels.len()) {
            return Err(DataError::value(
                "picture bytes",
                pixels.len(),
                format!("{height} x {width} x {channels}, all positive"),
            ));
        }
        Ok(Self { height, width, channels, pixels })
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of channels, 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The bytes, `[H, W, C]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// A list of pictures that are decoded on request. Implement this trait to train on a source of
/// your own; see [`crate::Split::on_demand`].
pub trait Pictures: Debug + Send + Sync {
    /// Returns picture `i` of the list, the same at every call. Several threads call it at once.
    ///
    /// # Errors
    /// A [`DataError`] that names the picture, when it cannot be read or decoded.
    fn picture(&self, i: usize) -> Result<Picture>;

    /// Returns a SHA-256 of all bytes and settings that decide picture `i`. Two pictures with one
    /// digest must be equal. The default hashes the decoded picture; a source of files can be
    /// faster and hash the file's bytes and its way of decoding.
    ///
    /// # Errors
    /// Those of [`Pictures::picture`].
    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        let picture = self.picture(i)?;
        let mut hash = Sha256::new();
        for n in [picture.height, picture.width, picture.channels] {
            hash.update((n as u64).to_le_bytes());
        }
        hash.update(&picture.pixels);
        Ok(hash.finalize().into())
    }
}

/// Converts interleaved channels to planes.
pub(crate) fn planes(pixels: &[u8], channels: usize) -> Vec<u8> {
    if channels == 1 {
        return pixels.to_vec();
    }
    let mut out = Vec::with_capacity(pixels.len());
    for channel in 0..channels {
        out.extend(pixels.iter().skip(channel).step_by(channels));
    }
    out
}
