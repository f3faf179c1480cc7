//! Figures as pixels. The font is part of the program, so that text is there on a machine without
//! fonts.

use std::sync::{Arc, LazyLock};

use resvg::{
    tiny_skia::{Color, FilterQuality, Pixmap, PixmapPaint, Transform},
    usvg::{Options, Tree, fontdb},
};

use crate::error::{Error, Result};
use crate::svg::Svg;

/// Inter (SIL Open Font License 1.1, see font/OFL.txt), cut down to Latin, Greek, Cyrillic and
/// symbols.
const FONTS: [&[u8]; 2] =
    [include_bytes!("font/Inter-Regular.otf"), include_bytes!("font/Inter-SemiBold.otf")];

static FONT_DATABASE: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    FONTS.iter().for_each(|font| fonts.load_font_data(font.to_vec()));
    fonts.set_sans_serif_family("Inter");
    Arc::new(fonts)
});

/// Largest side of a picture in pixels.
const LARGEST: f64 = 20_000.0;

/// Draws `svg` on white, `scale` pixels for each of its own.
///
/// # Errors
/// A size that no picture has.
pub fn pixmap(svg: &Svg, scale: f32) -> Result<Pixmap> {
    let [width, height] = svg.size().map(|side| (side * f64::from(scale)).ceil());
    let fits = |side: f64| (1.0..=LARGEST).contains(&side);
    let made =
        if fits(width) && fits(height) { Pixmap::new(width as u32, height as u32) } else { None };
    let mut pixmap = made.ok_or(Error::PictureSize { width, height, most: LARGEST })?;
    pixmap.fill(Color::WHITE);
    let (text, pictures) = svg.layers();
    for ([x, y, w, h], smooth, picture) in pictures {
        let to = Transform::from_scale(scale, scale)
            .pre_translate(x as f32, y as f32)
            .pre_scale(w as f32 / picture.width() as f32, h as f32 / picture.height() as f32);
        let quality = if smooth { FilterQuality::Bilinear } else { FilterQuality::Nearest };
        pixmap.draw_pixmap(
            0,
            0,
            picture.as_ref(),
            &PixmapPaint { quality, ..PixmapPaint::default() },
            to,
            None,
        );
    }
    let options = Options {
        fontdb: FONT_DATABASE.clone(),
        font_family: "Inter".into(),
        ..Options::default()
    };
    let tree = Tree::from_str(&text, &options).map_err(|e| Error::Draw(e.to_string()))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    Ok(pixmap)
}

/// `svg` as a PNG file.
///
/// # Errors
/// As [`pixmap`].
pub fn png(svg: &Svg, scale: f32) -> Result<Vec<u8>> {
    pixmap(svg, scale)?.encode_png().map_err(|e| Error::Draw(e.to_string()))
}

/// `frames` as an animated GIF that repeats, each shown for `hundredths` of a second; the last one
/// four times as long.
///
/// # Errors
/// No frame, frames of different sizes, or a size that GIF cannot hold.
pub fn gif(frames: &[Svg], scale: f32, hundredths: u16) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Draw(e.to_string());
    let [width, height] = frames.first().ok_or(Error::NoFrame)?.size();
    let side = |v: f64| {
        let pixels = (v * f64::from(scale)).ceil();
        let fits = (1.0..=65535.0).contains(&pixels);
        if fits { Ok(pixels as u16) } else { Err(Error::FrameSize { pixels: pixels as u32 }) }
    };
    let mut bytes = Vec::new();
    let mut encoder =
        gif::Encoder::new(&mut bytes, side(width)?, side(height)?, &[]).map_err(|e| failed(&e))?;
    encoder.set_repeat(gif::Repeat::Infinite).map_err(|e| failed(&e))?;
    for (i, svg) in frames.iter().enumerate() {
        let mut pixels = pixmap(svg, scale)?;
        let [width, height] = svg.size();
        let (width, height) = (side(width)?, side(height)?);
        // 1 (best) to 30 (fastest): drawings have few colours.
        let mut frame = gif::Frame::from_rgba_speed(width, height, pixels.data_mut(), 10);
        frame.delay = if i + 1 == frames.len() { hundredths.saturating_mul(4) } else { hundredths };
        encoder.write_frame(&frame).map_err(|e| failed(&e))?;
    }
    drop(encoder);
    Ok(bytes)
}
