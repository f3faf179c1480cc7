//! Transforms input tiles to their points.

use std::marker::PhantomData;

use super::grid::Grid;
use super::transform::{SIDE, Tiling, columns};
use crate::conv::partial::Rows;
use crate::element::Element;
use crate::simd::{Kernel, Simd, load, store};

/// Computes `V = B^T d B` of a tiling `T` for a block of rows and a range of channels,
/// `[point][row][channel]`, stored as `V`.
pub(super) struct InputTransform<T, E, V, R> {
    pub tiling: PhantomData<T>,
    pub grid: Grid,
    /// Number of channels of `x`.
    pub channels: usize,
    pub x: *const E,
    pub rows: R,
    pub range: (usize, usize),
    pub v: *mut V,
    pub v_row: usize,
    pub v_point: usize,
}

impl<T: Tiling, E: Element, V: Element, R: Rows<E>> Kernel for InputTransform<T, E, V, R> {
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
                let mut pixels = [[(zeros.as_ptr(), 0usize); SIDE]; SIDE];
                for (i, line) in pixels.iter_mut().enumerate().take(T::IN) {
                    for (j, pixel) in line.iter_mut().enumerate().take(T::IN) {
                        // A coordinate before the image wraps to a value beyond the height or
                        // width, which the test below rejects.
                        let (y, x) = ((y0 + i).wrapping_sub(1), (x0 + j).wrapping_sub(1));
                        if y < grid.height && x < grid.width {
                            let at = (y * grid.width + x) * grid.n * self.channels;
                            *pixel = (self.rows.input(self.x, y, x).add(at), usize::MAX);
                        }
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

/// For each pixel under a tile its start, and a mask of the offsets added to it.
type Pixels<E> = [[(*const E, usize); SIDE]; SIDE];

impl<T: Tiling, E: Element, V: Element, R: Rows<E>> InputTransform<T, E, V, R> {
    /// Transforms one tile of the sample at `offset` from the pixels' starts.
    ///
    /// # Safety
    /// The conditions of `run` hold, and the sample and the row of `v` exist.
    #[inline(always)]
    unsafe fn transform_row<S: Simd>(&self, pixels: &Pixels<E>, offset: usize, v_row: *mut V) {
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
        pixels: &Pixels<E>,
        offset: usize,
        lanes: usize,
        v: *mut V,
    ) {
        // SAFETY: the caller keeps the conditions of `run` and promises that the channels exist.
        unsafe {
            let lanes = if WHOLE { S::LANES } else { lanes };
            let mut rows = [[S::zero(); SIDE]; SIDE];
            for (row, pixels) in rows.iter_mut().zip(pixels).take(T::IN) {
                let mut d = [S::zero(); SIDE];
                for (d, (base, mask)) in d.iter_mut().zip(pixels).take(T::IN) {
                    *d = load(base.wrapping_add(offset & mask), lanes);
                }
                *row = T::input(d);
            }
            let points = columns!(&rows, T::IN, T::input);
            for (i, line) in points.iter().enumerate().take(T::IN) {
                for (j, value) in line.iter().enumerate().take(T::IN) {
                    store(*value, v.add((i * T::IN + j) * self.v_point), S::LANES);
                }
            }
        }
    }
}
