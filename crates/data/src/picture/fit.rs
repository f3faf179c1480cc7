//! Brings a picture to the shape of a split.

use super::pixels::{Picture, planes};
use super::resample::{Placement, resize};
use crate::error::{DataError, Result};
use crate::window::CropWindow;

/// How a picture is brought to the shape of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// No change: the picture must have the shape.
    Exact,
    /// The central square is resized to the shape.
    Square,
    /// The shorter side is resized to this many pixels, then the central part is taken:
    /// torchvision's `Resize(n)` and `CenterCrop`.
    ShortSide(usize),
}

impl Fit {
    /// Checks that the fit can give `shape`.
    pub(crate) fn check(self, shape: [usize; 3]) -> Result<()> {
        let [_, height, width] = shape;
        match self {
            Self::ShortSide(side) if side < height.max(width) => Err(DataError::value(
                "resize",
                side,
                format!("at least the {} pixels of the crop", height.max(width)),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the planes `[C, H, W]` of `picture`, fitted to `shape`.
    pub(crate) fn apply(self, picture: &Picture, shape: [usize; 3]) -> Result<Vec<u8>> {
        Ok(planes(&self.interleaved(picture, shape)?, shape[0]))
    }

    /// Returns `picture` fitted to `shape` as `[H, W, C]`.
    pub(crate) fn interleaved(self, picture: &Picture, shape: [usize; 3]) -> Result<Vec<u8>> {
        let [channels, height, width] = shape;
        if picture.channels() != channels {
            return Err(DataError::value(
                "picture",
                format!("{} channels", picture.channels()),
                format!("{channels}"),
            ));
        }
        let (ph, pw) = (picture.height(), picture.width());
        let placement = match self {
            Self::Exact if (ph, pw) == (height, width) => return Ok(picture.pixels().to_vec()),
            Self::Exact => {
                return Err(DataError::value(
                    "picture",
                    format!("{pw}x{ph} pixels"),
                    format!("{width}x{height}"),
                ));
            }
            Self::Square => {
                Placement::whole(central(ph, pw, ph.min(pw), ph.min(pw)), [height, width])
            }
            Self::ShortSide(side) => {
                // The longer side is rounded down to whole pixels, as in torchvision.
                let long = |longer: usize| {
                    (side as u128 * longer as u128 / ph.min(pw) as u128).min(usize::MAX as u128 / 2)
                        as usize
                };
                let size = if ph <= pw { [side, long(pw)] } else { [long(ph), side] };
                let crop = CropWindow {
                    top: half((size[0] - height) as u64) as usize,
                    left: half((size[1] - width) as u64) as usize,
                    height,
                    width,
                };
                Placement {
                    source: CropWindow { top: 0, left: 0, height: ph, width: pw },
                    size,
                    crop,
                }
            }
        };
        Ok(resize(picture, &placement))
    }
}

/// The central window of `height` x `width` pixels.
fn central(rows: usize, columns: usize, height: usize, width: usize) -> CropWindow {
    CropWindow { top: (rows - height) / 2, left: (columns - width) / 2, height, width }
}

/// Half of `n`, with halves rounded to even: Python's `round(n / 2)`.
fn half(n: u64) -> u64 {
    n / 2 + u64::from(n % 4 == 3)
}
