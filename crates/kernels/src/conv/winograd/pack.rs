//! Weights transformed and packed for Winograd's algorithm.

use super::transform::{F4, Line, SIDE, Tiling, columns};
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::isa::Isa;
use crate::parallel::{Shared, block_size, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};

/// Number of products of a tile.
const POINTS: usize = F4::POINTS;
/// Number of weights of a kernel.
const TAPS: usize = 9;
/// Input channels that are transformed at a time.
pub(super) const BLOCK_DEPTH: usize = block_size(128, 4);
/// Output channels of a task, a multiple of every panel width.
pub(super) const BLOCK_COLUMNS: usize = block_size(256, 8);

/// The numbers of channels that `direction` reads and writes.
pub(super) fn channels(geometry: &ConvGeometry, direction: Direction) -> (usize, usize) {
    match direction {
        Direction::Forward => (geometry.in_channels, geometry.out_channels),
        Direction::InputGrad => (geometry.out_channels, geometry.in_channels),
    }
}

/// Number of `f32` of the packed weights.
pub(in crate::conv) fn packed_len(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
) -> usize {
    let (from, to) = channels(geometry, direction);
    POINTS * from * to.next_multiple_of(simd::tile_columns(isa))
}

/// Packs `G g G^T` in the order in which tasks read it:
/// `[block of to][block of from][point][panel][from][TILE_COLUMNS]`.
pub(in crate::conv) fn pack(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let (from, to) = channels(geometry, direction);
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
            kernels: Kernels { w: w.as_ptr(), direction, from, to },
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

/// Kernels of nine weights between `from` and `to` channels, in PyTorch's order.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub(super) w: *const f32,
    pub(super) direction: Direction,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Kernels {
    /// The points of the kernels between channel `ci` that is read and those from `column` on that
    /// are written; those beyond the last are zero.
    ///
    /// # Safety
    /// The features of `S` are enabled; `w` holds the kernels, and channel `ci` exists.
    #[inline(always)]
    pub(super) unsafe fn points<T: Tiling, S: Simd>(
        &self,
        ci: usize,
        column: usize,
    ) -> [Line<S>; SIDE] {
        // The first lane's kernel, and the distance of the lanes' kernels.
        let (first, step) = match self.direction {
            Direction::Forward => (column * self.from + ci, self.from),
            Direction::InputGrad => (ci * self.to + column, 1),
        };
        let lanes = self.to.saturating_sub(column).min(S::LANES);
        // Taps by lanes; 16 lanes hold the widest vector.
        let mut taps = [[0.0f32; 16]; 16];
        // SAFETY: the caller enabled the features of `S` and promises that the lanes' kernels exist;
        // squares are read where they end within the last kernel.
        unsafe {
            let end = (first + (S::LANES - 1) * step) * TAPS + TAPS.next_multiple_of(S::LANES);
            if lanes == S::LANES && end <= self.from * self.to * TAPS {
                let lines = taps.as_flattened_mut().as_mut_ptr();
                for t in (0..TAPS).step_by(S::LANES) {
                    S::transpose(self.w.add(first * TAPS + t), step * TAPS, lines.add(t * 16), 16);
                }
            } else {
                for lane in 0..lanes {
                    for (t, line) in taps.iter_mut().enumerate().take(TAPS) {
                        line[lane] = *self.w.add((first + lane * step) * TAPS + t);
                    }
                }
            }
            let mut rows = [[S::zero(); SIDE]; SIDE];
            for (i, row) in rows.iter_mut().enumerate().take(3) {
                let mut line = [S::zero(); SIDE];
                for (j, value) in line.iter_mut().enumerate().take(3) {
                    // The input gradient takes the kernel upside down.
                    let t = match self.direction {
                        Direction::Forward => 3 * i + j,
                        Direction::InputGrad => TAPS - 1 - (3 * i + j),
                    };
                    *value = S::load(taps[t].as_ptr());
                }
                *row = T::weight(line);
            }
            columns!(&rows, T::IN, T::weight)
        }
    }
}

struct PackWeights {
    kernels: Kernels,
    out: *mut f32,
    /// Distance in floats between points of `out`.
    point: usize,
    column: usize,
    range: (usize, usize),
}

impl Kernel for PackWeights {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller enabled the features of `S` and promises kernels of `from * to`
        // channels at `w`, and a panel of these rows at every point of `out`.
        unsafe {
            for ci in self.range.0..self.range.1 {
                for v in 0..S::TILE_VECTORS {
                    let column = self.column + v * S::LANES;
                    let u = self.kernels.points::<F4, S>(ci, column);
                    for (p, value) in u.as_flattened().iter().enumerate() {
                        let row = (ci - self.range.0) * S::TILE_COLUMNS;
                        value.store(self.out.add(p * self.point + row + v * S::LANES));
                    }
                }
            }
        }
    }
}
