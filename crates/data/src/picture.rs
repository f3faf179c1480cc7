//! Pictures of any size as they come from files, and how they are brought to the shape of a split.

use std::fmt::Debug;
use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};

use crate::augment::Window;
use crate::augment::resample::{Placement, resize};
use crate::error::{DataError, Result, one_line};
use crate::open::Channels;

/// Largest side and largest decoded size that are taken; larger pictures are hardly meant.
const MAX_SIDE: u32 = 16_384;
const MAX_DECODED: u64 = 512 << 20;

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
}

/// How a picture is brought to the shape of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Not at all: the picture must have the shape.
    Exact,
    /// The central square, resized.
    Square,
    /// The shorter side resized to this many pixels, then the central part: torchvision's
    /// `Resize(n)` and `CenterCrop`.
    ShortSide(usize),
}

impl Fit {
    /// Checks that the result can have `shape`.
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

    /// The planes `[C, H, W]` of `picture` in the shape wanted.
    pub(crate) fn apply(self, picture: &Picture, shape: [usize; 3]) -> Result<Vec<u8>> {
        Ok(planes(&self.interleaved(picture, shape)?, shape[0]))
    }

    /// The same as `[H, W, C]`.
    pub(crate) fn interleaved(self, picture: &Picture, shape: [usize; 3]) -> Result<Vec<u8>> {
        let [channels, height, width] = shape;
        if picture.channels != channels {
            return Err(DataError::value(
                "picture",
                format!("{} channels", picture.channels),
                format!("{channels}"),
            ));
        }
        let Picture { height: ph, width: pw, .. } = *picture;
        let placement = match self {
            Self::Exact if (ph, pw) == (height, width) => return Ok(picture.pixels.clone()),
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
                // The longer side is cut down to whole pixels, as torchvision does it.
                let long = |longer: usize| {
                    (side as u128 * longer as u128 / ph.min(pw) as u128).min(usize::MAX as u128 / 2)
                        as usize
                };
                let size = if ph <= pw { [side, long(pw)] } else { [long(ph), side] };
                let crop = Window {
                    top: half((size[0] - height) as u64) as usize,
                    left: half((size[1] - width) as u64) as usize,
                    height,
                    width,
                };
                Placement { source: Window { top: 0, left: 0, height: ph, width: pw }, size, crop }
            }
        };
        Ok(resize(picture, &placement))
    }
}

/// The central part of `height` x `width`.
fn central(rows: usize, columns: usize, height: usize, width: usize) -> Window {
    Window { top: (rows - height) / 2, left: (columns - width) / 2, height, width }
}

/// Half of it, halves rounded to even: Python's `round(n / 2)`.
fn half(n: u64) -> u64 {
    n / 2 + u64::from(n % 4 == 3)
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

/// Decodes a PNG or JPEG file; `bad` makes the error of what was found. Orientation tags (EXIF) are
/// not applied.
pub(crate) fn decode(
    bytes: &[u8],
    channels: Channels,
    bad: impl Fn(String) -> DataError,
) -> Result<Picture> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| bad(format!("what cannot be read ({})", one_line(&e.to_string()))))?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Some(other) => return Err(bad(format!("an image in {other:?} format"))),
        None => return Err(bad("no image format that is known".into())),
    };
    // The decoder fills the missing part of a cut-off JPEG with grey and says nothing.
    if format == ImageFormat::Jpeg && !ends(bytes) {
        return Err(bad("a JPEG that breaks off before its end marker".into()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| {
        bad(format!("an image that cannot be decoded ({})", one_line(&e.to_string())))
    })?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    if width == 0 || height == 0 {
        return Err(bad("an image without pixels".into()));
    }
    let pixels = match channels {
        Channels::Grey => image.into_luma8().into_raw(),
        Channels::Rgb => image.into_rgb8().into_raw(),
    };
    Picture::new(height, width, channels.count(), pixels)
}

/// Whether a JPEG's last scan is followed by the end marker. (Within a scan both markers cannot
/// occur: 0xff is stuffed.)
fn ends(jpeg: &[u8]) -> bool {
    let pairs = |bytes: &[u8], marker| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    pairs(jpeg, 0xda).is_some_and(|scan| pairs(&jpeg[scan..], 0xd9).is_some())
}
