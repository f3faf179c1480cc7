//! The drawn geometry of one sample and its maps.

use rand::{Rng, RngExt};

use super::resample::{self, Placement};
use crate::error::{DataError, Result};
use crate::picture::Picture;

/// What was drawn for one sample. Coordinates are rows and columns of the image, from the top left.
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
    /// The window of a resized crop: in the image, or for a set decoded on demand in the picture as
    /// it is in its file.
    pub window: Option<Window>,
    /// The part that is blackened (last).
    pub cutout: Option<Window>,
}

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Window {
    pub(super) fn draw(rng: &mut impl Rng, height: usize, width: usize, min_scale: f32) -> Self {
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

    /// The part within the image of a square of `side` pixels whose centre is anywhere in it.
    pub(super) fn cutout(rng: &mut impl Rng, [height, width]: [usize; 2], side: usize) -> Self {
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

impl AugmentDraw {
    /// The draw that changes nothing.
    pub const IDENTITY: Self =
        Self { dy: 0, dx: 0, flip: false, angle: 0.0, window: None, cutout: None };

    /// Whether the map moves whole pixels only (crop offset and flip), so that
    /// [`AugmentDraw::apply`] and [`AugmentDraw::unapply`] are exact. A cutout moves nothing.
    pub fn is_exact(&self) -> bool {
        self.window.is_none() && self.angle == 0.0
    }

    /// Maps `image` to augmented coordinates: `out[c, y, x] = image[c, y + dy, x' + dx]`, where
    /// `x'` is `x` or, flipped, `W - 1 - x`; zero outside the image. A cutout is left out: what is
    /// mapped may be a perturbation.
    ///
    /// # Shapes
    /// Both `[C, H, W]` = `shape`; any values.
    ///
    /// # Errors
    /// [`DataError::Value`] when a length does not fit `shape` or the draw is not
    /// [exact](AugmentDraw::is_exact).
    pub fn apply(&self, image: &[f32], out: &mut [f32], shape: [usize; 3]) -> Result<()> {
        self.check(image.len(), out.len(), shape)?;
        self.shift_flip(image, out, shape, |v| v);
        Ok(())
    }

    /// Writes `augmented` back to un-augmented coordinates: the inverse of [`AugmentDraw::apply`].
    /// Elements of `image` that the crop does not show are left as they are.
    ///
    /// # Shapes, Errors
    /// As [`AugmentDraw::apply`].
    pub fn unapply(&self, augmented: &[f32], image: &mut [f32], shape: [usize; 3]) -> Result<()> {
        self.check(augmented.len(), image.len(), shape)?;
        let [_, height, width] = shape;
        let (columns, source) = shown(self.dx, width);
        for (out, image) in
            augmented.chunks_exact(height * width).zip(image.chunks_exact_mut(height * width))
        {
            for (y, row) in out.chunks_exact(width).enumerate() {
                let Some(sy) = source_row(y, self.dy, height) else { continue };
                let image_row = &mut image[sy * width..][..width];
                for (x, value) in columns.clone().zip(&mut image_row[source.clone()]) {
                    *value = row[if self.flip { width - 1 - x } else { x }];
                }
            }
        }
        Ok(())
    }

    /// The augmented image in \[0, 1\] from the stored bytes; both `[C, H, W]` with lengths already
    /// checked.
    pub(crate) fn render(&self, image: &[u8], out: &mut [f32], shape: [usize; 3]) {
        let unit = |v: u8| f32::from(v) / 255.0;
        match self.window {
            None => self.shift_flip(image, out, shape, unit),
            Some(window) => resample::window(image, out, shape, window, self.flip),
        }
        self.finish(out, shape);
    }

    /// The augmented image in \[0, 1\] from a picture in its own size; the draw has a window within
    /// it.
    pub(crate) fn render_picture(
        &self,
        picture: &Picture,
        out: &mut [f32],
        shape: [usize; 3],
    ) -> Result<()> {
        let [channels, height, width] = shape;
        let source = self.window.unwrap_or(Window {
            top: 0,
            left: 0,
            height: picture.height(),
            width: picture.width(),
        });
        if picture.channels() != channels {
            return Err(DataError::value(
                "picture",
                format!("{} channels", picture.channels()),
                format!("{channels}"),
            ));
        }
        let pixels = resample::resize(picture, &Placement::whole(source, [height, width]));
        for (channel, plane) in out.chunks_exact_mut(height * width).enumerate() {
            let values = pixels.iter().skip(channel).step_by(channels);
            plane.iter_mut().zip(values).for_each(|(out, &byte)| *out = f32::from(byte) / 255.0);
            if self.flip {
                plane.chunks_exact_mut(width).for_each(<[f32]>::reverse);
            }
        }
        self.finish(out, shape);
        Ok(())
    }

    /// What comes after crop and flip.
    fn finish(&self, out: &mut [f32], shape: [usize; 3]) {
        let [_, height, width] = shape;
        if self.angle != 0.0 {
            resample::rotate(out, shape, self.angle);
        }
        if let Some(hole) = self.cutout {
            for plane in out.chunks_exact_mut(height * width) {
                for row in plane.chunks_exact_mut(width).skip(hole.top).take(hole.height) {
                    row[hole.left..][..hole.width].fill(0.0);
                }
            }
        }
    }

    fn shift_flip<T: Copy>(
        &self,
        image: &[T],
        out: &mut [f32],
        shape: [usize; 3],
        value: impl Fn(T) -> f32,
    ) {
        let [_, height, width] = shape;
        let (columns, source) = shown(self.dx, width);
        for (image, out) in
            image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width))
        {
            for (y, row) in out.chunks_exact_mut(width).enumerate() {
                let Some(sy) = source_row(y, self.dy, height) else {
                    row.fill(0.0);
                    continue;
                };
                row[..columns.start].fill(0.0);
                row[columns.end..].fill(0.0);
                let pixels = &image[sy * width..][source.clone()];
                for (out, &pixel) in row[columns.clone()].iter_mut().zip(pixels) {
                    *out = value(pixel);
                }
                if self.flip {
                    row.reverse();
                }
            }
        }
    }

    fn check(&self, from: usize, to: usize, shape: [usize; 3]) -> Result<()> {
        let n: usize = shape.iter().product();
        if from != n || to != n || n == 0 {
            return Err(DataError::value(
                "image length",
                format!("{from} and {to}"),
                format!("both {n} (shape {shape:?})"),
            ));
        }
        if !self.is_exact() {
            return Err(DataError::value(
                "augmentation",
                "rotation or resized crop",
                "crop with padding and flip only, where a perturbation is mapped between coordinates",
            ));
        }
        Ok(())
    }
}

/// Output columns (before the flip) that show a source column at offset `d`, and those source
/// columns.
fn shown(d: i32, width: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let offset = (d.unsigned_abs() as usize).min(width);
    if d >= 0 { (0..width - offset, offset..width) } else { (offset..width, 0..width - offset) }
}

fn source_row(y: usize, d: i32, height: usize) -> Option<usize> {
    y.checked_add_signed(d as isize).filter(|&row| row < height)
}

#[cfg(test)]
mod tests {
    use super::super::Augment;
    use super::*;
    use proptest::prelude::*;
    use sora_rng::{Purpose, stream};

    const SHAPE: [usize; 3] = [1, 2, 3];
    const IMAGE: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    fn applied(draw: AugmentDraw) -> [f32; 6] {
        let mut out = [9.0; 6];
        draw.apply(&IMAGE, &mut out, SHAPE).unwrap();
        out
    }

    #[test]
    fn by_hand() {
        let id = AugmentDraw::IDENTITY;
        assert_eq!(applied(id), IMAGE);
        assert_eq!(applied(AugmentDraw { flip: true, ..id }), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        // One down, one to the left of the source: row 0 shows row 1, column 0 shows nothing.
        assert_eq!(applied(AugmentDraw { dy: 1, dx: -1, ..id }), [0.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
        assert_eq!(
            applied(AugmentDraw { dy: 1, dx: -1, flip: true, ..id }),
            [5.0, 4.0, 0.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(applied(AugmentDraw { dy: -1, dx: 2, ..id }), [0.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
        assert_eq!(applied(AugmentDraw { dy: 0, dx: 3, ..id }), [0.0; 6]);
        assert_eq!(applied(AugmentDraw { dy: 0, dx: i32::MIN, ..id }), [0.0; 6]);
        assert_eq!(applied(AugmentDraw { dy: i32::MAX, dx: 0, ..id }), [0.0; 6]);
    }

    #[test]
    fn unapply_leaves_what_the_crop_does_not_show() {
        let draw = AugmentDraw { dy: 1, dx: -1, flip: true, ..AugmentDraw::IDENTITY };
        let mut stored = IMAGE;
        draw.unapply(&[50.0, 40.0, 7.0, 7.0, 7.0, 7.0], &mut stored, SHAPE).unwrap();
        assert_eq!(stored, [1.0, 2.0, 3.0, 40.0, 50.0, 6.0]);
    }

    #[test]
    fn inexact_maps_and_wrong_lengths_are_refused() {
        let turned = AugmentDraw { angle: 1.0, ..AugmentDraw::IDENTITY };
        let error = turned.apply(&IMAGE, &mut [0.0; 6], SHAPE).unwrap_err().to_string();
        assert!(error.contains("rotation"), "{error}");
        assert!(AugmentDraw::IDENTITY.apply(&IMAGE, &mut [0.0; 5], SHAPE).is_err());
        assert!(AugmentDraw::IDENTITY.unapply(&[], &mut [], [0, 2, 3]).is_err());
    }

    #[test]
    fn windows_fit_and_have_the_area_asked_for() {
        for (height, width) in [(32, 32), (224, 160), (1, 1), (3, 200)] {
            for sample in 0..500 {
                let window = Window::draw(
                    &mut stream(3, Purpose::Augment, 0, 0, sample),
                    height,
                    width,
                    0.25,
                );
                assert!(window.height >= 1 && window.width >= 1);
                assert!(
                    window.top + window.height <= height && window.left + window.width <= width
                );
                if (height, width) == (32, 32) {
                    let share = (window.height * window.width) as f32 / 1024.0;
                    assert!(share > 0.22, "{window:?}");
                    let ratio = window.width as f32 / window.height as f32;
                    assert!((0.7..1.43).contains(&ratio), "{window:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn apply_after_unapply_gives_back_what_is_shown(
            c in 1usize..4, h in 1usize..7, w in 1usize..7, pad in 0usize..5, sample: u64,
        ) {
            let shape = [c, h, w];
            let n = c * h * w;
            let augment = Augment { crop: super::super::Crop::Pad(pad), flip: true, ..Augment::NONE };
            let draw = augment.draw(&mut stream(1, Purpose::Augment, 0, 0, sample), h, w);
            let image: Vec<f32> = (1..=n).map(|v| v as f32).collect();
            let mut out = vec![0.0; n];
            draw.apply(&image, &mut out, shape).unwrap();
            // unapply . apply restores exactly the shown elements and touches no other.
            let mut back = vec![-1.0; n];
            draw.unapply(&out, &mut back, shape).unwrap();
            let visible = out.iter().filter(|v| **v != 0.0).count();
            prop_assert_eq!(back.iter().filter(|v| **v != -1.0).count(), visible);
            for (b, i) in back.iter().zip(&image) {
                prop_assert!(*b == -1.0 || b == i);
            }
            // apply . unapply is the identity on augmented images that are zero outside.
            let mut again = vec![9.0; n];
            draw.apply(&back, &mut again, shape).unwrap();
            prop_assert_eq!(again, out);
        }

        #[test]
        fn bytes_and_floats_agree(sample: u64, image in proptest::collection::vec(any::<u8>(), 2 * 5 * 6)) {
            let shape = [2, 5, 6];
            let draw = "crop:3,flip".parse::<Augment>().unwrap()
                .draw(&mut stream(1, Purpose::Augment, 0, 0, sample), 5, 6);
            let floats: Vec<f32> = image.iter().map(|&v| f32::from(v) / 255.0).collect();
            let (mut a, mut b) = (vec![0.0; 60], vec![0.0; 60]);
            draw.render(&image, &mut a, shape);
            draw.apply(&floats, &mut b, shape).unwrap();
            prop_assert_eq!(a, b);
        }
    }
}
