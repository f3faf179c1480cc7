//! Decodes an image file's bytes to a picture.

use std::io::Cursor;
use std::sync::{Mutex, PoisonError};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::jpeg;
use super::pixels::Picture;
use crate::error::{DataError, Result};
use crate::options::{Channels, Decoding, Orientation};
use crate::text::one_line;

/// Largest side in pixels that is accepted; a larger picture is hardly meant.
const MAX_SIDE: u32 = 16_384;
/// Bytes of memory that decoding any file may take, and bytes that it may take for each byte of the
/// file. A blank page of 16 megapixels is decoded; a few bytes that claim to be a poster are
/// refused.
const FREE: u64 = 64 << 20;
const FOR_A_BYTE: u64 = 512;
/// Bytes of memory that decoding a file may take at most, and bytes above which only one file is
/// decoded at a time.
const MOST: u64 = 1 << 30;
const AT_ONCE: u64 = 256 << 20;

/// Locked while a large picture is decoded, so that one such picture takes memory, not one per
/// thread.
static LARGE: Mutex<()> = Mutex::new(());

/// Decodes a PNG or JPEG file; `bad` makes an error from a description of the fault.
pub(crate) fn decode(
    bytes: &[u8],
    decoding: Decoding,
    bad: impl Fn(String) -> DataError,
) -> Result<Picture> {
    let undecodable = |e: image::ImageError| {
        bad(format!("an image that cannot be decoded ({})", one_line(&e.to_string())))
    };
    let (format, bytes) = whole(bytes).map_err(&bad)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MOST);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(bad("an image without pixels".into()));
    }
    let memory = memory(&decoder, format, decoding.channels);
    let allowed = (FREE + FOR_A_BYTE * bytes.len() as u64).min(MOST);
    if memory > allowed {
        return Err(bad(format!(
            "{width}x{height} pixels in {} bytes, which would take {} MiB to decode",
            bytes.len(),
            memory >> 20
        )));
    }
    let alone = (memory > AT_ONCE).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let turn = match decoding.orientation {
        Orientation::AsStored => None,
        Orientation::Exif => decoder.orientation().ok(),
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    if let Some(turn) = turn {
        image.apply_orientation(turn);
    }
    let (height, width) = (image.height() as usize, image.width() as usize);
    let pixels = match decoding.channels {
        Channels::Grey => image.into_luma8().into_raw(),
        Channels::Rgb => image.into_rgb8().into_raw(),
    };
    drop(alone);
    Picture::new(height, width, decoding.channels.count(), pixels)
}

/// The format and the bytes of the image itself, or a description of the fault.
fn whole(bytes: &[u8]) -> Result<(ImageFormat, &[u8]), String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok((ImageFormat::Png, bytes)),
        // The decoder fills the missing part of a cut-off JPEG with grey and reports nothing.
        Ok(ImageFormat::Jpeg) => match jpeg::length(bytes) {
            Some(length) => Ok((ImageFormat::Jpeg, &bytes[..length])),
            None => Err("a JPEG that breaks off before its end marker".into()),
        },
        Ok(other) => Err(format!("an image in {other:?} format")),
        Err(_) => Err("no image format that is known".into()),
    }
}

/// About the number of bytes that decoding takes: the pixels as the file has them, the coefficients
/// of a JPEG, and the pixels of the result.
fn memory(decoder: &impl ImageDecoder, format: ImageFormat, channels: Channels) -> u64 {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    let stored = decoder.total_bytes();
    let coefficients = if format == ImageFormat::Jpeg { 2 * stored } else { 0 };
    stored + coefficients + pixels * channels.count() as u64
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
