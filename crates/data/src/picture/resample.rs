//! Bilinear resampling of bytes with a low-pass filter, for pictures of any size.

use std::ops::Range;

use super::pixels::Picture;
use crate::window::CropWindow;

/// A placement of a picture: the window `source` is resized to `size` (rows, columns), and the part
/// `crop` of the result is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub source: CropWindow,
    pub size: [usize; 2],
    pub crop: CropWindow,
}

impl Placement {
    /// The whole window `source`, resized to `size`.
    pub(crate) fn whole(source: CropWindow, [height, width]: [usize; 2]) -> Self {
        Self { source, size: [height, width], crop: CropWindow { top: 0, left: 0, height, width } }
    }
}

/// Fraction bits of the filter weights, and the value of one half in them.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

/// Returns the bytes `[crop.height, crop.width, C]` of the placed picture. Rows are resampled
/// first, then columns, each with a triangle filter widened by the factor of reduction, in
/// fixed-point arithmetic and rounded to bytes in between. The results equal Pillow's `resize(...,
/// BILINEAR)` (to version 11.3; 13 takes columns first where that is less work, which changes bytes
/// by 1), and so torchvision's `Resize` and `RandomResizedCrop` on PIL images.
///
/// Only the pixels that the crop needs are computed. The windows must lie within the picture and
/// the size.
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

/// The filter of one direction: the first source position and the weights of each output position.
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
