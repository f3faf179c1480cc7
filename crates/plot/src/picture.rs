//! Pictures made of pixels.

use crate::error::{Error, Result};

/// The name of the program that made a file. It stands near the beginning of every SVG, PNG and GIF
/// file, so that a program can recognise its own files.
pub const GENERATOR: &str = "sora-plot";

/// A picture: rows of RGB pixels from the top.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster {
    /// Number of pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// `[height, width, 3]` bytes.
    pub rgb: Vec<u8>,
}

/// The way in which a picture is enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Pixels become squares.
    Pixels,
    /// Colours are interpolated.
    Smooth,
}

impl Raster {
    /// Whether the picture has pixels, and exactly the bytes that its size asks for.
    pub(crate) fn is_whole(&self) -> bool {
        let bytes = u64::from(self.width) * u64::from(self.height) * 3;
        bytes > 0 && bytes == self.rgb.len() as u64
    }

    /// The picture as a PNG file.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>> {
        let failed = |e: png_encoder::EncodingError| Error::Draw(e.to_string());
        let mut bytes = Vec::new();
        let mut encoder = png_encoder::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png_encoder::ColorType::Rgb);
        encoder.add_text_chunk("Software".into(), GENERATOR.into()).map_err(failed)?;
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.rgb).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}
