//! Weight gradient of 3x3 convolutions with stride 1 by Winograd:
//! `dw = G^T [sum over rows of (B^T d B) (A dY A^T)] G`, a plain matrix product over rows for each of the 36 points.

use super::reduce::reduce_weights;
use super::transform::{self, IN, OUT, POINTS, square};
use super::winograd::{Grid, InputTransform, load, store};
use super::ConvGeometry;
use crate::buffer::with_scratch;
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Rows transformed and multiplied at a time.
const BLOCK_ROWS: usize = 32;
/// Input channels of a task.
const BLOCK_FROM: usize = 64;
/// Output channels of a task.
const BLOCK_TO: usize = 128;
/// Tasks to aim for, enough to keep many cores busy.
const TASKS: usize = 64;
/// Fewest rows of a task: fewer do not pay for its transform back.
const MIN_TASK_ROWS: usize = 256;

pub(super) fn run(g: &ConvGeometry, isa: Isa, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let grid = Grid::new(g, n);
    let (from, to) = (g.in_channels, g.out_channels);
    let from_blocks = from.div_ceil(BLOCK_FROM);
    let to_blocks = to.div_ceil(BLOCK_TO);
    let blocks = from_blocks * to_blocks;
    let chunks = (TASKS.div_ceil(blocks)).min(grid.rows.div_ceil(MIN_TASK_ROWS));
    let chunk_rows = grid.rows.div_ceil(chunks).next_multiple_of(BLOCK_ROWS);
    let chunks = grid.rows.div_ceil(chunk_rows);
    let plane = 9 * from * to;
    let x = Shared::read_only(x);
    let dy = Shared::read_only(dy);
    with_scratch(chunks * plane, |partials| {
        let shared = Shared::new(partials);
        for_each(chunks * blocks, |task| {
            let (chunk, block) = (task / blocks, task % blocks);
            let (from_block, to_block) = (block / to_blocks, block % to_blocks);
            let from_range = (from_block * BLOCK_FROM, ((from_block + 1) * BLOCK_FROM).min(from));
            let to_range = (to_block * BLOCK_TO, ((to_block + 1) * BLOCK_TO).min(to));
            let lanes = simd::lanes(isa);
            let columns = (to_range.1 - to_range.0).next_multiple_of(simd::tile_columns(isa));
            let v_row = (from_range.1 - from_range.0).next_multiple_of(lanes);
            // One line more per point: neighbouring points then start in different cache sets.
            let v_point = BLOCK_ROWS * v_row + 16;
            let d_point = BLOCK_ROWS * columns + 16;
            let u_point = (from_range.1 - from_range.0) * columns + 16;
            with_scratch(POINTS * (v_point + d_point + u_point), |scratch| {
                let (v, rest) = scratch.split_at_mut(POINTS * v_point);
                let (d, u) = rest.split_at_mut(POINTS * d_point);
                let kernel = WeightGrad {
                    grid,
                    from,
                    to,
                    from_range,
                    to_range,
                    rows: (chunk * chunk_rows, ((chunk + 1) * chunk_rows).min(grid.rows)),
                    x: x.at(0),
                    dy: dy.at(0),
                    v: v.as_mut_ptr(),
                    v_row,
                    v_point,
                    d: d.as_mut_ptr(),
                    d_point,
                    u: u.as_mut_ptr(),
                    u_row: columns,
                    u_point,
                    dw: shared.at(chunk * plane),
                };
                // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), the scratch those computed
                // above; tasks write disjoint chunks or channels of the partial gradients.
                unsafe { dispatch(isa, kernel) };
            });
        });
        reduce_weights(partials, 9, from, to, dw);
    });
}

struct WeightGrad {
    grid: Grid,
    from: usize,
    to: usize,
    from_range: (usize, usize),
    to_range: (usize, usize),
    rows: (usize, usize),
    x: *const f32,
    dy: *const f32,
    /// `[point][row][from]`.
    v: *mut f32,
    v_row: usize,
    v_point: usize,
    /// `[point][panel][row][TILE_COLUMNS]`.
    d: *mut f32,
    d_point: usize,
    /// `[point][from][to]`.
    u: *mut f32,
    u_row: usize,
    u_point: usize,
    /// `[tap][from][to]`.
    dw: *mut f32,
}

impl Kernel for WeightGrad {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
        unsafe {
            let mut row = self.rows.0;
            while row < self.rows.1 {
                let rows = (row, (row + BLOCK_ROWS).min(self.rows.1));
                InputTransform {
                    grid: self.grid,
                    channels: self.from,
                    x: self.x,
                    rows,
                    range: self.from_range,
                    v: self.v,
                    v_row: self.v_row,
                    v_point: self.v_point,
                }
                .run::<S>();
                self.transform_output_grad::<S>(rows);
                self.multiply::<S>(rows.1 - rows.0, row == self.rows.0);
                row = rows.1;
            }
            self.transform_back::<S>();
        }
    }
}

impl WeightGrad {
    /// `D = A dY A^T`; output pixels outside the image count as zero.
    #[inline(always)]
    unsafe fn transform_output_grad<S: Simd>(&self, rows: (usize, usize)) {
        use transform::output_grad;
        // SAFETY: see `run` above.
        unsafe {
            let grid = &self.grid;
            for r in rows.0..rows.1 {
                let (tile, sample) = (r / grid.n, r % grid.n);
                let (y0, x0) = grid.origin(tile);
                let (tall, wide) = ((grid.height - y0).min(OUT), (grid.width - x0).min(OUT));
                let mut c = self.to_range.0;
                while c < self.to_range.1 {
                    let lanes = (self.to_range.1 - c).min(S::LANES);
                    let mut y = [[S::zero(); OUT]; OUT];
                    for (i, line) in y.iter_mut().enumerate().take(tall) {
                        for (j, value) in line.iter_mut().enumerate().take(wide) {
                            let pixel = (y0 + i) * grid.width + x0 + j;
                            let at = (pixel * grid.n + sample) * self.to + c;
                            *value = load::<S>(self.dy.add(at), lanes);
                        }
                    }
                    let d = square!(&y, OUT => IN, output_grad);
                    let column = c - self.to_range.0;
                    let (panel, lane) = (column / S::TILE_COLUMNS, column % S::TILE_COLUMNS);
                    let at = (panel * BLOCK_ROWS + r - rows.0) * S::TILE_COLUMNS + lane;
                    for (p, value) in d.as_flattened().iter().enumerate() {
                        value.store(self.d.add(p * self.d_point + at));
                    }
                    c += S::LANES;
                }
            }
        }
    }

    /// `U[point] (+)= V[point]^T * D[point]` over `count` rows.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, count: usize, first: bool) {
        // SAFETY: see `run` above.
        unsafe {
            let width = self.to_range.1 - self.to_range.0;
            for p in 0..POINTS {
                let terms_a = self.v.add(p * self.v_point);
                let mut column = 0;
                while column < width {
                    let (_, vectors) = panel_extent::<S>(width, column);
                    let terms = [Term {
                        a: terms_a,
                        b: self.d.add(p * self.d_point + column * BLOCK_ROWS),
                    }];
                    for (row, rows) in row_blocks::<S>(self.from_range.1 - self.from_range.0) {
                        let u = self.u.add(p * self.u_point + row * self.u_row + column);
                        let tile = Tile {
                            terms: &terms,
                            a_offset: row,
                            depth: count,
                            a_row: 1,
                            a_depth: self.v_row,
                            b_depth: S::TILE_COLUMNS,
                            c: u,
                            c_row: self.u_row,
                            columns: vectors * S::LANES,
                            add: if first { std::ptr::null() } else { u },
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

    /// `dw = G^T U G`.
    #[inline(always)]
    unsafe fn transform_back<S: Simd>(&self) {
        use transform::weight_grad;
        // SAFETY: see `run` above.
        unsafe {
            let width = self.to_range.1 - self.to_range.0;
            for ci in self.from_range.0..self.from_range.1 {
                let u_row = self.u.add((ci - self.from_range.0) * self.u_row);
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let mut u = [[S::zero(); IN]; IN];
                    for (p, u) in u.as_flattened_mut().iter_mut().enumerate() {
                        *u = S::load(u_row.add(p * self.u_point + c));
                    }
                    let dw = square!(&u, IN => 3, weight_grad);
                    for (tap, value) in dw.as_flattened().iter().enumerate() {
                        let at = (tap * self.from + ci) * self.to + self.to_range.0 + c;
                        store::<S>(*value, self.dw.add(at), lanes);
                    }
                    c += S::LANES;
                }
            }
        }
    }
}
