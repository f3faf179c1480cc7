//! The random draws for one sample.

use rand::{Rng, RngExt};

use super::spec::{Augment, Crop};
use crate::window::CropWindow;

/// The random draws for one sample. Coordinates are rows and columns of the image, from the top
/// left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AugmentDraw {
    /// Vertical offset of the crop: output row `y` shows source row `y + dy`.
    pub dy: i32,
    /// Horizontal offset of the crop, before the flip.
    pub dx: i32,
    /// Whether the image is mirrored left to right (after the crop).
    pub flip: bool,
    /// Counter-clockwise rotation in degrees (after the flip).
    pub angle: f32,
    /// The window of a resized crop. It lies in the image, or, for a set decoded on demand, in the
    /// picture at the size of its file.
    pub window: Option<CropWindow>,
    /// The rectangle that is blackened last.
    pub cutout: Option<CropWindow>,
}

impl AugmentDraw {
    /// The draw that changes nothing.
    pub const IDENTITY: Self =
        Self { dy: 0, dx: 0, flip: false, angle: 0.0, window: None, cutout: None };

    /// Whether the draw only moves whole pixels (crop offset and flip), so that
    /// [`AugmentDraw::apply`] and [`AugmentDraw::unapply`] are exact. A cutout moves nothing.
    pub fn is_exact(&self) -> bool {
        self.window.is_none() && self.angle == 0.0
    }
}

impl Augment {
    /// Draws the parameters for one image of `height` x `width` pixels.
    pub fn draw(&self, rng: &mut impl Rng, height: usize, width: usize) -> AugmentDraw {
        self.draw_in(rng, [height, width], [height, width])
    }

    /// Draws the parameters for a picture of `picture` = \[height, width\] pixels that becomes an
    /// image of `image` = \[height, width\] pixels.
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
                // `check` bounds the padding; the clamp only guards the conversion.
                let pad = pad.min(Self::MAX_PAD) as i32;
                draw.dy = rng.random_range(-pad..=pad);
                draw.dx = rng.random_range(-pad..=pad);
            }
            Crop::Resized { min_scale } => {
                draw.window = Some(CropWindow::draw(rng, picture[0], picture[1], min_scale))
            }
        }
        if self.flip {
            draw.flip = rng.random();
        }
        if self.rotate > 0.0 {
            draw.angle = self.rotate * (2.0 * rng.random::<f32>() - 1.0);
        }
        if self.cutout > 0 {
            draw.cutout = Some(CropWindow::cutout(rng, image, self.cutout));
        }
        draw
    }
}

/// Draws the rectangles of crops and cutouts.
impl CropWindow {
    pub(crate) fn draw(rng: &mut impl Rng, height: usize, width: usize, min_scale: f32) -> Self {
        const RATIO: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);
        let area = (height * width) as f32;
        for _ in 0..10 {
            let part = area * (min_scale + (1.0 - min_scale) * rng.random::<f32>());
            let log_ratio = RATIO.0.ln() + (RATIO.1.ln() - RATIO.0.ln()) * rng.random::<f32>();
            let w = (part * log_ratio.exp()).sqrt().round() as usize;
            let h = (part / log_ratio.exp()).sqrt().round() as usize;
            if (1..=height).contains(&h) && (1..=width).contains(&w) {
                return Self {
                    top: rng.random_range(0..=height - h),
                    left: rng.random_range(0..=width - w),
                    height: h,
                    width: w,
                };
            }
        }
        let ratio = (width as f32 / height as f32).clamp(RATIO.0, RATIO.1);
        let w = ((height as f32 * ratio).round() as usize).clamp(1, width);
        let h = ((width as f32 / ratio).round() as usize).clamp(1, height);
        Self { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }

    /// Draws a square of `side` pixels whose centre is anywhere in the image, and returns the part
    /// of it within the image.
    pub(crate) fn cutout(rng: &mut impl Rng, [height, width]: [usize; 2], side: usize) -> Self {
        let mut span = |length: usize| {
            let start = rng.random_range(0..length) as i64 - (side / 2) as i64;
            let end = (start + side as i64).clamp(0, length as i64) as usize;
            let start = start.clamp(0, length as i64) as usize;
            (start, end - start)
        };
        let (top, rows) = span(height);
        let (left, columns) = span(width);
        Self { top, left, height: rows, width: columns }
    }
}
