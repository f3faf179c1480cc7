//! Transforms input tiles to their points.

use super::grid::{Block, Grid};
use super::transform::{self, IN, POINTS, columns};
use crate::conv::partial::Rows;
use crate::element::Element;
use crate::simd::{Kernel, Simd, load};

/// Computes `V = B^T d B` for a block of rows and a range of channels, `[point][row][channel]`.
pub(super) struct InputTransform<E, R = Block> {
    pub grid: Grid,
    /// Number of channels of `x`.
    pub channels: usize,
    pub x: *const E,
    pub rows: R,
    pub range: (usize, usize),
    pub v: *mut f32,
    pub v_row: usize,
    pub v_point: usize,
}

impl<E: Element, R: Rows<E>> Kernel for InputTransform<E, R> {
    type Element = E;
    type Output = ();

    /// # Safety
    /// The features of `S` are enabled; `x` holds the images of `grid` with `channels` channels;
    /// `v` holds whole vectors of all points, rows and channels of the block.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises the lengths of `x` and `v`
        // given above.
        unsafe {
            let grid = &self.grid;
            let zeros = [E::default(); 16];
            let mut v_row = self.v;
            for (tile, first, end) in self.rows.runs() {
                let (y0, x0) = grid.origin(tile);
                // Pixels outside the image read `zeros` at offset 0; the others read the image at
                // the row's offset.
                let mut pixels = [(zeros.as_ptr(), 0usize); POINTS];
                for (p, pixel) in pixels.iter_mut().enumerate() {
                    // A coordinate before the image wraps to a value beyond the height or width,
                    // which the test below rejects.
                    let y = (y0 + p / IN).wrapping_sub(1);
                    let x = (x0 + p % IN).wrapping_sub(1);
                    if y < grid.height && x < grid.width {
                        let at = (y * grid.width + x) * grid.n * self.channels;
                        *pixel = (self.rows.input(self.x, y, x).add(at), usize::MAX);
                    }
                }
                for sample in first..end {
                    self.transform_row::<S>(&pixels, sample * self.channels, v_row);
                    v_row = v_row.wrapping_add(self.v_row);
                }
            }
        }
    }
}

impl<E: Element, R: Rows<E>> InputTransform<E, R> {
    /// Transforms one tile of the sample at `offset` from the pixels' starts.
    ///
    /// # Safety
    /// The conditions of `run` hold, and the sample and the row of `v` exist.
    #[inline(always)]
    unsafe fn transform_row<S: Simd>(
        &self,
        pixels: &[(*const E, usize); POINTS],
        offset: usize,
        v_row: *mut f32,
    ) {
        // SAFETY: the caller keeps the conditions of `run` and promises that the sample and row
        // exist.
        unsafe {
            let mut c = self.range.0;
            while c < self.range.1 {
                let lanes = (self.range.1 - c).min(S::LANES);
                let v = v_row.add(c - self.range.0);
                if lanes == S::LANES {
                    self.transform_vector::<S, true>(pixels, offset + c, lanes, v);
                } else {
                    self.transform_vector::<S, false>(pixels, offset + c, lanes, v);
                }
                c += S::LANES;
            }
        }
    }

    /// Transforms one vector of `lanes` channels at `offset`. `WHOLE` says that `lanes` fills the
    /// vector.
    ///
    /// # Safety
    /// The conditions of `run` hold, and the channels exist.
    #[inline(always)]
    unsafe fn transform_vector<S: Simd, const WHOLE: bool>(
        &self,
        pixels: &[(*const E, usize); POINTS],
        offset: usize,
        lanes: usize,
        v: *mut f32,
    ) {
        use transform::input;
        // SAFETY: the caller keeps the conditions of `run` and promises that the channels exist.
        unsafe {
            let lanes = if WHOLE { S::LANES } else { lanes };
            let mut rows = [[S::zero(); IN]; IN];
            for (row, pixels) in rows.iter_mut().zip(pixels.as_chunks::<IN>().0) {
                let mut d = [S::zero(); IN];
                for (d, (base, mask)) in d.iter_mut().zip(pixels) {
                    *d = load(base.wrapping_add(offset & mask), lanes);
                }
                *row = input(d);
            }
            let points = columns!(&rows, IN, IN => IN, input);
            for (p, value) in points.as_flattened().iter().enumerate() {
                value.store(v.add(p * self.v_point));
            }
        }
    }
}
