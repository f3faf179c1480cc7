//! Weight gradient of bf16 by products of bf16 pairs: for each tap `X^T * dY`, where pairs are
//! neighbouring samples.
//!
//! A task goes down the image in steps of a few output rows. The input rows that a step needs first
//! are turned into the left operand, once, in a ring that holds the rows of one step; its output
//! gradient becomes the right operand. Each tap then is one long product over the pixels and
//! samples of the step, whose sums stay in registers.

use std::arch::x86_64::*;

use half::bf16;

use super::direct::source;
use super::reduce::{Cut, Task, plane_len, reduce_weights};
use super::{ConvGeometry, Direction};
use crate::amx::{self, Sums, TileTerm, Tiles};
use crate::buffer::{with_bf16_scratch, with_scratch};
use crate::element::Element;
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{Kernel, Simd, dispatch, pair_tile};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Output channels of a panel.
const COLUMNS: usize = 32;
/// Channels turned around at a time.
const LANES: usize = 16;
/// Input channels of a task.
const BLOCK_FROM: usize = 64;
/// Output channels of a task.
const BLOCK_TO: usize = 128;
/// Pixels times samples of a step to aim for: a product this long hides the handling of its sums.
const STEP_ROWS: usize = 1024;
/// Tasks to aim for. Each costs a pass over its partial gradients.
const TASKS: usize = 32;
/// Input channels up to which the general algorithm is used: they would leave most of a tile empty.
const FEW_CHANNELS: usize = 8;

/// Whether this beats the general algorithm.
pub(super) fn pays(g: &ConvGeometry) -> bool {
    g.group_in() > FEW_CHANNELS
}

/// How the work is cut: units of one block of samples and one step of output rows.
#[derive(Clone, Copy)]
struct Plan {
    /// Samples of a block, a multiple of 32.
    samples: usize,
    sample_blocks: usize,
    /// Output rows of a step.
    step_rows: usize,
    /// Steps down the image.
    steps: usize,
    /// Input rows in the ring.
    ring: usize,
}

impl Plan {
    fn new(g: &ConvGeometry, n: usize) -> Self {
        let [height, width] = g.output();
        let samples = (STEP_ROWS / width)
            .next_multiple_of(amx::STEP)
            .clamp(amx::STEP, n.next_multiple_of(amx::STEP));
        let step_rows = (STEP_ROWS / (width * samples)).clamp(1, height);
        let ring = ((step_rows - 1) * g.stride[0] + g.kernel[0]).min(g.input[0]);
        Self {
            samples,
            sample_blocks: n.div_ceil(samples),
            step_rows,
            steps: height.div_ceil(step_rows),
            ring,
        }
    }
}

pub(super) fn run<E: Element>(
    g: &ConvGeometry,
    isa: Isa,
    n: usize,
    x: &[E],
    dy: &[E],
    dw: &mut [f32],
) {
    let (from, to, taps) = (g.group_in(), g.group_out(), g.taps());
    let plan = Plan::new(g, n);
    let units = plan.sample_blocks * plan.steps;
    let plane = plane_len(isa, taps, from, to);
    let cut = Cut::new([from, to], [BLOCK_FROM, BLOCK_TO], units, plane, TASKS);
    let x = Shared::read_only(x);
    let dy = Shared::read_only(dy);
    with_scratch(cut.chunks * plane, |partials| {
        for (group, dw) in dw.chunks_exact_mut((taps * from * to).max(1)).enumerate() {
            let shared = Shared::new(partials);
            for_each(cut.tasks(), |task| {
                let Task { chunk, units, from_range, to_range } = cut.task(task);
                let from_padded = (from_range.1 - from_range.0).next_multiple_of(amx::BLOCK);
                let to_padded = (to_range.1 - to_range.0).next_multiple_of(COLUMNS);
                let left_len = plan.ring * g.input[1] * from_padded * plan.samples;
                let right_len = plan.step_rows * g.output()[1] * to_padded * plan.samples;
                with_bf16_scratch(left_len + right_len, |scratch| {
                    let (left, right) = scratch.split_at_mut(left_len);
                    let kernel = WeightGrad {
                        g,
                        plan,
                        group,
                        n,
                        tiles: isa == Isa::Amx,
                        units,
                        from_range,
                        to_range,
                        from_padded,
                        to_padded,
                        x: x.at(0),
                        dy: dy.at(0),
                        left: left.as_mut_ptr(),
                        right: right.as_mut_ptr(),
                        dw: shared.at(chunk * plane),
                    };
                    // SAFETY: `Conv2d` has checked that `E` is bf16, that the instruction set
                    // exists and that the slices have the lengths of the geometry; the scratch has
                    // those computed above; tasks write disjoint chunks or channels of the partial
                    // gradients.
                    unsafe { dispatch(isa, kernel) };
                });
            });
            reduce_weights(isa, partials, taps, from, to, dw);
        }
    });
}

struct WeightGrad<'a, E> {
    g: &'a ConvGeometry,
    plan: Plan,
    group: usize,
    n: usize,
    /// Whether to multiply with AMX tiles.
    tiles: bool,
    /// Steps of output rows, for one block of samples after the other.
    units: (usize, usize),
    from_range: (usize, usize),
    to_range: (usize, usize),
    from_padded: usize,
    to_padded: usize,
    x: *const E,
    dy: *const E,
    /// Ring of input rows. For tiles `[row][column][from][sample]`, else
    /// `[row][column][pair][from][2]`.
    left: *mut bf16,
    /// `[row][column][panel][pair][COLUMNS][2]`.
    right: *mut bf16,
    /// `[panel][tap][from][COLUMNS]`.
    dw: *mut f32,
}

/// The samples of one unit.
#[derive(Clone, Copy)]
struct Samples {
    first: usize,
    count: usize,
    /// Samples multiplied: `count` and zeros up to a whole step.
    padded: usize,
}

impl<E: Element> Kernel for WeightGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
        unsafe {
            let (g, plan) = (self.g, &self.plan);
            let from = g.group_in();
            for panel in self.to_range.0 / COLUMNS..self.to_range.1.div_ceil(COLUMNS) {
                for tap in 0..g.taps() {
                    let first = (panel * g.taps() + tap) * from + self.from_range.0;
                    self.dw
                        .add(first * COLUMNS)
                        .write_bytes(0, (self.from_range.1 - self.from_range.0) * COLUMNS);
                }
            }
            let tiles = self.tiles.then(|| Tiles::new([16; 2]));
            let used_columns = used(g, 1);
            let used_rows = used(g, 0);
            let mut terms = Vec::with_capacity(plan.step_rows * g.output()[1]);
            let mut tile_terms = Vec::with_capacity(if self.tiles { terms.capacity() } else { 0 });
            // The first input row that is not in the ring yet.
            let mut next_row = 0;
            for unit in self.units.0..self.units.1 {
                let (block, step) = (unit / plan.steps, unit % plan.steps);
                if step == 0 {
                    next_row = 0;
                }
                let first = block * plan.samples;
                let count = (self.n - first).min(plan.samples);
                let padded = count.next_multiple_of(if self.tiles { amx::STEP } else { 2 });
                let samples = Samples { first, count, padded };
                let rows =
                    (step * plan.step_rows, ((step + 1) * plan.step_rows).min(g.output()[0]));
                let needed = (rows.0 * g.stride[0]).saturating_sub(g.padding[0]);
                let end = ((rows.1 - 1) * g.stride[0] + g.kernel[0])
                    .saturating_sub(g.padding[0])
                    .min(g.input[0]);
                for row in (needed.max(next_row)..end).filter(|&row| used_rows[row]) {
                    for column in (0..g.input[1]).filter(|&column| used_columns[column]) {
                        self.fill_left(row, column, samples);
                    }
                }
                next_row = next_row.max(end);
                for row in rows.0..rows.1 {
                    for column in 0..g.output()[1] {
                        self.fill_right(row - rows.0, row, column, samples);
                    }
                }
                for tap in 0..g.taps() {
                    self.find_terms(tap, rows, &mut terms);
                    if terms.is_empty() {
                        continue;
                    }
                    match &tiles {
                        None => self.multiply::<S>(tap, samples, &mut terms),
                        Some(tiles) => {
                            self.multiply_tiles::<S>(tiles, tap, samples, &terms, &mut tile_terms)
                        }
                    }
                }
            }
        }
    }
}

/// Which input rows (dimension 0) or columns (1) some output reads.
fn used(g: &ConvGeometry, dimension: usize) -> Vec<bool> {
    let size = g.input[dimension];
    let mut used = vec![false; size];
    for at in 0..g.output()[dimension] {
        for tap in 0..g.kernel[dimension] {
            if let Some(found) = source(g, Direction::Forward, dimension, at, tap, size) {
                used[found] = true;
            }
        }
    }
    used
}

/// Pairs of two samples' values in `lanes` channels, zeros beyond; null stands for zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pair(a: *const u16, b: *const u16, lanes: usize) -> __m512i {
    let mask = if lanes == LANES { !0 } else { (1u16 << lanes) - 1 };
    let load = |p: *const u16| {
        // SAFETY: the caller's; lanes beyond the mask are not read.
        if p.is_null() {
            _mm256_setzero_si256()
        } else {
            unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) }
        }
    };
    _mm512_or_si512(
        _mm512_cvtepu16_epi32(load(a)),
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load(b))),
    )
}

/// Exchanges rows and columns of a square of 16 x 16 pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // Squares of 4 x 4 within the 128-bit lanes, then the lanes themselves.
    let mut fours = [zero; 16];
    for i in (0..16).step_by(4) {
        let (a, b) = (
            _mm512_unpacklo_epi32(rows[i], rows[i + 1]),
            _mm512_unpackhi_epi32(rows[i], rows[i + 1]),
        );
        let (c, d) = (
            _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]),
            _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]),
        );
        fours[i] = _mm512_unpacklo_epi64(a, c);
        fours[i + 1] = _mm512_unpackhi_epi64(a, c);
        fours[i + 2] = _mm512_unpacklo_epi64(b, d);
        fours[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // `fours[4 i + j]` holds column 4 l + j of rows 4 i .. 4 i + 4 in lane l.
    let mut out = [zero; 16];
    for j in 0..4 {
        let (a, b) = (
            _mm512_shuffle_i32x4::<0x88>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[j], fours[4 + j]),
        );
        let (c, d) = (
            _mm512_shuffle_i32x4::<0x88>(fours[8 + j], fours[12 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[8 + j], fours[12 + j]),
        );
        out[j] = _mm512_shuffle_i32x4::<0x88>(a, c);
        out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(b, d);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    out
}

/// The pairs from sample `2 pair` on, `lanes` channels at `x`, whose rows are `row` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn sample_pair(
    x: *const u16,
    row: usize,
    pair_index: usize,
    count: usize,
    lanes: usize,
) -> __m512i {
    let at = |sample: usize| {
        if sample < count { x.wrapping_add(sample * row) } else { std::ptr::null() }
    };
    // SAFETY: the caller's.
    unsafe { pair(at(2 * pair_index), at(2 * pair_index + 1), lanes) }
}

/// `[pair][from][2]` of `padded` samples at one pixel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn interleave(
    x: *const u16,
    row: usize,
    samples: Samples,
    width: usize,
    out: *mut u32,
    out_row: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for p in 0..samples.padded / 2 {
            for c in (0..width).step_by(LANES) {
                let value = sample_pair(x.add(c), row, p, samples.count, (width - c).min(LANES));
                _mm512_storeu_si512(out.add(p * out_row + c).cast(), value);
            }
        }
    }
}

/// `[from][sample]` of `padded` samples at one pixel, with zeros for channels from `width` to
/// `width_padded`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn turn(
    x: *const u16,
    row: usize,
    samples: Samples,
    width: usize,
    width_padded: usize,
    out: *mut u32,
    out_row: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for c in (0..width_padded).step_by(LANES) {
            let lanes = width.saturating_sub(c).min(LANES);
            for first in (0..samples.padded / 2).step_by(16) {
                let mut square = [_mm512_setzero_si512(); 16];
                if lanes > 0 {
                    for (p, value) in square.iter_mut().enumerate() {
                        *value = sample_pair(x.add(c), row, first + p, samples.count, lanes);
                    }
                    square = transpose(square);
                }
                for (i, value) in square.iter().enumerate() {
                    _mm512_storeu_si512(out.add((c + i) * out_row + first).cast(), *value);
                }
            }
        }
    }
}

impl<E: Element> WeightGrad<'_, E> {
    /// The left operand of an input pixel.
    #[inline(always)]
    fn left(&self, row: usize, column: usize) -> *mut bf16 {
        let pixel = row % self.plan.ring * self.g.input[1] + column;
        self.left.wrapping_add(pixel * self.from_padded * self.plan.samples)
    }

    /// The right operand of an output pixel; `row` counts from the step's first.
    #[inline(always)]
    fn right(&self, row: usize, column: usize) -> *mut bf16 {
        let pixel = row * self.g.output()[1] + column;
        self.right.wrapping_add(pixel * self.to_padded * self.plan.samples)
    }

    #[inline(always)]
    unsafe fn fill_left(&self, row: usize, column: usize, samples: Samples) {
        // SAFETY: see `run` above; the features are those of the instruction set.
        unsafe {
            let g = self.g;
            let pixel = (row * g.input[1] + column) * self.n + samples.first;
            let x = self
                .x
                .add(pixel * g.in_channels + self.group * g.group_in() + self.from_range.0)
                .cast();
            let width = self.from_range.1 - self.from_range.0;
            let out = self.left(row, column).cast();
            if self.tiles {
                turn(
                    x,
                    g.in_channels,
                    samples,
                    width,
                    self.from_padded,
                    out,
                    self.plan.samples / 2,
                );
            } else {
                interleave(x, g.in_channels, samples, width, out, self.from_padded);
            }
        }
    }

    #[inline(always)]
    unsafe fn fill_right(&self, step_row: usize, row: usize, column: usize, samples: Samples) {
        // SAFETY: see `run` above; the features are those of the instruction set.
        unsafe {
            let g = self.g;
            let pixel = (row * g.output()[1] + column) * self.n + samples.first;
            let dy =
                self.dy.add(pixel * g.out_channels + self.group * g.group_out() + self.to_range.0);
            let width = self.to_range.1 - self.to_range.0;
            for first in (0..width).step_by(COLUMNS) {
                let panel = self.right(step_row, column).add(first * self.plan.samples);
                // A panel that is half empty keeps rubbish there: its columns are dropped.
                interleave(
                    dy.add(first).cast(),
                    g.out_channels,
                    samples,
                    (width - first).min(COLUMNS),
                    panel.cast(),
                    COLUMNS,
                );
            }
        }
    }

    /// The operands of `tap` at each output pixel of a step whose tap lies inside the image, for
    /// panel 0.
    #[inline(always)]
    fn find_terms(&self, tap: usize, rows: (usize, usize), terms: &mut Vec<Term>) {
        let g = self.g;
        let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
        terms.clear();
        for row in rows.0..rows.1 {
            let Some(source_row) = source(g, Direction::Forward, 0, row, ky, g.input[0]) else {
                continue;
            };
            for column in 0..g.output()[1] {
                if let Some(source_column) =
                    source(g, Direction::Forward, 1, column, kx, g.input[1])
                {
                    terms.push(Term {
                        a: self.left(source_row, source_column).cast_const().cast(),
                        b: self.right(row - rows.0, column).cast_const().cast(),
                    });
                }
            }
        }
    }

    /// Where the gradients of `tap` between input channel `row` of the task and its panel at
    /// `column` go.
    #[inline(always)]
    fn destination(&self, tap: usize, row: usize, column: usize) -> *mut f32 {
        let panel = (self.to_range.0 + column) / COLUMNS;
        let first = (panel * self.g.taps() + tap) * self.g.group_in() + self.from_range.0 + row;
        self.dw.wrapping_add(first * COLUMNS)
    }

    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, tap: usize, samples: Samples, terms: &mut [Term]) {
        // SAFETY: see `run` above.
        unsafe {
            let width = self.to_range.1 - self.to_range.0;
            for column in (0..width).step_by(COLUMNS) {
                let (_, vectors) = panel_extent::<S>(width, column);
                for (row, rows) in row_blocks::<S>(self.from_range.1 - self.from_range.0) {
                    let c = self.destination(tap, row, column);
                    let tile = Tile::<f32> {
                        terms,
                        a_offset: row,
                        depth: samples.padded / 2,
                        a_row: 1,
                        a_depth: self.from_padded,
                        b_depth: COLUMNS,
                        c,
                        c_row: COLUMNS,
                        columns: vectors * S::LANES,
                        add: c,
                        bias: std::ptr::null(),
                        stats: None,
                        norm: None,
                        prefetch: std::ptr::null(),
                        prefetch_step: 0,
                    };
                    pair_tile(rows, vectors, &tile);
                }
                // On to the next panel.
                for term in terms.iter_mut() {
                    term.b = term.b.wrapping_add(self.plan.samples / 2 * COLUMNS);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_tiles<S: Simd>(
        &self,
        tiles: &Tiles,
        tap: usize,
        samples: Samples,
        terms: &[Term],
        moved: &mut Vec<TileTerm>,
    ) {
        // SAFETY: see `run` above.
        unsafe {
            let (height, width) =
                (self.from_range.1 - self.from_range.0, self.to_range.1 - self.to_range.0);
            let mut sums = Sums::zeroed();
            for column in (0..width).step_by(COLUMNS) {
                for row in (0..height).step_by(amx::BLOCK) {
                    let (rows, columns) =
                        ((height - row).min(amx::BLOCK), (width - column).min(COLUMNS));
                    moved.clear();
                    moved.extend(terms.iter().map(|term| TileTerm {
                        a: term.a.cast::<u8>().wrapping_add(row * self.plan.samples * 2),
                        b: term.b.cast::<u8>().wrapping_add(column * self.plan.samples * 2),
                    }));
                    amx::multiply(
                        tiles,
                        moved,
                        samples.padded / amx::STEP,
                        self.plan.samples * 2,
                        rows,
                        columns,
                        &mut sums,
                    );
                    let c = self.destination(tap, row, column);
                    for (r, sums) in sums.0.iter().enumerate().take(rows) {
                        for v in (0..columns).step_by(S::LANES) {
                            let c = c.add(r * COLUMNS + v);
                            S::load(c).add(S::load(sums.as_ptr().add(v))).store(c);
                        }
                    }
                }
            }
        }
    }
}
