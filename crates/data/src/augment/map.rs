//! Maps values from an image to its augmented form and back.

use super::bilinear;
use super::draw::AugmentDraw;
use crate::error::{DataError, Result};
use crate::picture::{Picture, Placement, resize};
use crate::window::CropWindow;

impl AugmentDraw {
    /// Maps `image` to augmented coordinates: `out[c, y, x] = image[c, y + dy, x' + dx]`, where
    /// `x'` is `x` or, flipped, `W - 1 - x`; zero outside the image. A cutout is not applied,
    /// because the values may be a perturbation.
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
    /// Elements of `image` that the crop does not show keep their values.
    ///
    /// # Shapes, Errors
    /// Those of [`AugmentDraw::apply`].
    pub fn unapply(&self, augmented: &[f32], image: &mut [f32], shape: [usize; 3]) -> Result<()> {
        self.check(augmented.len(), image.len(), shape)?;
        let [_, height, width] = shape;
        let (columns, source) = visible(self.dx, width);
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

    /// Computes the augmented image in \[0, 1\] from the stored bytes. Both are `[C, H, W]`; the
    /// caller has checked the lengths.
    pub(crate) fn render(&self, image: &[u8], out: &mut [f32], shape: [usize; 3]) {
        let unit = |v: u8| f32::from(v) / 255.0;
        match self.window {
            None => self.shift_flip(image, out, shape, unit),
            Some(window) => bilinear::window(image, out, shape, window, self.flip),
        }
        self.finish(out, shape);
    }

    /// Computes the augmented image in \[0, 1\] from a picture at its own size. The draw has a
    /// window within the picture.
    pub(crate) fn render_picture(
        &self,
        picture: &Picture,
        out: &mut [f32],
        shape: [usize; 3],
    ) -> Result<()> {
        let [channels, height, width] = shape;
        let source = self.window.unwrap_or(CropWindow {
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
        let pixels = resize(picture, &Placement::whole(source, [height, width]));
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

    /// Applies the steps that follow crop and flip.
    fn finish(&self, out: &mut [f32], shape: [usize; 3]) {
        let [_, height, width] = shape;
        if self.angle != 0.0 {
            bilinear::rotate(out, shape, self.angle);
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
        let (columns, source) = visible(self.dx, width);
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
fn visible(d: i32, width: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let offset = (d.unsigned_abs() as usize).min(width);
    if d >= 0 { (0..width - offset, offset..width) } else { (offset..width, 0..width - offset) }
}

fn source_row(y: usize, d: i32, height: usize) -> Option<usize> {
    y.checked_add_signed(d as isize).filter(|&row| row < height)
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
