//! Direct convolution of bf16 by the processor's products of bf16 pairs, with sums in `f32`: AMX
//! tiles, or `vdpbf16ps` on a register tile.
//!
//! Pairs are neighbours in depth. Where the channels of a group fill whole steps (2 channels for
//! `vdpbf16ps`, 32 for a tile) activations are read in place, one term for each tap; otherwise the
//! taps of a pixel are gathered side by side and padded with zeros. Weights are packed once per
//! update, as panels of 32 outputs whose rows hold a pair for each output: that is a vector operand
//! and an AMX tile alike.

use half::bf16;
use rayon::prelude::*;

use super::direct::{BLOCK_SAMPLES, Problem, Tasks, find_sources, order};
use super::{ConvGeometry, Direction, Output};
use crate::amx::{self, Sums, TileTerm, Tiles};
use crate::buffer::with_bf16_scratch;
use crate::element::{Element, Storage};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{Kernel, Simd, dispatch, pair_tile};
use crate::tile::{Term, Tile, TileStats, epilogue, panel_extent, row_blocks};

/// Outputs of a panel.
const COLUMNS: usize = 32;
/// Input channels packed at a time, even.
const PACK_DEPTH: usize = 16;
/// Channels up to which gathering copies one by one.
const SHORT: usize = 16;

/// How the depth of one output is laid out.
#[derive(Clone, Copy)]
struct Depth {
    /// Whether taps are gathered.
    gather: bool,
    /// Values of a term.
    term: usize,
    /// Values of all terms, as packed.
    total: usize,
}

impl Depth {
    fn new(g: &ConvGeometry, direction: Direction, isa: Isa) -> Self {
        let from = Problem::new(g, direction).from;
        let step = if isa == Isa::Amx { amx::STEP } else { 2 };
        let total = (g.taps() * from).next_multiple_of(step);
        let gather = !from.is_multiple_of(step);
        Self { gather, term: if gather { total } else { from }, total }
    }
}

fn tasks(g: &ConvGeometry, direction: Direction, isa: Isa, n: usize) -> Tasks {
    // With tiles one task holds many pixels of few samples: their taps overlap and stay in the
    // second-level cache.
    Tasks::new(g, direction, n, if isa == Isa::Amx { amx::BLOCK } else { BLOCK_SAMPLES })
}

/// Outputs per channel of each task.
pub(super) fn task_counts(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    n: usize,
) -> Vec<usize> {
    tasks(g, direction, isa, n).counts(n)
}

/// Length of the packed weights in pairs, each as large as an `f32`.
pub(super) fn packed_len(g: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    let to = Problem::new(g, direction).to;
    g.groups * to.div_ceil(COLUMNS) * COLUMNS * (Depth::new(g, direction, isa).total / 2)
}

/// Packs weights as `[group][panel][pair of tap and from][COLUMNS][2]`, with zeros for columns and
/// depths that do not exist.
pub(super) fn pack(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let problem = Problem::new(g, direction);
    let (from, to, taps) = (problem.from, problem.to, g.taps());
    let total = Depth::new(g, direction, isa).total;
    let panel_len = total / 2 * COLUMNS;
    if panel_len == 0 {
        return;
    }
    let panels = to.div_ceil(COLUMNS);
    let weight = |group: usize, t: usize, f: usize| match direction {
        Direction::Forward => ((group * to + t) * g.group_in() + f) * taps,
        Direction::InputGrad => ((group * from + f) * g.group_in() + t) * taps,
    };
    packed.par_chunks_exact_mut(panel_len).enumerate().for_each(|(index, panel)| {
        let (group, first) = (index / panels, index % panels * COLUMNS);
        let width = (to - first).min(COLUMNS);
        // SAFETY: a pair of bf16 has the size of an `f32`, a smaller alignment, and every bit
        // pattern is a value of either.
        let panel = unsafe {
            std::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<[bf16; 2]>(), panel_len)
        };
        if !from.is_multiple_of(2) {
            for (row, pairs) in panel.chunks_exact_mut(COLUMNS).enumerate() {
                for (column, pair) in pairs.iter_mut().enumerate() {
                    *pair = std::array::from_fn(|half| {
                        let k = 2 * row + half;
                        let exists = column < width && k < taps * from;
                        if exists {
                            bf16::narrow(w[weight(group, first + column, k % from) + k / from])
                        } else {
                            bf16::ZERO
                        }
                    });
                }
            }
            return;
        }
        // Weights of one output and input lie side by side over taps; turned around in a block that
        // stays in the cache.
        let mut block = vec![[0.0f32; COLUMNS]; taps * PACK_DEPTH];
        for start in (0..from).step_by(PACK_DEPTH) {
            let depth = (from - start).min(PACK_DEPTH);
            let mut copy = |f: usize, column: usize| {
                let at = weight(group, first + column, start + f);
                for (tap, w) in w[at..at + taps].iter().enumerate() {
                    block[tap * PACK_DEPTH + f][column] = *w;
                }
            };
            match direction {
                Direction::Forward => {
                    (0..width).for_each(|column| (0..depth).for_each(|f| copy(f, column)))
                }
                Direction::InputGrad => {
                    (0..depth).for_each(|f| (0..width).for_each(|column| copy(f, column)))
                }
            }
            for tap in 0..taps {
                let rows = &block[tap * PACK_DEPTH..][..depth];
                let first = (tap * from + start) / 2 * COLUMNS;
                for (pairs, rows) in
                    panel[first..].chunks_exact_mut(COLUMNS).zip(rows.as_chunks::<2>().0)
                {
                    for (pair, (a, b)) in pairs.iter_mut().zip(rows[0].iter().zip(&rows[1])) {
                        *pair = [bf16::narrow(*a), bf16::narrow(*b)];
                    }
                }
            }
        }
        panel[taps * from / 2 * COLUMNS..].fill([bf16::ZERO; 2]);
    });
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
    let tasks = tasks(g, direction, isa, n);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    let depth = Depth::new(g, direction, isa);
    // Tiles read whole rows of 16 samples.
    let gathered =
        if depth.gather { tasks.samples.next_multiple_of(amx::BLOCK) * depth.total } else { 0 };
    for_each(tasks.count(), |task| {
        let (pixels, samples) = tasks.range(task, n);
        with_bf16_scratch(gathered, |gathered| {
            let problem = Problem::new(g, direction);
            let kernel = Convolve {
                g,
                direction,
                depth,
                tiles: isa == Isa::Amx,
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                partial: out.partials.at(task * 3 * g.groups * problem.to),
                problem,
                gathered: gathered.as_mut_ptr().cast(),
                pixels,
                samples,
            };
            // SAFETY: `Conv2d` has checked that `E` is bf16, that the instruction set exists and
            // that the slices have the lengths of the geometry; the weights have those of
            // `packed_len`; tasks write disjoint pixels and samples of the output, and their own
            // partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

struct Convolve<'a, E> {
    g: &'a ConvGeometry,
    direction: Direction,
    problem: Problem,
    depth: Depth,
    /// Whether to multiply with AMX tiles.
    tiles: bool,
    n: usize,
    x: *const E,
    /// Pairs.
    weights: *const f32,
    out: Output<E>,
    partial: *mut f32,
    /// `[sample][tap][from]`, padded.
    gathered: *mut E,
    pixels: (usize, usize),
    samples: (usize, usize),
}

impl<E: Element> Kernel for Convolve<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
        unsafe {
            let (g, problem) = (self.g, &self.problem);
            let panel_len = self.depth.total / 2 * COLUMNS;
            let panels = problem.to.div_ceil(COLUMNS);
            let rows = if self.depth.gather { amx::BLOCK } else { self.n };
            let rows = [rows.min(16), rows.saturating_sub(16).min(16)];
            let mut tiles = self.tiles.then(|| (Tiles::new(rows), Vec::with_capacity(g.taps())));
            let mut sources = Vec::with_capacity(g.taps());
            let mut terms = Vec::with_capacity(g.taps());
            for group in 0..g.groups {
                let weights = self.weights.add(group * panels * panel_len);
                if self.depth.gather {
                    for pixel in self.pixels.0..self.pixels.1 {
                        find_sources(g, self.direction, problem, pixel, &mut sources);
                        self.gather(group, &sources);
                        for panel in 0..panels {
                            terms.clear();
                            terms.push(Term {
                                a: self.gathered.cast_const().cast(),
                                b: weights.add(panel * panel_len),
                            });
                            self.multiply::<S>(&mut tiles, pixel, group, panel * COLUMNS, &terms);
                        }
                    }
                } else {
                    for (panel, pixel) in order(self.pixels, panels, panel_len) {
                        let weights = weights.add(panel * panel_len);
                        find_sources(g, self.direction, problem, pixel, &mut sources);
                        terms.clear();
                        terms.extend(sources.iter().map(|&(source, tap)| Term {
                            a: self.source(source, group, 0).cast(),
                            b: weights.add(tap * problem.from / 2 * COLUMNS),
                        }));
                        self.multiply::<S>(&mut tiles, pixel, group, panel * COLUMNS, &terms);
                    }
                }
            }
        }
    }
}

impl<E: Element> Convolve<'_, E> {
    /// `sample` at a source pixel.
    #[inline(always)]
    unsafe fn source(&self, pixel: usize, group: usize, sample: usize) -> *const E {
        let row = self.problem.from * self.g.groups;
        // SAFETY: the source pixel exists.
        unsafe { self.x.add((pixel * self.n + sample) * row + group * self.problem.from) }
    }

    /// Copies what lies under each tap of a pixel side by side, with zeros for taps outside the
    /// image and for the padding.
    #[inline(always)]
    unsafe fn gather(&self, group: usize, sources: &[(usize, usize)]) {
        // SAFETY: see `run` above.
        unsafe {
            let (from, total) = (self.problem.from, self.depth.total);
            let row = from * self.g.groups;
            let count = self.samples.1 - self.samples.0;
            if sources.len() < self.g.taps() || total > from * self.g.taps() {
                self.gathered.write_bytes(0, count * total);
            }
            for &(source, tap) in sources {
                let x = self.source(source, group, self.samples.0);
                let out = self.gathered.add(tap * from);
                for sample in 0..count {
                    let (x, out) = (x.add(sample * row), out.add(sample * total));
                    if from <= SHORT {
                        for c in 0..from {
                            *out.add(c) = *x.add(c);
                        }
                    } else {
                        std::ptr::copy_nonoverlapping(x, out, from);
                    }
                }
            }
        }
    }

    /// One panel of outputs of one pixel, for all samples of the task. Terms begin at sample 0, or
    /// at the task's first sample where they are gathered.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        tiles: &mut Option<(Tiles, Vec<TileTerm>)>,
        pixel: usize,
        group: usize,
        column: usize,
        terms: &[Term],
    ) {
        // SAFETY: see `run` above.
        unsafe {
            let (columns, vectors) = panel_extent::<S>(self.problem.to, column);
            // Pairs from one sample to the next.
            let row_pairs = if self.depth.gather {
                self.depth.total
            } else {
                self.problem.from * self.g.groups
            } / 2;
            let first = if self.depth.gather { 0 } else { self.samples.0 };
            match tiles {
                None => {
                    for (row, rows) in row_blocks::<S>(self.samples.1 - self.samples.0) {
                        let tile = self.tile(pixel, group, column, columns, row);
                        let tile = Tile {
                            terms,
                            a_offset: (first + row) * row_pairs,
                            depth: self.depth.term / 2,
                            a_row: row_pairs,
                            ..tile
                        };
                        pair_tile(rows, vectors, &tile);
                    }
                }
                Some((tiles, moved)) => {
                    let count = self.samples.1 - self.samples.0;
                    // A block at the end of the batch begins earlier, to be whole; rows before the
                    // task's are dropped.
                    let start = if self.depth.gather {
                        0
                    } else {
                        first.min(self.n.saturating_sub(amx::BLOCK))
                    };
                    let skip = if self.depth.gather { 0 } else { first - start };
                    moved.clear();
                    let at_start = |term: &Term| TileTerm {
                        a: term.a.wrapping_add(start * row_pairs).cast(),
                        b: term.b.cast(),
                    };
                    moved.extend(terms.iter().map(at_start));
                    let mut sums = Sums::zeroed();
                    amx::multiply(
                        tiles,
                        moved,
                        self.depth.term / amx::STEP,
                        row_pairs * 4,
                        skip + count,
                        columns,
                        &mut sums,
                    );
                    let mut row = 0;
                    while row < count {
                        let tile = self.tile(pixel, group, column, columns, row);
                        let sums = sums.0.as_ptr().cast::<f32>().add((skip + row) * amx::BLOCK);
                        row += match (count - row >= 8, vectors) {
                            (true, 2) => finish::<S, E, 8, 2>(&tile, sums),
                            (true, _) => finish::<S, E, 8, 1>(&tile, sums),
                            (false, 2) => finish::<S, E, 1, 2>(&tile, sums),
                            (false, _) => finish::<S, E, 1, 1>(&tile, sums),
                        };
                    }
                }
            }
        }
    }

    /// Where the outputs of one pixel go, from `row` of the task's samples on.
    #[inline(always)]
    unsafe fn tile(
        &self,
        pixel: usize,
        group: usize,
        column: usize,
        columns: usize,
        row: usize,
    ) -> Tile<'static, E> {
        let to_row = self.problem.to * self.g.groups;
        let channel = group * self.problem.to + column;
        let at = (pixel * self.n + self.samples.0 + row) * to_row + channel;
        // SAFETY: see `run` above.
        let stats = (!self.partial.is_null()).then(|| unsafe {
            TileStats {
                shift: self.partial.add(channel),
                sum: self.partial.add(to_row + channel),
                square: self.partial.add(2 * to_row + channel),
                first: pixel == self.pixels.0 && row == 0,
            }
        });
        Tile {
            terms: &[],
            a_offset: 0,
            depth: 0,
            a_row: 0,
            a_depth: 1,
            b_depth: COLUMNS,
            c: self.out.y.at(at),
            c_row: to_row,
            columns,
            add: self.out.add.at(at),
            bias: self.out.bias.at(channel),
            stats,
            norm: self.out.norm.map(|norm| norm.tile(at, channel)),
            prefetch: std::ptr::null(),
            prefetch_step: 0,
        }
    }
}

/// Finishes `R` rows of `V` vectors of an AMX product and returns `R`.
#[inline(always)]
unsafe fn finish<S: Simd, E: Element, const R: usize, const V: usize>(
    tile: &Tile<E>,
    sums: *const f32,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[S::zero(); V]; R];
        for (r, row) in acc.iter_mut().enumerate() {
            for (v, value) in row.iter_mut().enumerate() {
                *value = S::load(sums.add(r * amx::BLOCK + v * S::LANES));
            }
        }
        epilogue(tile, acc);
    }
    R
}
