//! Bilinear resampling: of bytes with a low-pass filter (pictures of any size), of images in memory
//! for resized crops, and for rotation.

use std::ops::Range;

use super::Window;
use crate::picture::Picture;

/// Which part of a picture goes where: the window `source` is resized to `size` (rows, columns), of
/// which `crop` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub source: Window,
    pub size: [usize; 2],
    pub crop: Window,
}

impl Placement {
    /// The window resized to `size`.
    pub(crate) fn whole(source: Window, [height, width]: [usize; 2]) -> Self {
        Self { source, size: [height, width], crop: Window { top: 0, left: 0, height, width } }
    }
}

/// Fraction bits of the filter weights, and the value of one half in them.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

/// Bytes `[crop.height, crop.width, C]` of the picture placed so: first along rows, then along
/// columns, each with a triangle filter widened by the factor of reduction, in fixed-point
/// arithmetic and rounded to bytes in between. These are the numbers of Pillow's `resize(...,
/// BILINEAR)` (to version 11.3; 13 takes columns first where that is less work, which changes bytes
/// by 1), and so of torchvision's `Resize` and `RandomResizedCrop` on PIL images.
///
/// Only what the crop needs is computed. The windows must lie within the picture and the size.
pub(crate) fn resize(picture: &Picture, placement: &Placement) -> Vec<u8> {
    match picture.channels() {
        1 => resize_channels::<1>(picture, placement),
        _ => resize_channels::<3>(picture, placement),
    }
}

fn resize_channels<const C: usize>(picture: &Picture, placement: &Placement) -> Vec<u8> {
    let Placement { source, size, crop } = *placement;
    let rows = Filter::new(source.height, size[0], crop.top..crop.top + crop.height);
    let columns = Filter::new(source.width, size[1], crop.left..crop.left + crop.width);
    let first = rows.taps.first().map_or(0, |t| t.start);
    let last = rows.taps.iter().map(|t| t.start + t.count).max().unwrap_or(0);
    let stride = picture.width() * C;
    // Rows of the source that the crop needs, resized horizontally.
    let mut middle = vec![0u8; (last - first) * crop.width * C];
    for (out, y) in middle.chunks_exact_mut(crop.width * C).zip(first..last) {
        let line =
            &picture.pixels()[(source.top + y) * stride + source.left * C..][..source.width * C];
        for (out, tap) in out.as_chunks_mut::<C>().0.iter_mut().zip(&columns.taps) {
            let mut sums = [HALF; C];
            let pixels = line[tap.start * C..][..tap.count * C].as_chunks::<C>().0;
            for (pixel, &weight) in pixels.iter().zip(columns.weights(tap)) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = byte(sum);
            }
        }
    }
    let width = crop.width * C;
    let mut result = vec![0u8; crop.height * width];
    let mut sums = vec![HALF; width];
    for (out, tap) in result.chunks_exact_mut(width).zip(&rows.taps) {
        sums.fill(HALF);
        let lines = middle[(tap.start - first) * width..][..tap.count * width].chunks_exact(width);
        for (line, &weight) in lines.zip(rows.weights(tap)) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = byte(sum);
        }
    }
    result
}

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The filter of one direction: for each output position its first source position and its weights.
struct Filter {
    taps: Vec<FilterTap>,
    weights: Vec<i32>,
}

struct FilterTap {
    start: usize,
    count: usize,
    at: usize,
}

impl Filter {
    fn new(from: usize, to: usize, wanted: Range<usize>) -> Self {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let narrowing = 1.0 / support;
        let mut filter = Self { taps: Vec::with_capacity(wanted.len()), weights: Vec::new() };
        let mut exact = Vec::new();
        for i in wanted {
            let centre = (i as f64 + 0.5) * scale;
            // `as` saturates at 0.
            let start = ((centre - support + 0.5) as usize).min(from - 1);
            let end = ((centre + support + 0.5) as usize).clamp(start + 1, from);
            exact.clear();
            exact.extend(
                (start..end)
                    .map(|x| (1.0 - ((x as f64 - centre + 0.5) * narrowing).abs()).max(0.0)),
            );
            let total: f64 = exact.iter().sum();
            let total = if total > 0.0 { total } else { 1.0 };
            filter.taps.push(FilterTap { start, count: exact.len(), at: filter.weights.len() });
            filter
                .weights
                .extend(exact.iter().map(|w| (0.5 + w / total * f64::from(1u32 << BITS)) as i32));
        }
        filter
    }

    fn weights(&self, tap: &FilterTap) -> &[i32] {
        &self.weights[tap.at..][..tap.count]
    }
}

/// Resizes the window to the whole of `out`, bilinear with half-pixel centres, and maps bytes to
/// \[0, 1\]. The window is never larger than the output, so no low-pass filter is needed.
pub(super) fn window(image: &[u8], out: &mut [f32], shape: [usize; 3], window: Window, flip: bool) {
    let [_, height, width] = shape;
    let rows = taps(window.top, window.height, height);
    let mut columns = taps(window.left, window.width, width);
    if flip {
        columns.reverse();
    }
    for (image, out) in image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width))
    {
        for (row, vertical) in out.chunks_exact_mut(width).zip(&rows) {
            let upper = &image[vertical.low * width..][..width];
            let lower = &image[vertical.high * width..][..width];
            for (value, tap) in row.iter_mut().zip(&columns) {
                let mix = |line: &[u8]| {
                    let (a, b) = (f32::from(line[tap.low]), f32::from(line[tap.high]));
                    a + (b - a) * tap.part
                };
                let (a, b) = (mix(upper), mix(lower));
                *value = (a + (b - a) * vertical.part) / 255.0;
            }
        }
    }
}

/// The two source positions of an output position and the share of the second.
struct Tap {
    low: usize,
    high: usize,
    part: f32,
}

fn taps(start: usize, from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|i| {
            let at = ((i as f32 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f32);
            let low = at as usize;
            Tap { low: start + low, high: start + (low + 1).min(from - 1), part: at - low as f32 }
        })
        .collect()
}

/// Rotates `image` in place by `degrees` counter-clockwise about its centre, bilinear; what comes
/// from outside is zero.
pub(super) fn rotate(image: &mut [f32], shape: [usize; 3], degrees: f32) {
    let [_, height, width] = shape;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (cy, cx) = ((height - 1) as f32 / 2.0, (width - 1) as f32 / 2.0);
    let mut source = vec![0.0; height * width];
    for plane in image.chunks_exact_mut(height * width) {
        source.copy_from_slice(plane);
        let pixel = |y: isize, x: isize| -> f32 {
            let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
            if inside { source[y as usize * width + x as usize] } else { 0.0 }
        };
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            let dy = y as f32 - cy;
            for (x, value) in row.iter_mut().enumerate() {
                let dx = x as f32 - cx;
                // Rows grow downwards, so turning the picture counter-clockwise reads clockwise
                // from the target.
                let (sx, sy) = (cos * dx - sin * dy + cx, sin * dx + cos * dy + cy);
                let (fx, fy) = (sx.floor(), sy.floor());
                let (px, py) = (sx - fx, sy - fy);
                let (ix, iy) = (fx as isize, fy as isize);
                let top = pixel(iy, ix) * (1.0 - px) + pixel(iy, ix + 1) * px;
                let bottom = pixel(iy + 1, ix) * (1.0 - px) + pixel(iy + 1, ix + 1) * px;
                *value = top * (1.0 - py) + bottom * py;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AugmentDraw, Window};
    use super::*;

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() < 1e-5, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_quarter_turn_by_hand() {
        // 1 2      2 4
        // 3 4  ->  1 3   counter-clockwise
        let mut image = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut image, [1, 2, 2], 90.0);
        close(&image, &[2.0, 4.0, 1.0, 3.0]);
        let mut image = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut image, [1, 2, 2], -90.0);
        close(&image, &[3.0, 1.0, 4.0, 2.0]);
    }

    #[test]
    fn half_of_45_degrees_by_hand() {
        // The corner (0,0) of 3x3 reads from distance sqrt(2) straight left of the centre row:
        // column 1 - sqrt(2) < 0.
        let mut image = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        rotate(&mut image, [1, 3, 3], 45.0);
        // Output (2,0): offset (dx,dy) = (-1,1) -> source dx = cos*(-1) - sin*1 = -sqrt(2), dy = 0:
        // column -0.414, weight of column 0 is 1 - 0.414.
        let sqrt2 = 2.0f32.sqrt();
        assert!((image[6] - (2.0 - sqrt2)).abs() < 1e-5, "{image:?}");
        assert_eq!(image[4], 0.0);
    }

    #[test]
    fn a_window_of_everything_is_the_image() {
        let image = [0, 51, 102, 153, 204, 255];
        let all = Window { top: 0, left: 0, height: 2, width: 3 };
        let mut out = [0.0; 6];
        window(&image, &mut out, [1, 2, 3], all, false);
        close(&out, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        AugmentDraw { window: Some(all), flip: true, ..AugmentDraw::IDENTITY }.render(
            &image,
            &mut out,
            [1, 2, 3],
        );
        close(&out, &[0.4, 0.2, 0.0, 1.0, 0.8, 0.6]);
    }

    #[test]
    fn a_window_twice_enlarged_by_hand() {
        // Columns 1..3 of one row of four: values 1.0 and 0.0 spread over 4 columns at -0.25, 0.25,
        // 0.75, 1.25.
        let image = [7, 255, 0, 7];
        let mut out = [0.0; 4];
        window(&image, &mut out, [1, 1, 4], Window { top: 0, left: 1, height: 1, width: 2 }, false);
        close(&out, &[1.0, 0.75, 0.25, 0.0]);
    }
}
