//! Forward pass and input gradient.
//!
//! Each of the 36 points is a matrix product `M[point] = V[point] * U[point]`, `[rows x C_in] *
//! [C_in x C_out]`. A task transforms a block of rows, multiplies, and transforms back while all of
//! its data stays in the second-level cache.

use super::grid::Grid;
use super::input_transform::InputTransform;
use super::pack::{BLOCK_COLUMNS, BLOCK_DEPTH, channels};
use super::transform::{self, IN, OUT, POINTS, columns};
use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::partial::{Rows, TileList};
use crate::conv::pass::Pass;
use crate::element::Element;
use crate::parallel::for_each;
use crate::simd::{self, Kernel, Simd, dispatch, load, store, stored};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// Rows of a task. A task reads each weight once and uses it for this many rows.
const BLOCK_ROWS: usize = 32;

/// Number of outputs per channel of each block of rows. The tasks of a block share a row of partial
/// sums.
pub(in crate::conv) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    let grid = Grid::new(pass.geometry, pass.n, BLOCK_ROWS);
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
    let grid = Grid::new(pass.geometry, pass.n, BLOCK_ROWS);
    let column_blocks = to.div_ceil(BLOCK_COLUMNS);
    if let Some(tiles) = pass.partial {
        return run_partial(pass, grid, tiles, out);
    }
    for_each(column_blocks * grid.blocks(), |task| {
        let (column_block, index) = (task / grid.blocks(), task % grid.blocks());
        let sums = out.sums.at(index * 3 * to);
        // SAFETY: the block's rows exist; tasks have disjoint rows and columns of the output and of
        // the partial sums.
        unsafe { run_rows(pass, grid, out, sums, grid.block(index), column_block) };
    });
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
        let (column_block, rows) = (task / blocks.len(), blocks[task % blocks.len()]);
        // SAFETY: `Pass` promises tiles that exist and differ, and overlays as large as the maps
        // that they replace.
        unsafe { run_rows(pass, grid, out, std::ptr::null_mut(), rows, column_block) };
    });
}

/// Runs one task: `rows` of one block of columns.
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
    column_block: usize,
) {
    let Pass { geometry, direction, isa, x, weights, .. } = *pass;
    let (from, to) = channels(geometry, direction);
    let columns = (column_block * BLOCK_COLUMNS, ((column_block + 1) * BLOCK_COLUMNS).min(to));
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
            weights: weights.at(POINTS * columns.0 * from),
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
    /// Packed weights of this task's columns.
    weights: *const f32,
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
            self.store::<S>();
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
            let mut panel =
                self.weights.add(POINTS * depth * columns.next_multiple_of(S::TILE_COLUMNS));
            for p in 0..POINTS {
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

    /// Transforms `M` back to output pixels, applies the epilogue and stores the result.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `M` holds the products.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self) {
        // SAFETY: the caller enabled the features of `S` and promises that `M` holds the products;
        // `run_rows` made the fields point to memory for all rows.
        unsafe {
            let width = self.columns.1 - self.columns.0;
            let mut row = 0;
            for (tile, first, end) in self.rows.runs() {
                let whole_tile = self.grid.extent(tile) == (OUT, OUT);
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
        use transform::output;
        // SAFETY: the caller enabled the features of `S` and promises a row, tile, sample and
        // channels that exist; `run_rows` made the fields point to memory for them.
        unsafe {
            let grid = &self.grid;
            let (y0, x0) = grid.origin(tile);
            let (tall, wide) = if WHOLE { (OUT, OUT) } else { grid.extent(tile) };
            let lanes =
                if WHOLE { S::LANES } else { (self.columns.1 - self.columns.0 - c).min(S::LANES) };
            let channel = self.columns.0 + c;
            let m_row = self.m.add(row * self.m_row + c);
            let mut rows = [[S::zero(); OUT]; IN];
            for (i, row) in rows.iter_mut().enumerate() {
                let mut m = [S::zero(); IN];
                for (j, m) in m.iter_mut().enumerate() {
                    *m = S::load(m_row.add((i * IN + j) * self.m_point));
                }
                *row = output(m);
            }
            let mut pixels = columns!(&rows, IN, OUT => OUT, output);
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
    unsafe fn add_operands<S: Simd>(&self, tile: &OutputTile, pixels: &mut [[S; OUT]; OUT]) {
        // SAFETY: the caller enabled the features of `S` and promises that the tile exists;
        // `Output` promises tensors of the output's shape.
        unsafe {
            if !self.out.bias.is_null() {
                let bias = load(self.out.bias.at(tile.channel), tile.lanes);
                for value in pixels.as_flattened_mut() {
                    *value = value.add(bias);
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
    unsafe fn write<S: Simd>(&self, tile: &OutputTile, pixels: &[[S; OUT]; OUT]) {
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
    unsafe fn add_sums<S: Simd>(&self, tile: &OutputTile, first: bool, pixels: &[[S; OUT]; OUT]) {
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
