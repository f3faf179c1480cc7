//! From the products back to pixels of the output, with the epilogue.

use std::marker::PhantomData;

use super::super::grid::Grid;
use super::super::transform::{SIDE, Tiling, columns};
use crate::conv::epilogue::Output;
use crate::conv::partial::Rows;
use crate::element::Element;
use crate::simd::{Simd, load, store, stored};

/// The products of a block of rows, and where their outputs go.
pub(super) struct Store<'a, T, E, R> {
    pub(super) tiling: PhantomData<T>,
    pub(super) grid: Grid,
    /// Number of channels of the output.
    pub(super) to: usize,
    pub(super) out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    pub(super) sums: *mut f32,
    pub(super) rows: R,
    /// The channels of the products.
    pub(super) columns: (usize, usize),
    /// Products, `[point][row][column]`.
    pub(super) m: *const f32,
    pub(super) m_row: usize,
    pub(super) m_point: usize,
}

impl<T: Tiling, E: Element, R: Rows<E>> Store<'_, T, E, R> {
    /// Transforms `M` back to output pixels, applies the epilogue and stores the result.
    ///
    /// # Safety
    /// The features of `S` are enabled; `m` holds the products of all rows and whole vectors of
    /// columns; no other task writes these outputs and sums.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(&self) {
        // SAFETY: the caller enabled the features of `S` and promises that `m` holds the products
        // of all rows.
        unsafe {
            let width = self.columns.1 - self.columns.0;
            let mut row = 0;
            for (tile, first, end) in self.rows.runs() {
                let whole_tile = self.grid.extent(tile) == (T::OUT, T::OUT);
                for sample in first..end {
                    let mut c = 0;
                    while c < width {
                        if whole_tile && width - c >= S::LANES {
                            self.store_vector::<S, true>(row, tile, sample, c);
                        } else {
                            self.store_vector::<S, false>(row, tile, sample, c);
                        }
                        c += S::LANES;
                    }
                    row += 1;
                }
            }
        }
    }

    /// Stores one vector of channels, from column `c` on, of the output tile in `row`. `WHOLE` says
    /// that all of its pixels and channels lie inside the image, so that loops unroll and masks
    /// vanish.
    ///
    /// # Safety
    /// The conditions of [`store`](Self::store) hold; row, tile, sample and channels exist.
    #[inline(always)]
    unsafe fn store_vector<S: Simd, const WHOLE: bool>(
        &self,
        row: usize,
        tile: usize,
        sample: usize,
        c: usize,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises a row, tile, sample and
        // channels that exist, and products of all rows in `m`.
        unsafe {
            let grid = &self.grid;
            let (y0, x0) = grid.origin(tile);
            let (tall, wide) = if WHOLE { (T::OUT, T::OUT) } else { grid.extent(tile) };
            let lanes =
                if WHOLE { S::LANES } else { (self.columns.1 - self.columns.0 - c).min(S::LANES) };
            let channel = self.columns.0 + c;
            let m_row = self.m.add(row * self.m_row + c);
            let mut rows = [[S::zero(); SIDE]; SIDE];
            for (i, row) in rows.iter_mut().enumerate().take(T::IN) {
                let mut m = [S::zero(); SIDE];
                for (j, m) in m.iter_mut().enumerate().take(T::IN) {
                    *m = S::load(m_row.add((i * T::IN + j) * self.m_point));
                }
                *row = T::output(m);
            }
            let mut pixels = columns!(&rows, T::OUT, T::output);
            let start = ((y0 * grid.width + x0) * grid.n + sample) * self.to + channel;
            let tile = OutputTile {
                y0,
                x0,
                tall,
                wide,
                lanes,
                channel,
                start,
                down: grid.width * grid.n * self.to,
                right: grid.n * self.to,
            };
            self.add_operands(&tile, &mut pixels);
            self.write(&tile, &pixels);
            if !self.sums.is_null() {
                self.add_sums(&tile, row == 0, &pixels);
            }
        }
    }

    /// Adds the bias and the addend to the pixels of a tile.
    ///
    /// # Safety
    /// The features of `S` are enabled, and the tile exists.
    #[inline(always)]
    unsafe fn add_operands<S: Simd>(&self, tile: &OutputTile, pixels: &mut [[S; SIDE]; SIDE]) {
        // SAFETY: the caller enabled the features of `S` and promises that the tile exists;
        // `Output` promises tensors of the output's shape.
        unsafe {
            if !self.out.bias.is_null() {
                let bias = load(self.out.bias.at(tile.channel), tile.lanes);
                for line in pixels.iter_mut().take(T::OUT) {
                    for value in line.iter_mut().take(T::OUT) {
                        *value = value.add(bias);
                    }
                }
            }
            if !self.out.add.is_null() {
                let add = self.rows.addend(self.out.add.at(0), tile.y0, tile.x0).add(tile.start);
                for (i, line) in pixels.iter_mut().enumerate().take(tile.tall) {
                    for (j, value) in line.iter_mut().enumerate().take(tile.wide) {
                        *value = value.add(load(add.add(tile.offset(i, j)), tile.lanes));
                    }
                }
            }
        }
    }

    /// Stores the pixels and their batch norm.
    ///
    /// # Safety
    /// The features of `S` are enabled; the tile exists, and no other task writes it.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, tile: &OutputTile, pixels: &[[S; SIDE]; SIDE]) {
        // SAFETY: the caller enabled the features of `S` and promises that the tile exists and that
        // only this task writes it.
        unsafe {
            if !self.out.y.is_null() {
                for (i, line) in pixels.iter().enumerate().take(tile.tall) {
                    for (j, value) in line.iter().enumerate().take(tile.wide) {
                        store(*value, self.out.y.at(tile.start + tile.offset(i, j)), tile.lanes);
                    }
                }
            }
            if let Some(norm) = &self.out.norm {
                let norm = norm.tile(tile.start, tile.channel);
                let channels = norm.channels::<S>(0, tile.lanes);
                for (i, line) in pixels.iter().enumerate().take(tile.tall) {
                    for (j, value) in line.iter().enumerate().take(tile.wide) {
                        norm.store(channels, *value, tile.offset(i, j), tile.lanes);
                    }
                }
            }
        }
    }

    /// Adds the pixels to the task's sums. `first` says that they are the task's first pixels,
    /// which set the shift.
    ///
    /// # Safety
    /// The features of `S` are enabled, the channels exist, and the sums are this task's.
    #[inline(always)]
    unsafe fn add_sums<S: Simd>(&self, tile: &OutputTile, first: bool, pixels: &[[S; SIDE]; SIDE]) {
        let lanes = tile.lanes;
        // SAFETY: the caller enabled the features of `S` and promises that `sums` is this task's
        // `[3][to]`.
        unsafe {
            let shift_at = self.sums.add(tile.channel);
            if first {
                store(stored::<S, E>(pixels[0][0]), shift_at, lanes);
            }
            let shift: S = load(shift_at, lanes);
            let (sum_at, square_at) = (shift_at.add(self.to), shift_at.add(2 * self.to));
            let mut sum: S = load(sum_at, lanes);
            let mut square: S = load(square_at, lanes);
            for line in pixels.iter().take(tile.tall) {
                for value in line.iter().take(tile.wide) {
                    let d = stored::<S, E>(*value).sub(shift);
                    sum = sum.add(d);
                    square = d.mul_add(d, square);
                }
            }
            store(sum, sum_at, lanes);
            store(square, square_at, lanes);
        }
    }
}

/// The position of one vector of channels of an output tile.
struct OutputTile {
    /// Row and column of the tile's first pixel.
    y0: usize,
    x0: usize,
    /// Height and width of the part of the tile that lies in the image, in pixels.
    tall: usize,
    wide: usize,
    /// Number of channels that exist, from `channel` on.
    lanes: usize,
    channel: usize,
    /// Index of the element of the first pixel and channel.
    start: usize,
    /// Distances in elements between lines and between pixels.
    down: usize,
    right: usize,
}

impl OutputTile {
    /// Distance in elements from the first pixel to the pixel in line `i` and column `j`.
    #[inline(always)]
    fn offset(&self, i: usize, j: usize) -> usize {
        i * self.down + j * self.right
    }
}
