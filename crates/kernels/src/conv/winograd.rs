//! Winograd F(4x4, 3x3): forward pass and input gradient of 3x3 kernels with stride 1 and padding 1.
//!
//! An image is cut into output tiles of 4x4 pixels, each computed from an input tile of 6x6 pixels. With the batch next
//! to the channels a *row* is one tile of one sample, and for each of the 36 points the rows form a plain matrix product
//! `M[point] = V[point] * U[point]`, `[rows x C_in] * [C_in x C_out]`. A task transforms a block of rows, multiplies and
//! transforms back while everything stays in the second-level cache.
//! Source: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.

use super::transform::{self, IN, OUT, POINTS, square};
use super::{ConvGeometry, Direction, Output};
use crate::buffer::with_scratch;
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Rows of a task.
const BLOCK_ROWS: usize = 64;
/// Input channels transformed at a time.
const BLOCK_DEPTH: usize = 64;
/// Output channels of a task.
const BLOCK_COLUMNS: usize = 128;

pub(super) fn supports(g: &ConvGeometry) -> bool {
    g.kernel == [3; 2] && g.stride == [1; 2] && g.padding == [1; 2] && g.groups == 1
}

/// Whether Winograd beats the direct algorithm from `from` to `to` channels.
pub(super) fn is_faster(image: [usize; 2], from: usize, to: usize) -> bool {
    // Few channels do not pay for the transforms; an image of one or two pixels uses too little of its tile.
    from >= 8 && to >= 8 && image[0] > 2 && image[1] > 2
}

/// The problem of one direction: `from` channels to `to` channels on images of `height x width`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub height: usize,
    pub width: usize,
    pub n: usize,
    pub tiles_x: usize,
    pub rows: usize,
}

impl Grid {
    pub(super) fn new(g: &ConvGeometry, n: usize) -> Self {
        let [height, width] = g.input;
        let (tiles_y, tiles_x) = (height.div_ceil(OUT), width.div_ceil(OUT));
        Self {
            height,
            width,
            n,
            tiles_x,
            rows: tiles_y * tiles_x * n,
        }
    }

    /// Top left output pixel of `tile`.
    pub(super) fn origin(&self, tile: usize) -> (usize, usize) {
        (tile / self.tiles_x * OUT, tile % self.tiles_x * OUT)
    }
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

/// Packs `G g G^T` as `[panel][point][from][TILE_COLUMNS]`.
pub(super) fn pack(g: &ConvGeometry, direction: Direction, isa: Isa, w: &[f32], packed: &mut [f32]) {
    let (from, to) = channels(g, direction);
    let columns = simd::tile_columns(isa);
    let out = Shared::new(packed);
    const FROM_BLOCK: usize = 64;
    let blocks = from.div_ceil(FROM_BLOCK);
    for_each(to.div_ceil(columns) * blocks, |task| {
        let (panel, block) = (task / blocks, task % blocks);
        let first = block * FROM_BLOCK;
        let kernel = PackWeights {
            w: w.as_ptr(),
            direction,
            from,
            to,
            out: out.at(panel * POINTS * from * columns),
            column: panel * columns,
            range: (first, (first + FROM_BLOCK).min(from)),
        };
        // SAFETY: `w` holds `from * to` kernels and `packed` all panels; each task writes its own panel and rows.
        unsafe { dispatch(isa, kernel) };
    });
}

struct PackWeights {
    w: *const f32,
    direction: Direction,
    from: usize,
    to: usize,
    out: *mut f32,
    column: usize,
    range: (usize, usize),
}

impl Kernel for PackWeights {
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
                        let at = (p * self.from + ci) * S::TILE_COLUMNS + v * S::LANES;
                        value.store(self.out.add(at));
                    }
                }
            }
        }
    }
}

/// Outputs per channel of each block of rows, the tasks that share a row of partial sums.
pub(super) fn task_counts(g: &ConvGeometry, n: usize) -> Vec<usize> {
    let grid = Grid::new(g, n);
    (0..grid.rows)
        .step_by(BLOCK_ROWS)
        .map(|start| {
            let end = (start + BLOCK_ROWS).min(grid.rows);
            (start / n..=(end - 1) / n)
                .map(|tile| {
                    let (y, x) = grid.origin(tile);
                    let pixels = (grid.height - y).min(OUT) * (grid.width - x).min(OUT);
                    let samples = end.min((tile + 1) * n) - start.max(tile * n);
                    pixels * samples
                })
                .sum()
        })
        .collect()
}

/// Distance between rows of a transformed block of `width` channels. Not a multiple of a large power of two, so that
/// rows do not compete for the same cache sets.
fn padded(width: usize, lanes: usize) -> usize {
    width.next_multiple_of(lanes) + 16
}

pub(super) fn run(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    n: usize,
    x: &[f32],
    weights: &[f32],
    out: Output,
) {
    let (from, to) = channels(g, direction);
    let grid = Grid::new(g, n);
    let column_blocks = to.div_ceil(BLOCK_COLUMNS);
    let row_blocks = grid.rows.div_ceil(BLOCK_ROWS);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    for_each(column_blocks * row_blocks, |task| {
        let (block, column_block) = (task / column_blocks, task % column_blocks);
        let rows = (block * BLOCK_ROWS, ((block + 1) * BLOCK_ROWS).min(grid.rows));
        let columns = (
            column_block * BLOCK_COLUMNS,
            ((column_block + 1) * BLOCK_COLUMNS).min(to),
        );
        let lanes = simd::lanes(isa);
        let v_row = padded(from.min(BLOCK_DEPTH), lanes);
        let m_row = padded(columns.1 - columns.0, lanes);
        let count = rows.1 - rows.0;
        // One line more per point: neighbouring points then start in different cache sets.
        let v_point = count * v_row + 16;
        let m_point = count * m_row + 16;
        with_scratch(POINTS * (v_point + m_point), |scratch| {
            let (v, m) = scratch.split_at_mut(POINTS * v_point);
            let kernel = Convolve {
                grid,
                from,
                to,
                x: x.at(0),
                weights: weights.at(0),
                out,
                partial: out.partials.at(block * 3 * to),
                rows,
                columns,
                v: v.as_mut_ptr(),
                v_row,
                v_point,
                m: m.as_mut_ptr(),
                m_row,
                m_point,
            };
            // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), the weights those of
            // `packed_len`; tasks write disjoint rows and columns of the output and of the partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

struct Convolve {
    grid: Grid,
    from: usize,
    to: usize,
    x: *const f32,
    weights: *const f32,
    out: Output,
    partial: *mut f32,
    rows: (usize, usize),
    columns: (usize, usize),
    v: *mut f32,
    v_row: usize,
    v_point: usize,
    m: *mut f32,
    m_row: usize,
    m_point: usize,
}

impl Kernel for Convolve {
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

impl Convolve {
    /// `M[point] (+)= V[point] * U[point]` for all points, over `width` input channels from `depth`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, depth: usize, width: usize) {
        // SAFETY: see `run` above.
        unsafe {
            let count = self.rows.1 - self.rows.0;
            let panel_len = POINTS * self.from * S::TILE_COLUMNS;
            for p in 0..POINTS {
                let mut column = self.columns.0;
                while column < self.columns.1 {
                    let (_, vectors) = panel_extent::<S>(self.columns.1, column);
                    let panel = self.weights.add(column / S::TILE_COLUMNS * panel_len);
                    let terms = [Term {
                        a: self.v.add(p * self.v_point),
                        b: panel.add((p * self.from + depth) * S::TILE_COLUMNS),
                    }];
                    for (row, rows) in row_blocks::<S>(count) {
                        let m = self.m.add(p * self.m_point + row * self.m_row + column - self.columns.0);
                        let tile = Tile {
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
                        };
                        S::tile(rows, vectors, &tile);
                    }
                    column += S::TILE_COLUMNS;
                }
            }
        }
    }

    /// Transforms `M` to output pixels, applies the epilogue and stores.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self) {
        use transform::output;
        // SAFETY: see `run` above.
        unsafe {
            let grid = &self.grid;
            let width = self.columns.1 - self.columns.0;
            for r in self.rows.0..self.rows.1 {
                let (tile, sample) = (r / grid.n, r % grid.n);
                let (y0, x0) = grid.origin(tile);
                let (tall, wide) = ((grid.height - y0).min(OUT), (grid.width - x0).min(OUT));
                let m_row = self.m.add((r - self.rows.0) * self.m_row);
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let mut m = [[S::zero(); IN]; IN];
                    for (p, m) in m.as_flattened_mut().iter_mut().enumerate() {
                        *m = S::load(m_row.add(p * self.m_point + c));
                    }
                    let pixels = square!(&m, IN => OUT, output);
                    let channel = self.columns.0 + c;
                    let mut values = [S::zero(); OUT * OUT];
                    let mut count = 0;
                    for (i, line) in pixels.iter().enumerate().take(tall) {
                        for (j, value) in line.iter().enumerate().take(wide) {
                            let pixel = (y0 + i) * grid.width + x0 + j;
                            let at = (pixel * grid.n + sample) * self.to + channel;
                            let mut value = *value;
                            if !self.out.bias.is_null() {
                                value = value.add(load::<S>(self.out.bias.at(channel), lanes));
                            }
                            if !self.out.add.is_null() {
                                value = value.add(load::<S>(self.out.add.at(at), lanes));
                            }
                            store::<S>(value, self.out.y.at(at), lanes);
                            values[count] = value;
                            count += 1;
                        }
                    }
                    if !self.partial.is_null() {
                        let first = r == self.rows.0;
                        self.accumulate::<S>(channel, lanes, &values[..count], first);
                    }
                    c += S::LANES;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn accumulate<S: Simd>(&self, channel: usize, lanes: usize, values: &[S], first: bool) {
        // SAFETY: see `run` above.
        unsafe {
            let shift_at = self.partial.add(channel);
            if first {
                store::<S>(values[0], shift_at, lanes);
            }
            let shift = load::<S>(shift_at, lanes);
            let (sum_at, square_at) = (shift_at.add(self.to), shift_at.add(2 * self.to));
            let mut sum = load::<S>(sum_at, lanes);
            let mut square = load::<S>(square_at, lanes);
            for value in values {
                let d = value.sub(shift);
                sum = sum.add(d);
                square = d.mul_add(d, square);
            }
            store::<S>(sum, sum_at, lanes);
            store::<S>(square, square_at, lanes);
        }
    }
}

/// Loads `lanes <= LANES` values.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(p: *const f32, lanes: usize) -> S {
    // SAFETY: the caller's.
    unsafe {
        if lanes == S::LANES {
            S::load(p)
        } else {
            S::load_first(p, lanes)
        }
    }
}

/// Stores `lanes <= LANES` values.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(value: S, p: *mut f32, lanes: usize) {
    // SAFETY: the caller's.
    unsafe {
        if lanes == S::LANES {
            value.store(p);
        } else {
            value.store_first(p, lanes);
        }
    }
}

/// `V = B^T d B` for a block of rows and a range of channels, `[point][row][channel]`.
pub(super) struct InputTransform {
    pub grid: Grid,
    /// Channels of `x`.
    pub channels: usize,
    pub x: *const f32,
    pub rows: (usize, usize),
    pub range: (usize, usize),
    pub v: *mut f32,
    pub v_row: usize,
    pub v_point: usize,
}

impl InputTransform {
    /// # Safety
    /// `x` holds the images of `grid` with `channels` channels, `v` all points, rows and channels of the block with
    /// whole vectors.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self) {
        use transform::input;
        // SAFETY: the caller's.
        unsafe {
            let grid = &self.grid;
            let zeros = [0.0f32; 16];
            let mut current = usize::MAX;
            // Pixels outside the image read `zeros` at offset 0, the others the image at the row's offset.
            let mut pixels = [(zeros.as_ptr(), 0usize); POINTS];
            for r in self.rows.0..self.rows.1 {
                let (tile, sample) = (r / grid.n, r % grid.n);
                if tile != current {
                    current = tile;
                    let (y0, x0) = grid.origin(tile);
                    for (p, pixel) in pixels.iter_mut().enumerate() {
                        // Wraps above the height or width when it lies before the image.
                        let y = (y0 + p / IN).wrapping_sub(1);
                        let x = (x0 + p % IN).wrapping_sub(1);
                        *pixel = if y < grid.height && x < grid.width {
                            let at = (y * grid.width + x) * grid.n * self.channels;
                            (self.x.add(at), usize::MAX)
                        } else {
                            (zeros.as_ptr(), 0)
                        };
                    }
                }
                let v_row = self.v.add((r - self.rows.0) * self.v_row);
                let mut c = self.range.0;
                while c < self.range.1 {
                    let lanes = (self.range.1 - c).min(S::LANES);
                    let offset = sample * self.channels + c;
                    let mut d = [[S::zero(); IN]; IN];
                    for (d, (base, mask)) in d.as_flattened_mut().iter_mut().zip(&pixels) {
                        *d = load::<S>(base.wrapping_add(offset & mask), lanes);
                    }
                    let v = square!(&d, IN => IN, input);
                    for (p, value) in v.as_flattened().iter().enumerate() {
                        value.store(v_row.add(p * self.v_point + c - self.range.0));
                    }
                    c += S::LANES;
                }
            }
        }
    }
}
