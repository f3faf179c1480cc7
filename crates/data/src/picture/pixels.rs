//! Pictures: bytes of any size.

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

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes `[H, W, C]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// A list of pictures that are decoded when asked for. Implement it to train on a source of your
/// own; see [`crate::Split::on_demand`].
pub trait Pictures: Debug + Send + Sync {
    /// Picture `i` of the list, the same at every call; called from several threads at once.
    ///
    /// # Errors
    /// A picture that cannot be read or decoded; the message names it.
    fn picture(&self, i: usize) -> Result<Picture>;

    /// A SHA-256 of everything that decides picture `i`, cheaper than the picture where it can be:
    /// sources of files hash the file's bytes and how they are decoded. Two pictures with one
    /// digest must be equal. By default the decoded picture is hashed.
    ///
    /// # Errors
    /// As [`Pictures::picture`].
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

/// Interleaved channels to planes.
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
