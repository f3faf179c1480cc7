//! Forward pass and input gradient of bf16 by F(2x2, 3x3), with products of bf16 pairs.
//!
//! The transforms compute in `f32`; the transformed input and weights are rounded to bf16, whose
//! products are summed in `f32`. A task transforms a block of rows once. For each strip of columns
//! it then multiplies every point and transforms back, so that the products of one strip alone have
//! to stay in the cache.

use std::marker::PhantomData;

use half::bf16;

use super::super::grid::{Block, Grid};
use super::super::input_transform::InputTransform;
use super::super::pack::{Kernels, channels};
use super::super::transform::{F2, Tiling};
use super::store::Store;
use super::{padded, task_columns};
use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::conv::pass::Pass;
use crate::element::Element;
use crate::isa::Isa;
use crate::pair_tile::pair_rows;
use crate::parallel::{Shared, block_size, for_each};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile};

/// Number of products of a tile.
const POINTS: usize = F2::POINTS;
/// Rows of a task. A task reads each weight once and uses it for this many rows.
const BLOCK_ROWS: usize = block_size(36, 5);
/// Columns of a packed panel.
const PANEL: usize = 32;
/// Columns that are multiplied at a time.
const STRIP: usize = 2 * PANEL;
/// Lanes of a vector.
const LANES: usize = 16;

/// Number of outputs per channel of each block of rows. The tasks of a block share a row of partial
/// sums.
pub(in crate::conv) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    let grid = Grid::new::<F2>(pass.geometry, pass.n, BLOCK_ROWS);
    (0..grid.blocks()).map(|index| grid.pixels(&grid.block(index))).collect()
}

/// Number of `f32` of the packed weights, each of which is a pair of bf16.
pub(in crate::conv) fn packed_len(geometry: &ConvGeometry, direction: Direction) -> usize {
    let (from, to) = channels(geometry, direction);
    POINTS * from.div_ceil(2) * to.next_multiple_of(PANEL)
}

/// Packs `G g G^T` as `[strip][point][panel][pair of from][PANEL][2]`, with zeros beyond the last
/// channel.
pub(in crate::conv) fn pack(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let (from, to) = channels(geometry, direction);
    let pairs = from.div_ceil(2);
    let out = Shared::new(packed);
    for_each(to.div_ceil(PANEL), |panel| {
        let first = panel * PANEL / STRIP * STRIP;
        let strip = (to - first).min(STRIP).next_multiple_of(PANEL);
        let kernel = PackPairs {
            kernels: Kernels { w: w.as_ptr(), direction, from, to },
            out: out.at((POINTS * first + panel * PANEL - first) * pairs),
            point: strip * pairs,
            column: panel * PANEL,
        };
        // SAFETY: `w` holds `from * to` kernels and `packed` all panels; each task writes its own
        // panel.
        unsafe { dispatch(isa, kernel) };
    });
}

struct PackPairs {
    kernels: Kernels,
    out: *mut f32,
    /// Distance in pairs between points of `out`.
    point: usize,
    column: usize,
}

impl Kernel for PackPairs {
    type Element = bf16;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises kernels of `from * to`
        // channels, and a panel of all pairs at every point of `out`.
        unsafe {
            for ci in (0..self.kernels.from).step_by(2) {
                for v in (0..PANEL).step_by(S::LANES) {
                    let column = self.column + v;
                    let first = self.kernels.points::<F2, S>(ci, column);
                    let second = if ci + 1 < self.kernels.from {
                        self.kernels.points::<F2, S>(ci + 1, column)
                    } else {
                        [[S::zero(); _]; _]
                    };
                    for p in 0..POINTS {
                        let (i, j) = (p / F2::IN, p % F2::IN);
                        let out = self.out.add(p * self.point + ci / 2 * PANEL + v);
                        first[i][j].store_pairs(second[i][j], out.cast());
                    }
                }
            }
        }
    }
}

/// Computes `pass` and writes to `out`. The machine multiplies pairs of bf16.
pub(in crate::conv) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let (from, to) = channels(pass.geometry, pass.direction);
    let grid = Grid::new::<F2>(pass.geometry, pass.n, BLOCK_ROWS);
    let pairs = from.div_ceil(2);
    // As in the other tiling, neighbouring rows and points start in different cache sets.
    let v_row = padded(from, LANES);
    let v_point = grid.block_rows() * v_row + 32;
    let m_point = grid.block_rows() * STRIP + 16;
    let width = task_columns(grid.blocks(), to);
    for_each(to.div_ceil(width) * grid.blocks(), |task| {
        let (part, index) = (task / grid.blocks(), task % grid.blocks());
        let first = part * width;
        with_scratch(POINTS * (v_point / 2 + m_point), |scratch| {
            let (v, m) = scratch.split_at_mut(POINTS * v_point / 2);
            let kernel = Convolve {
                grid,
                from,
                pairs,
                to,
                x: pass.x.at(0),
                weights: pass.weights.at(0),
                out,
                sums: out.sums.at(index * 3 * to),
                rows: grid.block(index),
                columns: (first, (first + width).min(to)),
                v: v.as_mut_ptr().cast(),
                v_row,
                v_point,
                m: m.as_mut_ptr(),
                m_point,
            };
            // SAFETY: `Pass` and `Output` promise tensors of the geometry's lengths, weights of
            // `packed_len` and an instruction set that multiplies pairs; the scratch memory holds
            // all points of the rows; tasks have disjoint rows and columns of the output and of the
            // partial sums.
            unsafe { dispatch(pass.isa, kernel) };
        });
    });
}

/// One task. [`run`] guarantees that its pointers are valid.
struct Convolve<'a, E> {
    grid: Grid,
    from: usize,
    pairs: usize,
    to: usize,
    x: *const E,
    weights: *const f32,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    rows: Block,
    columns: (usize, usize),
    /// Transformed input, `[point][row][from]`.
    v: *mut bf16,
    v_row: usize,
    v_point: usize,
    /// Products, `[point][row][STRIP]`.
    m: *mut f32,
    m_point: usize,
}

impl<E: Element> Kernel for Convolve<'_, E> {
    type Element = bf16;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S`, which multiply pairs, and promises valid
        // fields.
        unsafe {
            InputTransform {
                tiling: PhantomData::<F2>,
                grid: self.grid,
                channels: self.from,
                x: self.x,
                rows: self.rows,
                range: (0, self.from),
                v: self.v,
                v_row: self.v_row,
                v_point: self.v_point,
            }
            .run::<S>();
            for first in (self.columns.0..self.columns.1).step_by(STRIP) {
                let columns = (first, (first + STRIP).min(self.columns.1));
                self.multiply(columns);
                Store {
                    tiling: PhantomData::<F2>,
                    grid: self.grid,
                    to: self.to,
                    out: self.out,
                    sums: self.sums,
                    rows: self.rows,
                    columns,
                    m: self.m,
                    m_row: STRIP,
                    m_point: self.m_point,
                }
                .store::<S>();
            }
        }
    }
}

impl<E: Element> Convolve<'_, E> {
    /// `M[point] = V[point] * U[point]` for all points of one strip.
    ///
    /// # Safety
    /// The processor multiplies pairs, and `v` holds the transformed rows.
    #[inline(always)]
    unsafe fn multiply(&self, columns: (usize, usize)) {
        let width = columns.1 - columns.0;
        let vectors = width.div_ceil(LANES);
        let point = width.next_multiple_of(PANEL) * self.pairs;
        let weights = self.weights.wrapping_add(POINTS * columns.0 * self.pairs);
        for p in 0..POINTS {
            let terms = [Term {
                a: self.v.wrapping_add(p * self.v_point).cast(),
                b: weights.wrapping_add(p * point),
            }];
            let tile = Tile::<f32> {
                depth: self.pairs,
                a_row: self.v_row / 2,
                b_depth: PANEL,
                b_panel: self.pairs * PANEL,
                c: self.m.wrapping_add(p * self.m_point),
                c_row: STRIP,
                columns: vectors * LANES,
                ..Tile::plain(&terms)
            };
            // SAFETY: the caller promises products of pairs and transformed rows; the weights hold
            // every point of the strip, and `m` has room for the products of its rows.
            unsafe { pair_rows(self.rows.rows(), vectors, &tile) };
        }
    }
}
