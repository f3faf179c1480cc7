//! Turns drawings into pixels. The font is part of the crate, so that a machine without fonts shows
//! text too.

use std::sync::{Arc, LazyLock};

use resvg::{
    tiny_skia::{Color, ColorU8, FilterQuality, Pixmap, PixmapPaint, Transform},
    usvg::{Options, Tree, fontdb},
};

use crate::{
    error::{Error, Result},
    picture::{Raster, Scaling},
    svg::{Placed, Svg},
};

/// Inter (SIL Open Font License 1.1, see font/OFL.txt), reduced to Latin, Greek, Cyrillic and
/// symbols.
const FONTS: [&[u8]; 2] =
    [include_bytes!("../font/Inter-Regular.otf"), include_bytes!("../font/Inter-SemiBold.otf")];

static FONT_DATABASE: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    FONTS.iter().for_each(|font| fonts.load_font_data(font.to_vec()));
    fonts.set_sans_serif_family("Inter");
    Arc::new(fonts)
});

/// Largest side of a picture in pixels.
const LARGEST: f64 = 20_000.0;

/// Draws `svg` on white, with `scale` pixels for each pixel of the drawing.
///
/// # Errors
/// [`Error`] when a side has no pixel, or more than [`LARGEST`].
pub(crate) fn pixmap(svg: &Svg, scale: f32) -> Result<Pixmap> {
    let [width, height] = svg.size().map(|side| (side * f64::from(scale)).ceil());
    let fits = |side: f64| (1.0..=LARGEST).contains(&side);
    let made =
        if fits(width) && fits(height) { Pixmap::new(width as u32, height as u32) } else { None };
    let mut pixmap = made.ok_or(Error::PictureSize { width, height, most: LARGEST })?;
    pixmap.fill(Color::WHITE);
    let (text, pictures) = svg.layers();
    for Placed { at: [x, y, w, h], scaling, picture } in pictures {
        let Some(picture) = pixels(picture) else { continue };
        let to = Transform::from_scale(scale, scale)
            .pre_translate(*x as f32, *y as f32)
            .pre_scale(*w as f32 / picture.width() as f32, *h as f32 / picture.height() as f32);
        let quality = match scaling {
            Scaling::Smooth => FilterQuality::Bilinear,
            Scaling::Pixels => FilterQuality::Nearest,
        };
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

fn pixels(picture: &Raster) -> Option<Pixmap> {
    let mut pixmap = Pixmap::new(picture.width, picture.height)?;
    for (to, [r, g, b]) in pixmap.pixels_mut().iter_mut().zip(picture.rgb.as_chunks::<3>().0) {
        *to = ColorU8::from_rgba(*r, *g, *b, 255).premultiply();
    }
    Some(pixmap)
}

/// `svg` as a PNG file.
pub(crate) fn png(svg: &Svg, scale: f32) -> Result<Vec<u8>> {
    let pixmap = pixmap(svg, scale)?;
    // The drawing lies on white, so every pixel is opaque.
    let rgb = pixmap.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    Raster { width: pixmap.width(), height: pixmap.height(), rgb }.to_png()
}
