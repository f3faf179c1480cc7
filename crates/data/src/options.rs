//! Options of opening a data set.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

/// Options of [`open`](crate::open()).
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// Data folder; see [`data_dir`](crate::data_dir).
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images in pixels, 1 to 4096. Used by `folder:` (centre-crop to a
    /// square, then resize), `synthetic` (drawn at that size), the ImageNet family and
    /// `imagefolder:` (shorter side resized to 256/224 of this size, then centre crop), and
    /// MedMNIST (28, 64, 128 or 224, each a file of its own). Every other set has one size only.
    pub image_size: Option<usize>,
    /// Number of channels of the images of `folder:` and `imagefolder:`.
    pub channels: Channels,
    /// Whether a photograph's orientation tag (EXIF) is applied, for `folder:`, `imagefolder:` and
    /// the ImageNet family.
    pub orientation: Orientation,
    /// The seed that decides the images of `synthetic`.
    pub seed: u64,
    /// At most this many training images: the first ones. (`folder:` and `synthetic` list their
    /// classes in turn, so the first images hold all classes.)
    pub limit_train: Option<usize>,
    /// Whether `folder:` and `imagefolder:` must have test images; without, a folder that has none
    /// has an empty test split.
    pub needs_test: bool,
    /// At most this many test images: the first ones.
    pub limit_test: Option<usize>,
    /// Whether the decoded images of `folder:` are kept in the data folder and used from there.
    pub cache: bool,
    /// Largest number of bytes of pixels that are kept in memory. For larger sets, `folder:`
    /// decodes on demand, and MedMNIST is unpacked to the data folder and read from there. The
    /// pixels are the same either way.
    pub max_memory: u64,
    /// Called with (images done, images in total) while a folder is decoded, from several threads.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            data_dir: None,
            image_size: None,
            channels: Channels::Rgb,
            orientation: Orientation::AsStored,
            seed: 0,
            limit_train: None,
            needs_test: true,
            limit_test: None,
            cache: true,
            max_memory: 1 << 30,
            progress: None,
        }
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("data_dir", &self.data_dir)
            .field("image_size", &self.image_size)
            .field("channels", &self.channels)
            .field("orientation", &self.orientation)
            .field("seed", &self.seed)
            .field("limit_train", &self.limit_train)
            .field("needs_test", &self.needs_test)
            .field("limit_test", &self.limit_test)
            .field("cache", &self.cache)
            .field("max_memory", &self.max_memory)
            .finish_non_exhaustive()
    }
}

/// The channels that a folder's images are converted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// One channel: luma.
    Grey,
    /// Three channels; grey images are repeated, transparency is dropped.
    #[default]
    Rgb,
}

/// Whether the orientation tag (EXIF) of an image file is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Orientation {
    /// The tag is ignored: pixels lie as they are stored, as in torchvision's `ImageFolder`.
    #[default]
    #[serde(rename = "stored")]
    AsStored,
    /// The picture is turned and mirrored as the tag says, as viewers show it.
    #[serde(rename = "exif")]
    Exif,
}

impl Orientation {
    /// Whether this is the default; for serde.
    #[must_use]
    pub fn is_as_stored(&self) -> bool {
        *self == Self::AsStored
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_as_stored() { "stored" } else { "exif" })
    }
}

impl FromStr for Orientation {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stored" => Ok(Self::AsStored),
            "exif" => Ok(Self::Exif),
            _ => Err(DataError::value("orientation", format!("'{text}'"), "stored or exif")),
        }
    }
}

/// Options of decoding image files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoding {
    pub channels: Channels,
    pub orientation: Orientation,
}

impl Decoding {
    /// Colour and orientation as stored, for sets that are published in one form.
    pub(crate) const PUBLISHED: Self =
        Self { channels: Channels::Rgb, orientation: Orientation::AsStored };

    /// The bytes that go into digests of files.
    pub(crate) fn bytes(self) -> [u8; 2] {
        [self.channels.count() as u8, u8::from(self.orientation == Orientation::Exif)]
    }
}

impl Channels {
    /// Number of channels, 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

impl FromStr for Channels {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "grey" | "gray" | "1" => Ok(Self::Grey),
            "rgb" | "3" => Ok(Self::Rgb),
            _ => Err(DataError::value("channels", format!("'{text}'"), "grey or rgb")),
        }
    }
}

/// Largest `image_size`.
const MAX_SIZE: usize = 4096;

impl OpenOptions<'_> {
    pub(crate) fn decoding(&self) -> Decoding {
        Decoding { channels: self.channels, orientation: self.orientation }
    }

    /// Checks the ranges of the fields.
    ///
    /// # Errors
    /// [`DataError::Value`] for an image size of 0 or over 4096, and for a limit of 0.
    pub fn check(&self) -> Result<()> {
        if let Some(size) = self.image_size
            && !(1..=MAX_SIZE).contains(&size)
        {
            return Err(DataError::value("image size", size, format!("1 to {MAX_SIZE} pixels")));
        }
        for (what, limit) in [
            ("limit of training images", self.limit_train),
            ("limit of test images", self.limit_test),
        ] {
            if limit == Some(0) {
                return Err(DataError::value(what, 0, "1 or more"));
            }
        }
        Ok(())
    }
}
