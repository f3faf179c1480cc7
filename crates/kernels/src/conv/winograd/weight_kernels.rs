//! The steps of Winograd's weight gradient: transform of the output gradient, products, transform
//! back.

use super::grid::{Block, Grid};
use super::transform::{F4, SIDE, Tiling, columns};
use crate::element::Element;
use crate::parallel::{Shared, block_size};
use crate::simd::{Kernel, Simd, load};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// Rows that are multiplied at a time, so that a panel stays in the first-level cache.
const BLOCK_DEPTH: usize = block_size(128, 4);
/// How many depths ahead memory is fetched.
const PREFETCH: usize = 8;

/// Ranges of input and output channels.
pub(super) type Channels = ((usize, usize), (usize, usize));

/// Scratch memory of transformed rows and products. Each point starts one cache line later than its
/// size asks, so that neighbouring points begin in different cache sets.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Transformed input, `[point][row][from]`.
    pub(super) v: Shared,
    pub(super) v_row: usize,
    pub(super) v_point: usize,
    /// Transformed output gradient, `[point][panel][row][TILE_COLUMNS]`.
    pub(super) d: Shared,
    pub(super) d_point: usize,
    /// Number of rows of a panel.
    pub(super) rows: usize,
    /// Products, `[point][from][to]`.
    pub(super) u: Shared,
    pub(super) u_row: usize,
    pub(super) u_point: usize,
}

/// Computes `D = A dY A^T`; output pixels outside the image count as zero.
pub(super) struct OutputGradTransform<E> {
    pub(super) grid: Grid,
    /// Number of channels of `dy`.
    pub(super) to: usize,
    pub(super) dy: Shared<E>,
    pub(super) memory: Memory,
    pub(super) block: Block,
    pub(super) first: usize,
    pub(super) range: (usize, usize),
}

impl<E: Element> Kernel for OutputGradTransform<E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises a tensor `dy` of the grid's
        // images, and memory for these rows that only this task accesses.
        unsafe {
            for (row, tile, sample) in self.block.iter() {
                let whole_tile = self.grid.extent(tile) == (F4::OUT, F4::OUT);
                let mut c = self.range.0;
                while c < self.range.1 {
                    if whole_tile && self.range.1 - c >= S::LANES {
                        self.transform_vector::<S, true>(row, tile, sample, c);
                    } else {
                        self.transform_vector::<S, false>(row, tile, sample, c);
                    }
                    c += S::LANES;
                }
            }
        }
    }
}

impl<E: Element> OutputGradTransform<E> {
    /// Transforms one vector of channels from `c` on. `WHOLE` says that all of its pixels and
    /// channels lie inside the image.
    ///
    /// # Safety
    /// The features of `S` are enabled; row, tile, sample and channels exist.
    #[inline(always)]
    unsafe fn transform_vector<S: Simd, const WHOLE: bool>(
        &self,
        row: usize,
        tile: usize,
        sample: usize,
        c: usize,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises a row, tile, sample and
        // channels that exist, and memory for them that only this task accesses.
        unsafe {
            let Self { grid, to, dy, .. } = *self;
            let (y0, x0) = grid.origin(tile);
            let (tall, wide) = if WHOLE { (F4::OUT, F4::OUT) } else { grid.extent(tile) };
            let lanes = if WHOLE { S::LANES } else { (self.range.1 - c).min(S::LANES) };
            let start = ((y0 * grid.width + x0) * grid.n + sample) * to + c;
            let (down, right) = (grid.width * grid.n * to, grid.n * to);
            let mut rows = [[S::zero(); SIDE]; SIDE];
            for (i, line) in rows.iter_mut().enumerate().take(tall) {
                let mut y = [S::zero(); SIDE];
                for (j, value) in y.iter_mut().enumerate().take(wide) {
                    *value = load(dy.at(start + i * down + j * right), lanes);
                }
                *line = F4::output_grad(y);
            }
            let points = columns!(&rows, F4::IN, F4::output_grad);
            let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
            let at = (panel * self.memory.rows + self.first + row) * S::TILE_COLUMNS + lane;
            for (p, value) in points.as_flattened().iter().enumerate() {
                value.store(self.memory.d.at(p * self.memory.d_point + at));
            }
        }
    }
}

/// How a product is written to `U`.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Write {
    /// The product overwrites `U`.
    Fresh,
    /// The product is added to `U`.
    Sum,
}

impl Write {
    /// The first rows overwrite `U`; the rows that follow add to it.
    pub(super) fn of(is_first: bool) -> Self {
        if is_first { Self::Fresh } else { Self::Sum }
    }
}

/// `U[point] (+)= V[point]^T * D[point]` over `rows` rows.
pub(super) struct Multiply {
    pub(super) memory: Memory,
    pub(super) point: usize,
    pub(super) rows: usize,
    pub(super) write: Write,
    /// The channels that `U` holds. Output channels begin at a whole panel.
    pub(super) channels: Channels,
}

impl Kernel for Multiply {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises memory that holds these rows
        // and channels, of which this task alone writes its products.
        unsafe {
            let (from, to) = self.channels;
            let memory = &self.memory;
            let u = memory.u.at(self.point * memory.u_point);
            for start in (0..self.rows).step_by(BLOCK_DEPTH) {
                let depth = (self.rows - start).min(BLOCK_DEPTH);
                let mut column = to.0;
                while column < to.1 {
                    let (_, vectors) = panel_extent::<S>(to.1, column);
                    let terms = [Term {
                        a: memory.v.at(self.point * memory.v_point + start * memory.v_row),
                        b: memory.d.at(self.point * memory.d_point
                            + column * memory.rows
                            + start * S::TILE_COLUMNS),
                    }];
                    for (row, rows) in row_blocks::<S>(from.1 - from.0) {
                        let c = u.add(row * memory.u_row + column - to.0);
                        let row = from.0 + row;
                        let tile = Tile::<f32> {
                            a_offset: row,
                            depth,
                            a_row: 1,
                            a_depth: memory.v_row,
                            b_depth: S::TILE_COLUMNS,
                            c,
                            c_row: memory.u_row,
                            columns: vectors * S::LANES,
                            add: if self.write == Write::Fresh && start == 0 {
                                std::ptr::null()
                            } else {
                                c
                            },
                            // Rows are short and far apart, so the processor's own prefetcher does
                            // not follow them.
                            prefetch: terms[0]
                                .a
                                .wrapping_add(row + rows - 1 + PREFETCH * memory.v_row),
                            prefetch_step: memory.v_row,
                            ..Tile::plain(&terms)
                        };
                        run_tile::<S, f32>(rows, vectors, &tile);
                    }
                    column += S::TILE_COLUMNS;
                }
            }
        }
    }
}

/// `dw = G^T U G` for ranges of channels, `[panel][tap][from][TILE_COLUMNS]`.
pub(super) struct TransformBack {
    /// Number of input channels of the convolution.
    pub(super) from: usize,
    pub(super) memory: Memory,
    pub(super) channels: Channels,
    /// The first input and output channel of `U`.
    pub(super) origin: (usize, usize),
    pub(super) dw: *mut f32,
}

impl Kernel for TransformBack {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises memory that holds these
        // products, and channels of `dw` that only this task writes.
        unsafe {
            let from = self.from;
            let (inputs, outputs) = self.channels;
            for ci in inputs.0..inputs.1 {
                let u_row = self.memory.u.at((ci - self.origin.0) * self.memory.u_row);
                let mut c = outputs.0;
                while c < outputs.1 {
                    let mut rows = [[S::zero(); SIDE]; SIDE];
                    for (i, row) in rows.iter_mut().enumerate() {
                        let mut u = [S::zero(); SIDE];
                        for (j, u) in u.iter_mut().enumerate() {
                            *u =
                                S::load(u_row.add(
                                    (i * F4::IN + j) * self.memory.u_point + c - self.origin.1,
                                ));
                        }
                        *row = F4::weight_grad(u);
                    }
                    let dw = columns!(&rows, 3, F4::weight_grad);
                    let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
                    for tap in 0..9 {
                        let row = (panel * 9 + tap) * from + ci;
                        dw[tap / 3][tap % 3].store(self.dw.add(row * S::TILE_COLUMNS + lane));
                    }
                    c += S::LANES;
                }
            }
        }
    }
}
