//! Direct convolution: an output pixel is a sum over kernel taps of `[N x C_in] * [C_in x C_out]`.
//!
//! All taps accumulate in registers before one store. The input gradient is the same with transposed weights and the
//! taps that reach each input pixel.

use super::{ConvGeometry, Direction, Output};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, TileStats, panel_extent, row_blocks};

/// Samples of a task.
const BLOCK_SAMPLES: usize = 256;
/// Rows (pixels times samples) a task aims for.
const TASK_ROWS: usize = 512;

/// One direction: output pixels `to_size` with `to` channels per group from `from_size` with `from`.
struct Problem {
    from: usize,
    to: usize,
    from_size: [usize; 2],
    to_size: [usize; 2],
}

impl Problem {
    fn new(g: &ConvGeometry, direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self { from: g.group_in(), to: g.group_out(), from_size: g.input, to_size: g.output() },
            Direction::InputGrad => Self { from: g.group_out(), to: g.group_in(), from_size: g.output(), to_size: g.input },
        }
    }
}

/// How output pixels and samples are cut into tasks.
struct Tasks {
    pixels: usize,
    group: usize,
    samples: usize,
    blocks: usize,
}

impl Tasks {
    fn new(g: &ConvGeometry, direction: Direction, n: usize) -> Self {
        let [h, w] = Problem::new(g, direction).to_size;
        let samples = n.clamp(1, BLOCK_SAMPLES);
        Self { pixels: h * w, group: (TASK_ROWS / samples).max(1), samples, blocks: n.div_ceil(samples) }
    }

    fn count(&self) -> usize {
        self.pixels.div_ceil(self.group) * self.blocks
    }

    /// Ranges of pixels and samples of a task.
    fn range(&self, task: usize, n: usize) -> ((usize, usize), (usize, usize)) {
        let (group, block) = (task / self.blocks, task % self.blocks);
        ((group * self.group, ((group + 1) * self.group).min(self.pixels)), (block * self.samples, ((block + 1) * self.samples).min(n)))
    }
}

/// Outputs per channel of each task.
pub(super) fn task_counts(g: &ConvGeometry, direction: Direction, n: usize) -> Vec<usize> {
    let tasks = Tasks::new(g, direction, n);
    (0..tasks.count())
        .map(|task| {
            let (pixels, samples) = tasks.range(task, n);
            (pixels.1 - pixels.0) * (samples.1 - samples.0)
        })
        .collect()
}

pub(super) fn packed_len(g: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    let problem = Problem::new(g, direction);
    let columns = problem.to.next_multiple_of(simd::tile_columns(isa));
    g.groups * g.taps() * problem.from * columns
}

/// Packs weights as `[group][panel][tap][from][TILE_COLUMNS]`, columns that do not exist as zeros.
pub(super) fn pack(g: &ConvGeometry, direction: Direction, isa: Isa, w: &[f32], packed: &mut [f32]) {
    let problem = Problem::new(g, direction);
    let (from, to, taps) = (problem.from, problem.to, g.taps());
    let columns = simd::tile_columns(isa);
    let panel_len = taps * from * columns;
    if panel_len == 0 {
        return;
    }
    let panels = to.div_ceil(columns);
    for (index, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
        let (group, first) = (index / panels, index % panels * columns);
        for (row, values) in panel.chunks_exact_mut(columns).enumerate() {
            let (tap, f) = (row / from, row % from);
            for (column, value) in values.iter_mut().enumerate() {
                let t = first + column;
                *value = if t >= to {
                    0.0
                } else {
                    let (o, i) = match direction {
                        Direction::Forward => (group * to + t, f),
                        Direction::InputGrad => (group * from + f, t),
                    };
                    w[(o * g.group_in() + i) * taps + tap]
                };
            }
        }
    }
}

/// Source coordinate that `tap` of the pixel at `at` reads, along one dimension.
#[inline(always)]
pub(super) fn source(g: &ConvGeometry, direction: Direction, dimension: usize, at: usize, tap: usize, size: usize) -> Option<usize> {
    let (stride, padding) = (g.stride[dimension], g.padding[dimension]);
    let found = match direction {
        Direction::Forward => (at * stride + tap).checked_sub(padding)?,
        Direction::InputGrad => {
            let scaled = (at + padding).checked_sub(tap)?;
            if scaled % stride != 0 {
                return None;
            }
            scaled / stride
        }
    };
    (found < size).then_some(found)
}

pub(super) fn run(g: &ConvGeometry, direction: Direction, isa: Isa, n: usize, x: &[f32], weights: &[f32], out: Output) {
    let tasks = Tasks::new(g, direction, n);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    for_each(tasks.count(), |task| {
        let (pixels, samples) = tasks.range(task, n);
        let kernel = Convolve {
            g,
            direction,
            problem: Problem::new(g, direction),
            n,
            x: x.at(0),
            weights: weights.at(0),
            out,
            partial: out.partials.at(task * 3 * g.groups * Problem::new(g, direction).to),
            pixels,
            samples,
        };
        // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), the weights those of
        // `packed_len`; tasks write disjoint pixels and samples of the output, and their own partial sums.
        unsafe { dispatch(isa, kernel) };
    });
}

struct Convolve<'a> {
    g: &'a ConvGeometry,
    direction: Direction,
    problem: Problem,
    n: usize,
    x: *const f32,
    weights: *const f32,
    out: Output,
    partial: *mut f32,
    pixels: (usize, usize),
    samples: (usize, usize),
}

impl Kernel for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
        unsafe {
            let (g, problem) = (self.g, &self.problem);
            let panel_len = g.taps() * problem.from * S::TILE_COLUMNS;
            let panels = problem.to.div_ceil(S::TILE_COLUMNS);
            let mut terms = Vec::with_capacity(g.taps());
            for group in 0..g.groups {
                for panel in 0..panels {
                    let weights = self.weights.add((group * panels + panel) * panel_len);
                    for pixel in self.pixels.0..self.pixels.1 {
                        self.find_terms::<S>(pixel, group, weights, &mut terms);
                        self.multiply::<S>(pixel, group, panel * S::TILE_COLUMNS, &terms);
                    }
                }
            }
        }
    }
}

impl Convolve<'_> {
    /// The taps of `pixel` that lie inside the source image.
    #[inline(always)]
    unsafe fn find_terms<S: Simd>(&self, pixel: usize, group: usize, weights: *const f32, terms: &mut Vec<Term>) {
        let (g, problem) = (self.g, &self.problem);
        let row = problem.from * g.groups;
        let (y, x) = (pixel / problem.to_size[1], pixel % problem.to_size[1]);
        terms.clear();
        for ky in 0..g.kernel[0] {
            let Some(sy) = source(g, self.direction, 0, y, ky, problem.from_size[0]) else {
                continue;
            };
            for kx in 0..g.kernel[1] {
                let Some(sx) = source(g, self.direction, 1, x, kx, problem.from_size[1]) else {
                    continue;
                };
                let source = sy * problem.from_size[1] + sx;
                let tap = ky * g.kernel[1] + kx;
                // SAFETY: the source pixel and the tap exist.
                terms.push(unsafe {
                    Term {
                        a: self.x.add((source * self.n + self.samples.0) * row + group * problem.from),
                        b: weights.add(tap * problem.from * S::TILE_COLUMNS),
                    }
                });
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, pixel: usize, group: usize, column: usize, terms: &[Term]) {
        // SAFETY: see `run` above.
        unsafe {
            let (g, problem) = (self.g, &self.problem);
            let (from_row, to_row) = (problem.from * g.groups, problem.to * g.groups);
            let (columns, vectors) = panel_extent::<S>(problem.to, column);
            let channel = group * problem.to + column;
            for (row, rows) in row_blocks::<S>(self.samples.1 - self.samples.0) {
                let at = (pixel * self.n + self.samples.0 + row) * to_row + channel;
                let stats = (!self.partial.is_null()).then(|| TileStats {
                    shift: self.partial.add(channel),
                    sum: self.partial.add(to_row + channel),
                    square: self.partial.add(2 * to_row + channel),
                    first: pixel == self.pixels.0 && row == 0,
                });
                let tile = Tile {
                    terms,
                    a_offset: row * from_row,
                    depth: problem.from,
                    a_row: from_row,
                    a_depth: 1,
                    b_depth: S::TILE_COLUMNS,
                    c: self.out.y.at(at),
                    c_row: to_row,
                    columns,
                    add: self.out.add.at(at),
                    bias: self.out.bias.at(channel),
                    stats,
                    prefetch: terms.first().map_or(std::ptr::null(), |term| term.b),
                    prefetch_step: 16,
                };
                S::tile(rows, vectors, &tile);
            }
        }
    }
}
