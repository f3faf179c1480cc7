//! The transformations, in typed form and in text form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

/// Random transformations of a training image, applied in the order crop, flip, rotate, cutout. The
/// output has the size of the input.
///
/// The text form, used on the command line, joins the parts by commas: `none`, `crop:4,flip`,
/// `flip,rotate:10`, `resized-crop:0.08,flip`, `crop:4,flip,cutout:16`.
///
/// ```
/// use sora_data::{Augment, Crop};
/// let augment: Augment = "crop:4,flip".parse()?;
/// assert_eq!(augment, Augment { crop: Crop::Pad(4), flip: true, ..Augment::NONE });
/// assert_eq!(augment.to_string(), "crop:4,flip");
/// # Ok::<(), sora_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Augment {
    /// How the image is cropped.
    pub crop: Crop,
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Rotate by an angle drawn from U(-rotate, rotate) degrees about the centre (bilinear, zeros
    /// outside); 0 turns the rotation off.
    pub rotate: f32,
    /// Blacken a square of this many pixels a side whose centre is anywhere in the image, cut off
    /// at the border; 0 turns the cutout off. Source: DeVries and Taylor 2017, 1708.04552, where
    /// images are normalised first, so that zero is the mean colour.
    pub cutout: usize,
}

/// The crop of an [`Augment`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// No crop.
    None,
    /// Pad with this many zeros on every side, then crop to the original size at a random place (He
    /// et al. 2016, 1512.03385, section 4.2).
    Pad(usize),
    /// Crop a window of random area and aspect ratio and resize it, bilinear (Szegedy et al. 2015,
    /// 1409.4842). For a set decoded on demand the window is cut from the picture at its own size,
    /// else from the image in memory. The area is U(min_scale, 1) of the image, the aspect ratio
    /// log-uniform in \[3/4, 4/3\]. After 10 draws that do not fit, the largest centred window
    /// within those ratios is taken.
    Resized {
        /// Smallest area as a share of the image's, in (0, 1].
        min_scale: f32,
    },
}

impl Augment {
    /// No augmentation.
    pub const NONE: Self = Self { crop: Crop::None, flip: false, rotate: 0.0, cutout: 0 };

    /// Largest padding and largest cutout that [`Augment::check`] accepts.
    pub const MAX_PAD: usize = 1024;

    /// Whether the crop resizes, so that a picture's own size matters.
    pub(crate) fn resizes(&self) -> bool {
        matches!(self.crop, Crop::Resized { .. })
    }

    /// Checks the ranges of the fields.
    ///
    /// # Errors
    /// [`DataError::Value`] for padding or a cutout over [`Augment::MAX_PAD`], `min_scale` outside
    /// (0, 1], or `rotate` outside \[0, 180\].
    pub fn check(&self) -> Result<()> {
        match self.crop {
            Crop::Pad(pad) if pad > Self::MAX_PAD => {
                return Err(DataError::value(
                    "crop padding",
                    pad,
                    format!("0 to {} pixels", Self::MAX_PAD),
                ));
            }
            Crop::Resized { min_scale } if !(min_scale > 0.0 && min_scale <= 1.0) => {
                return Err(DataError::value(
                    "resized-crop",
                    min_scale,
                    "a smallest area over 0 and at most 1",
                ));
            }
            _ => {}
        }
        if !(0.0..=180.0).contains(&self.rotate) {
            return Err(DataError::value("rotation", self.rotate, "0 to 180 degrees"));
        }
        if self.cutout > Self::MAX_PAD {
            return Err(DataError::value(
                "cutout",
                self.cutout,
                format!("0 to {} pixels", Self::MAX_PAD),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.crop {
            Crop::None => {}
            Crop::Pad(pad) => parts.push(format!("crop:{pad}")),
            Crop::Resized { min_scale } => parts.push(format!("resized-crop:{min_scale}")),
        }
        if self.flip {
            parts.push("flip".to_owned());
        }
        if self.rotate > 0.0 {
            parts.push(format!("rotate:{}", self.rotate));
        }
        if self.cutout > 0 {
            parts.push(format!("cutout:{}", self.cutout));
        }
        if parts.is_empty() { f.write_str("none") } else { f.write_str(&parts.join(",")) }
    }
}

impl FromStr for Augment {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        const EXPECTED: &str = "'none' or a list of crop:PAD, resized-crop:MIN_AREA, flip, \
                                rotate:DEGREES, cutout:PIXELS, such as crop:4,flip";
        let wrong = || DataError::value("augmentation", format!("'{text}'"), EXPECTED);
        let mut augment = Self::NONE;
        if text.trim() == "none" {
            return Ok(augment);
        }
        for part in text.split(',') {
            let (name, argument) = match part.trim().split_once(':') {
                Some((name, argument)) => (name, Some(argument)),
                None => (part.trim(), None),
            };
            match (name, argument) {
                ("crop", Some(pad)) if augment.crop == Crop::None => {
                    augment.crop = Crop::Pad(pad.parse().map_err(|_| wrong())?);
                }
                ("resized-crop", scale) if augment.crop == Crop::None => {
                    let min_scale = scale.unwrap_or("0.08").parse().map_err(|_| wrong())?;
                    augment.crop = Crop::Resized { min_scale };
                }
                ("flip", None) if !augment.flip => augment.flip = true,
                ("rotate", Some(degrees)) if augment.rotate == 0.0 => {
                    augment.rotate = degrees.parse().map_err(|_| wrong())?;
                }
                ("cutout", Some(side)) if augment.cutout == 0 => {
                    augment.cutout = side.parse().map_err(|_| wrong())?;
                }
                _ => return Err(wrong()),
            }
        }
        augment.check()?;
        Ok(augment)
    }
}

impl From<Augment> for String {
    fn from(augment: Augment) -> Self {
        augment.to_string()
    }
}

impl TryFrom<String> for Augment {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
