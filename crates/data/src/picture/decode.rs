//! From an image file's bytes to a picture.

use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};

use super::pixels::Picture;
use crate::error::{DataError, Result};
use crate::options::Channels;
use crate::text::one_line;

/// Largest side and largest decoded size that are taken; larger pictures are hardly meant.
const MAX_SIDE: u32 = 16_384;
const MAX_DECODED: u64 = 512 << 20;

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
