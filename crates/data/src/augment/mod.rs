//! Augmentation of training images: which transformations ([`Augment`]), what was drawn for a
//! sample ([`AugmentDraw`]), and applying it.
//!
//! A sample's draws come from that sample's own stream, so they depend neither on the batch it is
//! in nor on threads. They are handed out with the batch because some methods (ATAS) keep a
//! perturbation per sample in un-augmented coordinates and must map it to and fro.

mod geometry;
pub(crate) mod resample;

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

pub use geometry::{AugmentDraw, Window};

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
    /// outside); 0: not.
    pub rotate: f32,
    /// Blacken a square of this many pixels a side whose centre is anywhere in the image, cut off
    /// at the border (DeVries and Taylor 2017, 1708.04552, where the images are normalised first
    /// and zero is the mean colour); 0: not.
    pub cutout: usize,
}

/// The crop of an [`Augment`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// None.
    None,
    /// Pad with this many zeros on every side, then crop to the original size at a random place (He
    /// et al. 2016, 1512.03385, section 4.2).
    Pad(usize),
    /// Crop a window of random area and aspect ratio and resize it, bilinear (Szegedy et al. 2015,
    /// 1409.4842): of a set decoded on demand the window is cut from the picture in its own size,
    /// else from the image in memory. The area is U(min_scale, 1) of the image, the aspect ratio
    /// log-uniform in \[3/4, 4/3\]; after 10 draws that do not fit, the largest centred window
    /// within those ratios.
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

    /// Whether it resizes, so that a picture's own size matters.
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

    /// Draws the parameters for one image of `height` x `width` pixels.
    pub fn draw(&self, rng: &mut impl Rng, height: usize, width: usize) -> AugmentDraw {
        self.draw_in(rng, [height, width], [height, width])
    }

    /// The same for a picture of `picture` = \[height, width\] pixels that becomes an image of
    /// `image`.
    pub(crate) fn draw_in(
        &self,
        rng: &mut impl Rng,
        picture: [usize; 2],
        image: [usize; 2],
    ) -> AugmentDraw {
        let mut draw = AugmentDraw::IDENTITY;
        match self.crop {
            Crop::None => {}
            Crop::Pad(pad) => {
                // Bounded by check(); the clamp only guards the conversion.
                let pad = pad.min(Self::MAX_PAD) as i32;
                draw.dy = rng.random_range(-pad..=pad);
                draw.dx = rng.random_range(-pad..=pad);
            }
            Crop::Resized { min_scale } => {
                draw.window = Some(Window::draw(rng, picture[0], picture[1], min_scale))
            }
        }
        if self.flip {
            draw.flip = rng.random();
        }
        if self.rotate > 0.0 {
            draw.angle = self.rotate * (2.0 * rng.random::<f32>() - 1.0);
        }
        if self.cutout > 0 {
            draw.cutout = Some(Window::cutout(rng, image, self.cutout));
        }
        draw
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
        const EXPECTED: &str = "'none' or a list of crop:PAD, resized-crop:MIN_AREA, flip, rotate:DEGREES, cutout:PIXELS, such as crop:4,flip";
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

#[cfg(test)]
mod tests {
    use super::*;
    use sora_rng::{Purpose, stream};

    #[test]
    fn text_round_trips() {
        for text in [
            "none",
            "crop:4,flip",
            "flip",
            "flip,rotate:10",
            "resized-crop:0.08,flip",
            "crop:8",
            "rotate:2.5",
            "cutout:8",
            "crop:4,flip,rotate:1,cutout:16",
        ] {
            assert_eq!(text.parse::<Augment>().unwrap().to_string(), text);
        }
        let spaced: Augment = " flip , crop:4".parse().unwrap();
        assert_eq!(spaced.to_string(), "crop:4,flip");
        assert_eq!(
            "resized-crop".parse::<Augment>().unwrap().crop,
            Crop::Resized { min_scale: 0.08 }
        );
    }

    #[test]
    fn wrong_text_is_one_clear_line() {
        for text in [
            "",
            "crop",
            "crop:-1",
            "crop:4,crop:4",
            "crop:4,resized-crop",
            "flip:1",
            "flip,flip",
            "rotate:x",
            "rotate:NaN",
            "rotate:181",
            "resized-crop:0",
            "resized-crop:nan",
            "crop:1025",
            "cutout",
            "cutout:1025",
            "cutout:2,cutout:2",
            "mirror",
            "none,flip",
        ] {
            let error = text.parse::<Augment>().unwrap_err().to_string();
            assert!(
                error.starts_with("wrong ") && error.contains("expected") && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn draws_cover_their_range_evenly() {
        let augment: Augment = "crop:2,flip".parse().unwrap();
        let mut offsets = [[0usize; 5]; 5];
        let mut flips = 0;
        const N: usize = 25_000;
        for sample in 0..N {
            let draw = augment.draw(&mut stream(0, Purpose::Augment, 0, 0, sample as u64), 8, 8);
            offsets[(draw.dy + 2) as usize][(draw.dx + 2) as usize] += 1;
            flips += usize::from(draw.flip);
        }
        // Expected 1,000 a cell with a standard deviation of 31: within 5 of them.
        assert!(offsets.iter().flatten().all(|n| n.abs_diff(N / 25) < 155), "{offsets:?}");
        assert!(flips.abs_diff(N / 2) < 400, "{flips}");
    }

    #[test]
    fn cutouts_have_their_centre_anywhere_and_stay_inside() {
        let augment: Augment = "cutout:4".parse().unwrap();
        let mut centres = [[0usize; 6]; 5];
        for sample in 0..3000 {
            let hole =
                augment.draw(&mut stream(0, Purpose::Augment, 0, 0, sample), 5, 6).cutout.unwrap();
            assert!(
                hole.top + hole.height <= 5
                    && hole.left + hole.width <= 6
                    && hole.height >= 2
                    && hole.width >= 2
            );
            // The far edges tell the centre: it lies two pixels before them, or the square is cut
            // off there.
            let (bottom, right) = (hole.top + hole.height, hole.left + hole.width);
            let cy = if hole.top > 0 { hole.top + 2 } else { bottom - 2 };
            let cx = if hole.left > 0 { hole.left + 2 } else { right - 2 };
            centres[cy][cx] += 1;
        }
        // 100 expected, standard deviation 10.
        assert!(centres.iter().flatten().all(|n| n.abs_diff(100) < 50), "{centres:?}");
    }
}

#[cfg(test)]
#[path = "torchvision_tests.rs"]
mod torchvision;
