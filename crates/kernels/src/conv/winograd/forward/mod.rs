//! Forward pass and input gradient.
//!
//! Each of the 36 points is a matrix product `M[point] = V[point] * U[point]`, `[rows x C_in] *
//! [C_in x C_out]`. A task transforms a block of rows, multiplies, and transforms back while all of
//! its data stays in the second-level cache.

#[cfg(target_arch = "x86_64")]
pub(in crate::conv) mod pairs;
mod store;

use std::marker::PhantomData;

use super::grid::Grid;
use super::input_transform::InputTransform;
use super::pack::{BLOCK_COLUMNS, BLOCK_DEPTH, channels};
use super::transform::{F4, Tiling};
use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::partial::{Rows, TileList};
use crate::conv::pass::Pass;
use crate::element::Element;
use crate::parallel::{block_size, for_each, threads};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};
use store::Store;

/// Number of products of a tile.
const POINTS: usize = F4::POINTS;
/// Rows of a task. A task reads each weight once and uses it for this many rows.
const BLOCK_ROWS: usize = block_size(32, 5);
/// Columns of a task: a block of the weights or a part of it, in whole strips and panels.
const TASK_COLUMNS: [usize; 3] = [BLOCK_COLUMNS, block_size(128, 8), block_size(64, 8)];
/// Columns whose products take as long as the transformation of the rows, which each task does for
/// itself: measured with 256 and 512 channels.
const TRANSFORM_COLUMNS: usize = 32;

/// Number of outputs per channel of each block of rows. The tasks of a block share a row of partial
/// sums.
pub(in crate::conv) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    let grid = Grid::new::<F4>(pass.geometry, pass.n, BLOCK_ROWS);
    (0..grid.blocks()).map(|index| grid.pixels(&grid.block(index))).collect()
}

/// Distance in floats between rows of a transformed block of `width` channels. The distance is not
/// a multiple of a large power of two, so that rows do not compete for the same cache sets.
fn padded(width: usize, lanes: usize) -> usize {
    width.next_multiple_of(lanes) + 16
}

/// Computes `pass` and writes to `out`.
pub(in crate::conv) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let (_, to) = channels(pass.geometry, pass.direction);
    let grid = Grid::new::<F4>(pass.geometry, pass.n, BLOCK_ROWS);
    if let Some(tiles) = pass.partial {
        return run_partial(pass, grid, tiles, out);
    }
    let width = task_columns(grid.blocks(), to);
    for_each(to.div_ceil(width) * grid.blocks(), |task| {
        let (part, index) = (task / grid.blocks(), task % grid.blocks());
        let sums = out.sums.at(index * 3 * to);
        let columns = (part * width, ((part + 1) * width).min(to));
        // SAFETY: the block's rows exist; tasks have disjoint rows and columns of the output and of
        // the partial sums.
        unsafe { run_rows(pass, grid, out, sums, grid.block(index), columns) };
    });
}

/// Columns of a task where there are `blocks` blocks of rows and `to` columns: as many as keep the
/// threads busy for the shortest time. They change no result.
fn task_columns(blocks: usize, to: usize) -> usize {
    let time = |&width: &usize| {
        let rounds = (to.div_ceil(width) * blocks).div_ceil(threads());
        rounds * (width.min(to) + TRANSFORM_COLUMNS)
    };
    TASK_COLUMNS.into_iter().min_by_key(time).unwrap_or(BLOCK_COLUMNS)
}

/// Computes some tiles of some samples and leaves the others as they are.
fn run_partial<E: Element>(
    pass: &Pass<'_, E>,
    grid: Grid,
    tiles: TileList<'_, E>,
    out: Output<'_, E>,
) {
    let (_, to) = channels(pass.geometry, pass.direction);
    let blocks = tiles.tasks(BLOCK_ROWS);
    for_each(to.div_ceil(BLOCK_COLUMNS) * blocks.len(), |task| {
        let (block, rows) = (task / blocks.len(), blocks[task % blocks.len()]);
        let columns = (block * BLOCK_COLUMNS, ((block + 1) * BLOCK_COLUMNS).min(to));
        // SAFETY: `Pass` promises tiles that exist and differ, and overlays as large as the maps
        // that they replace.
        unsafe { run_rows(pass, grid, out, std::ptr::null_mut(), rows, columns) };
    });
}

/// Runs one task: `rows` of `columns`, which lie in one block of the weights and begin at a panel.
///
/// # Safety
/// The rows exist, nothing else accesses their outputs, and `sums` is null or belongs to this task
/// alone.
unsafe fn run_rows<E: Element, R: Rows<E>>(
    pass: &Pass<'_, E>,
    grid: Grid,
    out: Output<'_, E>,
    sums: *mut f32,
    rows: R,
    columns: (usize, usize),
) {
    let Pass { geometry, direction, isa, x, weights, .. } = *pass;
    let (from, to) = channels(geometry, direction);
    let first = columns.0 / BLOCK_COLUMNS * BLOCK_COLUMNS;
    let block_columns = (to - first).min(BLOCK_COLUMNS).next_multiple_of(simd::tile_columns(isa));
    let lanes = simd::lanes(isa);
    let v_row = padded(from.min(BLOCK_DEPTH), lanes);
    let m_row = padded(columns.1 - columns.0, lanes);
    // Each point takes one cache line more than its rows, so that neighbouring points start in
    // different cache sets.
    let v_point = rows.count() * v_row + 16;
    let m_point = rows.count() * m_row + 16;
    with_scratch(POINTS * (v_point + m_point), |scratch| {
        let (v, m) = scratch.split_at_mut(POINTS * v_point);
        let kernel = Convolve {
            grid,
            from,
            to,
            x: x.at(0),
            weights: weights.at(POINTS * first * from),
            block_columns,
            skipped: columns.0 - first,
            out,
            sums,
            rows,
            columns,
            v: v.as_mut_ptr(),
            v_row,
            v_point,
            m: m.as_mut_ptr(),
            m_row,
            m_point,
        };
        // SAFETY: `Pass` and `Output` promise tensors of the geometry's lengths and weights of
        // `packed_len`; the caller promises that the rows exist and that only this task accesses
        // their outputs; the scratch memory holds all points of the rows.
        unsafe { dispatch(isa, kernel) };
    });
}

/// One task. [`run_rows`] guarantees that its pointers are valid.
struct Convolve<'a, E, R> {
    grid: Grid,
    from: usize,
    to: usize,
    x: *const E,
    /// Packed weights of the block of columns that holds this task's.
    weights: *const f32,
    /// Columns of that block, in whole panels.
    block_columns: usize,
    /// Columns of that block before the task's.
    skipped: usize,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    rows: R,
    columns: (usize, usize),
    v: *mut f32,
    v_row: usize,
    v_point: usize,
    m: *mut f32,
    m_row: usize,
    m_point: usize,
}

impl<E: Element, R: Rows<E>> Kernel for Convolve<'_, E, R> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises rows that exist; `run_rows`
        // made the fields point to memory for them.
        unsafe {
            let mut depth = 0;
            while depth < self.from {
                let width = (self.from - depth).min(BLOCK_DEPTH);
                InputTransform {
                    tiling: PhantomData::<F4>,
                    grid: self.grid,
                    channels: self.from,
                    x: self.x,
                    rows: self.rows,
                    range: (depth, depth + width),
                    v: self.v,
                    v_row: self.v_row,
                    v_point: self.v_point,
                }
                .run::<S>();
                self.multiply::<S>(depth, width);
                depth += width;
            }
            Store {
                tiling: PhantomData::<F4>,
                grid: self.grid,
                to: self.to,
                out: self.out,
                sums: self.sums,
                rows: self.rows,
                columns: self.columns,
                m: self.m,
                m_row: self.m_row,
                m_point: self.m_point,
            }
            .store::<S>();
        }
    }
}

impl<E: Element, R: Rows<E>> Convolve<'_, E, R> {
    /// `M[point] (+)= V[point] * U[point]` for all points, over `width` input channels from
    /// `depth`.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `V` holds the transformed channels.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, depth: usize, width: usize) {
        // SAFETY: the caller enabled the features of `S` and promises that `V` holds these
        // channels; `run_rows` made the fields point to memory for all rows.
        unsafe {
            let columns = self.columns.1 - self.columns.0;
            let panel_len = width * S::TILE_COLUMNS;
            let block = self.weights.add(POINTS * depth * self.block_columns);
            for p in 0..POINTS {
                let mut panel = block.add((p * self.block_columns + self.skipped) * width);
                let mut column = 0;
                while column < columns {
                    let (_, vectors) = panel_extent::<S>(columns, column);
                    let terms = [Term { a: self.v.add(p * self.v_point), b: panel }];
                    let next = panel.wrapping_add(panel_len);
                    for (index, (row, rows)) in row_blocks::<S>(self.rows.count()).enumerate() {
                        let m = self.m.add(p * self.m_point + row * self.m_row + column);
                        let tile = Tile::<f32> {
                            a_offset: row * self.v_row,
                            depth: width,
                            a_row: self.v_row,
                            a_depth: 1,
                            b_depth: S::TILE_COLUMNS,
                            c: m,
                            c_row: self.m_row,
                            columns: vectors * S::LANES,
                            add: if depth == 0 { std::ptr::null() } else { m },
                            // The first tiles of a panel fetch the next panel, one cache line per
                            // step.
                            prefetch: next.wrapping_add((index * width * 16) % panel_len),
                            prefetch_step: 16,
                            ..Tile::plain(&terms)
                        };
                        run_tile::<S, f32>(rows, vectors, &tile);
                    }
                    panel = next;
                    column += S::TILE_COLUMNS;
                }
            }
        }
    }
}
