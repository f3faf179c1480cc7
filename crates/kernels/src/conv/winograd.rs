//! Winograd F(4x4, 3x3): forward pass and input gradient of 3x3 kernels with stride 1 and padding
//! 1.
//!
//! An image is cut into output tiles of 4x4 pixels, each computed from an input tile of 6x6 pixels.
//! With the batch next to the channels a *row* is one tile of one sample, and for each of the 36
//! points the rows form a plain matrix product `M[point] = V[point] * U[point]`, `[rows x C_in] *
//! [C_in x C_out]`. A task transforms a block of rows, multiplies and transforms back while
//! everything stays in the second-level cache. Source: A. Lavin and S. Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016.

use super::grid::{Block, Grid, Rows};
use super::partial::{Partial, TileList};
use super::transform::{self, IN, OUT, POINTS, columns, square};
use super::{ConvGeometry, Direction, Job, Output};
use crate::buffer::with_scratch;
use crate::element::{Element, load, store};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Rows of a task. Each weight is read once per task and used this many times.
const BLOCK_ROWS: usize = 32;
/// Input channels transformed at a time.
const BLOCK_DEPTH: usize = 128;
/// Output channels of a task, a multiple of every panel width.
const BLOCK_COLUMNS: usize = 256;

pub(super) fn supports(g: &ConvGeometry) -> bool {
    g.kernel == [3; 2] && g.stride == [1; 2] && g.padding == [1; 2] && g.groups == 1
}

/// Whether Winograd beats the direct algorithm for the convolution of `from` channels.
pub(super) fn is_faster(image: [usize; 2], from: usize) -> bool {
    // Few channels do not pay for the transforms; an image of one or two pixels uses too little of
    // its tile.
    from >= 8 && image[0] > 2 && image[1] > 2
}

fn channels(g: &ConvGeometry, direction: Direction) -> (usize, usize) {
    match direction {
        Direction::Forward => (g.in_channels, g.out_channels),
        Direction::InputGrad => (g.out_channels, g.in_channels),
    }
}

pub(super) fn packed_len(g: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    let (from, to) = channels(g, direction);
    POINTS * from * to.next_multiple_of(simd::tile_columns(isa))
}

/// Packs `G g G^T` in the order in which tasks read it:
/// `[block of to][block of from][point][panel][from][TILE_COLUMNS]`.
pub(super) fn pack(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let (from, to) = channels(g, direction);
    let columns = simd::tile_columns(isa);
    let out = Shared::new(packed);
    let blocks = from.div_ceil(BLOCK_DEPTH);
    for_each(to.div_ceil(columns) * blocks, |task| {
        let (panel, block) = (task / blocks, task % blocks);
        let depth = block * BLOCK_DEPTH;
        let width = (from - depth).min(BLOCK_DEPTH);
        let column = panel * columns;
        let first = column / BLOCK_COLUMNS * BLOCK_COLUMNS;
        let block_columns = (to - first).min(BLOCK_COLUMNS).next_multiple_of(columns);
        let kernel = PackWeights {
            w: w.as_ptr(),
            direction,
            from,
            to,
            out: out.at(POINTS * (first * from + depth * block_columns) + (column - first) * width),
            point: block_columns * width,
            column,
            range: (depth, depth + width),
        };
        // SAFETY: `w` holds `from * to` kernels and `packed` all panels; each task writes its own
        // panel and rows.
        unsafe { dispatch(isa, kernel) };
    });
}

struct PackWeights {
    w: *const f32,
    direction: Direction,
    from: usize,
    to: usize,
    out: *mut f32,
    /// Distance between points of `out`.
    point: usize,
    column: usize,
    range: (usize, usize),
}

impl Kernel for PackWeights {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        use transform::weight;
        // SAFETY: see `pack`.
        unsafe {
            for ci in self.range.0..self.range.1 {
                for v in 0..S::TILE_VECTORS {
                    let column = self.column + v * S::LANES;
                    let lanes = self.to.saturating_sub(column).min(S::LANES);
                    // Taps by lanes; 16 covers the widest vector.
                    let mut taps = [[0.0f32; 16]; 9];
                    for lane in 0..lanes {
                        let co = column + lane;
                        let index = match self.direction {
                            Direction::Forward => co * self.from + ci,
                            Direction::InputGrad => ci * self.to + co,
                        };
                        for (t, tap) in taps.iter_mut().enumerate() {
                            let t = match self.direction {
                                Direction::Forward => t,
                                Direction::InputGrad => 8 - t,
                            };
                            tap[lane] = *self.w.add(index * 9 + t);
                        }
                    }
                    let mut kernel = [[S::zero(); 3]; 3];
                    for (t, tap) in taps.iter().enumerate() {
                        kernel[t / 3][t % 3] = S::load(tap.as_ptr());
                    }
                    let u = square!(&kernel, 3 => IN, weight);
                    for (p, value) in u.as_flattened().iter().enumerate() {
                        let row = (ci - self.range.0) * S::TILE_COLUMNS;
                        value.store(self.out.add(p * self.point + row + v * S::LANES));
                    }
                }
            }
        }
    }
}

/// Outputs per channel of each block of rows, the tasks that share a row of partial sums.
pub(super) fn task_counts(g: &ConvGeometry, n: usize) -> Vec<usize> {
    let grid = Grid::new(g, n, BLOCK_ROWS);
    (0..grid.blocks()).map(|index| grid.pixels(&grid.block(index))).collect()
}

/// Distance between rows of a transformed block of `width` channels. Not a multiple of a large
/// power of two, so that rows do not compete for the same cache sets.
fn padded(width: usize, lanes: usize) -> usize {
    width.next_multiple_of(lanes) + 16
}

pub(super) fn run<E: Element>(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    n: usize,
    x: &[E],
    weights: &[f32],
    out: Output<E>,
) {
    let (from, to) = channels(g, direction);
    let grid = Grid::new(g, n, BLOCK_ROWS);
    let column_blocks = to.div_ceil(BLOCK_COLUMNS);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    for_each(column_blocks * grid.blocks(), |task| {
        let (column_block, index) = (task / grid.blocks(), task % grid.blocks());
        let partial = out.partials.at(index * 3 * to);
        // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), the weights
        // those of `packed_len`; tasks write disjoint rows and columns of the output and of the
        // partial sums.
        unsafe {
            run_rows(
                grid,
                (from, to),
                isa,
                x,
                weights,
                out,
                partial,
                grid.block(index),
                column_block,
            )
        };
    });
}

/// As [`run`], for some tiles of some samples; the others are left as they are. `partial` fits.
pub(super) fn run_partial<E: Element>(job: &Job<'_, E>, partial: &Partial<'_, E>, out: Output<E>) {
    let Job { g, isa, n, x, weights, .. } = *job;
    let (from, to) = channels(g, Direction::Forward);
    let grid = Grid::new(g, n, BLOCK_ROWS);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    let blocks = TileList::tasks(partial, BLOCK_ROWS);
    for_each(to.div_ceil(BLOCK_COLUMNS) * blocks.len(), |task| {
        let (column_block, rows) = (task / blocks.len(), blocks[task % blocks.len()]);
        // SAFETY: as above; overlays have the lengths of what they stand for.
        unsafe {
            run_rows(
                grid,
                (from, to),
                isa,
                x,
                weights,
                out,
                std::ptr::null_mut(),
                rows,
                column_block,
            )
        };
    });
}

/// One task: `rows` of one block of columns.
///
/// # Safety
/// The pointers hold what the geometry says, the rows exist, and nothing else accesses their
/// outputs.
#[allow(clippy::too_many_arguments)]
unsafe fn run_rows<E: Element, R: Rows<E>>(
    grid: Grid,
    (from, to): (usize, usize),
    isa: Isa,
    x: Shared<E>,
    weights: Shared,
    out: Output<E>,
    partial: *mut f32,
    rows: R,
    column_block: usize,
) {
    let columns = (column_block * BLOCK_COLUMNS, ((column_block + 1) * BLOCK_COLUMNS).min(to));
    let lanes = simd::lanes(isa);
    let v_row = padded(from.min(BLOCK_DEPTH), lanes);
    let m_row = padded(columns.1 - columns.0, lanes);
    // One line more per point: neighbouring points then start in different cache sets.
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
            partial,
            rows,
            columns,
            v: v.as_mut_ptr(),
            v_row,
            v_point,
            m: m.as_mut_ptr(),
            m_row,
            m_point,
        };
        // SAFETY: the caller's.
        unsafe { dispatch(isa, kernel) };
    });
}

struct Convolve<E, R> {
    grid: Grid,
    from: usize,
    to: usize,
    x: *const E,
    /// Weights of this task's columns.
    weights: *const f32,
    out: Output<E>,
    partial: *mut f32,
    rows: R,
    columns: (usize, usize),
    v: *mut f32,
    v_row: usize,
    v_point: usize,
    m: *mut f32,
    m_row: usize,
    m_point: usize,
}

impl<E: Element, R: Rows<E>> Kernel for Convolve<E, R> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
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

impl<E: Element, R: Rows<E>> Convolve<E, R> {
    /// `M[point] (+)= V[point] * U[point]` for all points, over `width` input channels from
    /// `depth`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, depth: usize, width: usize) {
        // SAFETY: see `run` above.
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
                            terms: &terms,
                            a_offset: row * self.v_row,
                            depth: width,
                            a_row: self.v_row,
                            a_depth: 1,
                            b_depth: S::TILE_COLUMNS,
                            c: m,
                            c_row: self.m_row,
                            columns: vectors * S::LANES,
                            add: if depth == 0 { std::ptr::null() } else { m },
                            bias: std::ptr::null(),
                            stats: None,
                            norm: None,
                            // The first tiles of a panel fetch the next one, a line per step.
                            prefetch: next.wrapping_add((index * width * 16) % panel_len),
                            prefetch_step: 16,
                        };
                        S::tile(rows, vectors, &tile);
                    }
                    panel = next;
                    column += S::TILE_COLUMNS;
                }
            }
        }
    }

    /// Transforms `M` to output pixels, applies the epilogue and stores.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self) {
        // SAFETY: see `run` above.
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

    /// One vector of channels, from column `c`, of the output tile in `row`. `WHOLE`: neither
    /// pixels nor channels of it lie outside the image; loops then unroll and masks vanish.
    #[inline(always)]
    unsafe fn store_vector<S: Simd, const WHOLE: bool>(
        &self,
        row: usize,
        tile: usize,
        sample: usize,
        c: usize,
    ) {
        use transform::output;
        // SAFETY: see `run` above.
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
            let (down, right) = (grid.width * grid.n * self.to, grid.n * self.to);
            if !self.out.bias.is_null() {
                let bias = load(self.out.bias.at(channel), lanes);
                for value in pixels.as_flattened_mut() {
                    *value = value.add(bias);
                }
            }
            if !self.out.add.is_null() {
                let add = self.rows.addend(self.out.add.at(0), y0, x0).add(start);
                for (i, line) in pixels.iter_mut().enumerate().take(tall) {
                    for (j, value) in line.iter_mut().enumerate().take(wide) {
                        *value = value.add(load(add.add(i * down + j * right), lanes));
                    }
                }
            }
            if !self.out.y.is_null() {
                for (i, line) in pixels.iter().enumerate().take(tall) {
                    for (j, value) in line.iter().enumerate().take(wide) {
                        store(*value, self.out.y.at(start + i * down + j * right), lanes);
                    }
                }
            }
            if let Some(norm) = &self.out.norm {
                let norm = norm.tile(start, channel);
                let channels = norm.channels::<S>(0, lanes);
                for (i, line) in pixels.iter().enumerate().take(tall) {
                    for (j, value) in line.iter().enumerate().take(wide) {
                        norm.store(channels, *value, i * down + j * right, lanes);
                    }
                }
            }
            if !self.partial.is_null() {
                let shift_at = self.partial.add(channel);
                if row == 0 {
                    store(E::stored(pixels[0][0]), shift_at, lanes);
                }
                let shift: S = load(shift_at, lanes);
                let (sum_at, square_at) = (shift_at.add(self.to), shift_at.add(2 * self.to));
                let mut sum: S = load(sum_at, lanes);
                let mut square: S = load(square_at, lanes);
                for line in pixels.iter().take(tall) {
                    for value in line.iter().take(wide) {
                        let d = E::stored(*value).sub(shift);
                        sum = sum.add(d);
                        square = d.mul_add(d, square);
                    }
                }
                store(sum, sum_at, lanes);
                store(square, square_at, lanes);
            }
        }
    }
}

/// `V = B^T d B` for a block of rows and a range of channels, `[point][row][channel]`.
pub(super) struct InputTransform<E, R = Block> {
    pub grid: Grid,
    /// Channels of `x`.
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
    /// `x` holds the images of `grid` with `channels` channels, `v` all points, rows and channels
    /// of the block with whole vectors.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            let grid = &self.grid;
            let zeros = [E::default(); 16];
            let mut v_row = self.v;
            for (tile, first, end) in self.rows.runs() {
                let (y0, x0) = grid.origin(tile);
                // Pixels outside the image read `zeros` at offset 0, the others the image at the
                // row's offset.
                let mut pixels = [(zeros.as_ptr(), 0usize); POINTS];
                for (p, pixel) in pixels.iter_mut().enumerate() {
                    // Wraps above the height or width when it lies before the image.
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
    #[inline(always)]
    unsafe fn transform_row<S: Simd>(
        &self,
        pixels: &[(*const E, usize); POINTS],
        offset: usize,
        v_row: *mut f32,
    ) {
        // SAFETY: the conditions of `run`.
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

    #[inline(always)]
    unsafe fn transform_vector<S: Simd, const WHOLE: bool>(
        &self,
        pixels: &[(*const E, usize); POINTS],
        offset: usize,
        lanes: usize,
        v: *mut f32,
    ) {
        use transform::input;
        // SAFETY: the conditions of `run`.
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
