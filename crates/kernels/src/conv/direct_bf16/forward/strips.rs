//! The outputs of a task from strips.

use super::super::pack::COLUMNS;
use super::super::strips::{self, Strips};
use super::Convolve;
use crate::conv::geometry::ConvGeometry;
use crate::element::Element;
use crate::simd::Simd;
use crate::tile::Term;

/// Number of values of the strips that `pixels` neighbouring outputs of a row read, for one sample.
pub(super) fn scratch_len(geometry: &ConvGeometry, pixels: usize) -> usize {
    let outputs = pixels.clamp(1, geometry.output()[1].max(1));
    ((outputs - 1) * geometry.stride[1] + geometry.kernel[1]) * strips::len(geometry)
}

impl<E: Element> Convolve<'_, E> {
    /// Computes the task's outputs, row by row.
    ///
    /// # Safety
    /// The features of `S` are enabled, and there is one group.
    #[inline(always)]
    pub(super) unsafe fn run_strips<S: Simd>(&self, weights: *const f32, panel_len: usize) {
        let width = self.mapping.to_size[1];
        let count = self.samples.1 - self.samples.0;
        let strip = count * self.depth.term;
        let mut terms = Vec::with_capacity(self.geometry.kernel[1]);
        let mut start = self.pixels.0;
        while start < self.pixels.1 {
            let (y, x) = (start / width, start % width);
            let outputs = (width - x).min(self.pixels.1 - start);
            // SAFETY: the outputs exist, and `gathered` has room for their strips.
            unsafe { self.fill_strips(y, x, outputs) };
            for output in 0..outputs {
                for column in (0..self.mapping.to).step_by(self.columns()) {
                    let weights = weights.wrapping_add(column / COLUMNS * panel_len);
                    terms.clear();
                    terms.extend((0..self.geometry.kernel[1]).map(|kx| {
                        let at = (output * self.geometry.stride[1] + kx) * strip;
                        Term {
                            a: self.gathered.wrapping_add(at).cast_const().cast(),
                            b: weights.wrapping_add(kx * self.depth.term / 2 * COLUMNS),
                        }
                    }));
                    // SAFETY: the caller enabled the features of `S`; each term names strips that
                    // have been made and the weights of a column of the kernel.
                    unsafe { self.multiply::<S>(&mut None, start + output, 0, column, &terms) };
                }
            }
            start += outputs;
        }
    }

    /// Makes the strips that `outputs` outputs from (y, x) on read.
    ///
    /// # Safety
    /// The outputs exist, and `gathered` has room for their strips.
    #[inline(always)]
    unsafe fn fill_strips(&self, y: usize, x: usize, outputs: usize) {
        let geometry = self.geometry;
        let (first, count) = (self.samples.0, self.samples.1 - self.samples.0);
        let source = Strips { geometry, n: self.n, x: self.x };
        for column in 0..(outputs - 1) * geometry.stride[1] + geometry.kernel[1] {
            let out = self.gathered.wrapping_add(column * count * self.depth.term);
            let at = (x * geometry.stride[1] + column).checked_sub(geometry.padding[1]);
            // SAFETY: the caller promises room for the strips; the samples exist, and so does the
            // column where it is one of the image.
            unsafe {
                match at.filter(|&at| at < geometry.input[1]) {
                    Some(at) => source.fill(y, at, (first, count), out),
                    None => out.write_bytes(0, count * self.depth.term),
                }
            }
        }
    }
}
