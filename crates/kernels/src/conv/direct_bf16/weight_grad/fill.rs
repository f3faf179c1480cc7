//! The operands of a step: input rows in a ring, output gradients.

use half::bf16;

use super::super::operands::{Samples, interleave, turn};
use super::super::pack::COLUMNS;
use super::WeightGrad;
use crate::element::Element;

impl<E: Element> WeightGrad<'_, E> {
    /// Makes the operands of a step's output rows. The ring already holds the input rows before
    /// `next_row`. Returns the first input row that the ring does not hold yet.
    ///
    /// # Safety
    /// The instruction set's features are enabled; rows and samples exist.
    #[inline(always)]
    pub(super) unsafe fn fill(
        &self,
        rows: (usize, usize),
        next_row: usize,
        samples: Samples,
        used: &[Vec<bool>; 2],
    ) -> usize {
        let geometry = self.geometry;
        let (stride, padding) = (geometry.stride[0], geometry.padding[0]);
        let needed = (rows.0 * stride).saturating_sub(padding);
        let end = ((rows.1 - 1) * stride + geometry.kernel[0])
            .saturating_sub(padding)
            .min(geometry.input[0]);
        for row in (needed.max(next_row)..end).filter(|&row| used[0][row]) {
            for column in (0..geometry.input[1]).filter(|&column| used[1][column]) {
                // SAFETY: the caller enabled the features and promises samples that exist; the ring
                // holds the rows of a step.
                unsafe { self.fill_left(row, column, samples) };
            }
        }
        for row in rows.0..rows.1 {
            for column in 0..geometry.output()[1] {
                // SAFETY: the caller enabled the features and promises that the row exists.
                unsafe { self.fill_right(row - rows.0, row, column, samples) };
            }
        }
        next_row.max(end)
    }

    /// Address of the left operand of an input pixel.
    #[inline(always)]
    pub(super) fn left(&self, row: usize, column: usize) -> *mut bf16 {
        let pixel = row % self.plan.ring * self.geometry.input[1] + column;
        self.left.wrapping_add(pixel * self.padded[0] * self.plan.samples)
    }

    /// Address of the right operand of an output pixel; `row` counts from the step's first row.
    #[inline(always)]
    pub(super) fn right(&self, row: usize, column: usize) -> *mut bf16 {
        let pixel = row * self.geometry.output()[1] + column;
        self.right.wrapping_add(pixel * self.padded[1] * self.plan.samples)
    }

    /// Fills the left operand of an input pixel.
    ///
    /// # Safety
    /// The instruction set's features are enabled; the pixel and the samples exist.
    #[inline(always)]
    unsafe fn fill_left(&self, row: usize, column: usize, samples: Samples) {
        // SAFETY: the caller enabled the features and promises a pixel and samples that exist; the
        // operand has room for them.
        unsafe {
            let geometry = self.geometry;
            let pixel = (row * geometry.input[1] + column) * self.n + samples.first;
            let x = match &self.strips {
                None => self.x.wrapping_add(pixel * geometry.in_channels),
                Some(strips) => {
                    let strip = self.strip.cast();
                    strips.fill(row, column, (samples.first, samples.count), strip);
                    strip.cast_const()
                }
            };
            let first = self.group * geometry.group_in() + self.from_range.0;
            let x = x.wrapping_add(first).cast();
            let width = self.from_range.1 - self.from_range.0;
            let out = self.left(row, column).cast();
            if self.tiles {
                turn(
                    x,
                    geometry.in_channels,
                    samples,
                    width,
                    self.padded[0],
                    out,
                    self.plan.samples / 2,
                );
            } else {
                interleave(x, geometry.in_channels, samples, width, out, self.padded[0]);
            }
        }
    }

    /// Fills the right operand of an output pixel, in row `step_row` of the step.
    ///
    /// # Safety
    /// The instruction set's features are enabled; the pixel and the samples exist.
    #[inline(always)]
    unsafe fn fill_right(&self, step_row: usize, row: usize, column: usize, samples: Samples) {
        // SAFETY: the caller enabled the features and promises a pixel and samples that exist; the
        // operand has room for them.
        unsafe {
            let geometry = self.geometry;
            let pixel = (row * geometry.output()[1] + column) * self.n + samples.first;
            let dy = self.dy.add(
                pixel * geometry.out_channels + self.group * geometry.group_out() + self.to_range.0,
            );
            let width = self.to_range.1 - self.to_range.0;
            for first in (0..width).step_by(COLUMNS) {
                let panel = self.right(step_row, column).add(first * self.plan.samples);
                // The second half of a half-empty panel keeps arbitrary values; its columns are
                // dropped later.
                interleave(
                    dy.add(first).cast(),
                    geometry.out_channels,
                    samples,
                    (width - first).min(COLUMNS),
                    panel.cast(),
                    COLUMNS,
                );
            }
        }
    }
}
