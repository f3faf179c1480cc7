//! Weight gradient of bf16 with products of bf16 pairs: `X^T * dY` for each tap, where a pair holds
//! neighbouring samples.
//!
//! A task goes down the image in steps of a few output rows. It turns each input row into the left
//! operand once, when a step first needs the row, and keeps the rows of one step in a ring. The
//! step's output gradient becomes the right operand. The product of each tap is then one long sum
//! over the pixels and samples of the step, which stays in registers.

mod fill;

use half::bf16;

use super::operands::Samples;
use super::pack::COLUMNS;
use super::plan::{Plan, as_product, used};
use super::strips::{self, Strips};
use crate::amx::{self, Sums, TileTerm, Tiles};
use crate::buffer::{with_bf16_scratch, with_scratch};
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::conv::pass::WeightPass;
use crate::conv::reduce::{Cut, Task, plane_len, reduce_weights};
use crate::element::Element;
use crate::isa::Isa;
use crate::pair_tile::pair_rows;
use crate::parallel::{Shared, for_each};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent};

/// Number of tasks to aim for. Each task costs a pass over its partial gradients.
const TASKS: usize = 32;
/// Largest number of input channels for which the direct algorithm is used instead: so few would
/// leave most of a tile empty.
const FEW_CHANNELS: usize = 8;

/// Whether this algorithm beats the direct one for the weight gradient of `geometry`.
pub(in crate::conv) fn pays_for_weights(geometry: &ConvGeometry, isa: Isa) -> bool {
    geometry.group_in() > FEW_CHANNELS || strips::apply(geometry, isa)
}

/// Computes `pass`, whose activations are bf16, and writes to `dw`, which has the length of the
/// weights.
pub(in crate::conv) fn weight_grad<E: Element>(pass: &WeightPass<'_, E>, dw: &mut [f32]) {
    if !strips::apply(pass.geometry, pass.isa) {
        let (geometry, n) = as_product(pass.geometry, pass.n, pass.isa);
        return weight_grad_of(&geometry, n, pass, None, dw);
    }
    let strips = Strips { geometry: pass.geometry, n: pass.n, x: pass.x };
    let rows = strips::along_rows(pass.geometry);
    let mut of_strips = vec![0.0; rows.out_channels * rows.in_channels * rows.taps()];
    weight_grad_of(&rows, pass.n, pass, Some(strips), &mut of_strips);
    strips.scatter_weights(&of_strips, dw);
}

/// Computes the weight gradient of `geometry`, whose input is that of `pass` or its strips, for a
/// batch of `n`.
fn weight_grad_of<E: Element>(
    geometry: &ConvGeometry,
    n: usize,
    pass: &WeightPass<'_, E>,
    strips: Option<Strips<'_, E>>,
    dw: &mut [f32],
) {
    let WeightPass { isa, x, dy, .. } = *pass;
    let (from, to, taps) = (geometry.group_in(), geometry.group_out(), geometry.taps());
    let (plan, plane) = (Plan::new(geometry, n), plane_len(isa, taps, from, to));
    let cut = Cut::new([from, to], plan.block, plan.units(), plane, TASKS);
    let strip_len = if strips.is_some() { plan.samples * from } else { 0 };
    with_scratch(cut.chunks * plane, |partials| {
        for (group, dw) in dw.chunks_exact_mut((taps * from * to).max(1)).enumerate() {
            let shared = Shared::new(partials);
            for_each(cut.tasks(), |task| {
                let Task { chunk, units, from_range, to_range } = cut.task(task);
                let padded = [from_range, to_range]
                    .map(|range| (range.1 - range.0).next_multiple_of(COLUMNS));
                let lens = plan.operand_lens(geometry, padded);
                with_bf16_scratch(lens[0] + lens[1] + strip_len, |scratch| {
                    let (left, rest) = scratch.split_at_mut(lens[0]);
                    let (right, strip) = rest.split_at_mut(lens[1]);
                    let kernel = WeightGrad {
                        geometry,
                        plan,
                        group,
                        n,
                        tiles: isa == Isa::Amx,
                        units,
                        from_range,
                        to_range,
                        padded,
                        x: x.at(0),
                        dy: dy.at(0),
                        left: left.as_mut_ptr(),
                        right: right.as_mut_ptr(),
                        strips,
                        strip: strip.as_mut_ptr(),
                        dw: shared.at(chunk * plane),
                    };
                    // SAFETY: `WeightPass` promises whole tensors of bf16, which the machine
                    // multiplies; scratch memory is as long as planned; tasks share no gradients.
                    unsafe { dispatch(isa, kernel) };
                });
            });
            reduce_weights(isa, partials, taps, from, to, dw);
        }
    });
}

/// One task. [`weight_grad`] guarantees that its pointers are valid.
struct WeightGrad<'a, E> {
    geometry: &'a ConvGeometry,
    plan: Plan,
    group: usize,
    n: usize,
    /// Whether to multiply with AMX tiles.
    tiles: bool,
    /// Range of units; a unit is a step of output rows of one block of samples.
    units: (usize, usize),
    from_range: (usize, usize),
    to_range: (usize, usize),
    /// Input and output channels of the task, filled up to whole panels or AMX tiles.
    padded: [usize; 2],
    x: *const E,
    dy: *const E,
    /// Ring of input rows: `[row][column][from][sample]` for tiles, else
    /// `[row][column][pair][from][2]`.
    left: *mut bf16,
    /// Output gradients of a step, `[row][column][panel][pair][COLUMNS][2]`.
    right: *mut bf16,
    /// Where the input is made of strips, their source.
    strips: Option<Strips<'a, E>>,
    /// Memory for the strips of one column, `[sample][from]`.
    strip: *mut bf16,
    /// The task's weight gradients, `[panel][tap][from][COLUMNS]`.
    dw: *mut f32,
}

impl<E: Element> Kernel for WeightGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (geometry, plan) = (self.geometry, &self.plan);
        // SAFETY: `weight_grad` sets `tiles` only on an instruction set that has the tile
        // instructions.
        let tiles = self.tiles.then(|| unsafe { Tiles::new([16; 2]) });
        let used = [used(geometry, 0), used(geometry, 1)];
        let mut terms = Vec::with_capacity(plan.step_rows * geometry.output()[1]);
        let mut tile_terms = Vec::with_capacity(if self.tiles { terms.capacity() } else { 0 });
        // SAFETY: no other task writes these channels of this chunk.
        unsafe { self.clear() };
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
            let first_row = step * plan.step_rows;
            let rows = (first_row, (first_row + plan.step_rows).min(geometry.output()[0]));
            // SAFETY: the caller enabled the features of `S` and promises the memory that the
            // fields name; rows and samples exist, and `fill` makes the operands of a term before
            // the term is multiplied.
            unsafe {
                next_row = self.fill(rows, next_row, samples, &used);
                for tap in 0..geometry.taps() {
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

impl<E: Element> WeightGrad<'_, E> {
    /// Sets the gradients of this task to zero.
    ///
    /// # Safety
    /// No other task writes these gradients.
    #[inline(always)]
    unsafe fn clear(&self) {
        let (taps, from) = (self.geometry.taps(), self.geometry.group_in());
        let len = (self.from_range.1 - self.from_range.0) * COLUMNS;
        for panel in self.to_range.0 / COLUMNS..self.to_range.1.div_ceil(COLUMNS) {
            for tap in 0..taps {
                let first = (panel * taps + tap) * from + self.from_range.0;
                // SAFETY: the caller promises that no other task writes this task's channels, whose
                // panels these are.
                unsafe { self.dw.add(first * COLUMNS).write_bytes(0, len) };
            }
        }
    }

    /// Finds the operands of `tap` for each output pixel of a step whose tap lies inside the image,
    /// for panel 0.
    #[inline(always)]
    fn find_terms(&self, tap: usize, rows: (usize, usize), terms: &mut Vec<Term>) {
        let geometry = self.geometry;
        let (ky, kx) = (tap / geometry.kernel[1], tap % geometry.kernel[1]);
        terms.clear();
        for row in rows.0..rows.1 {
            let Some(source_row) =
                geometry.source(Direction::Forward, 0, row, ky, geometry.input[0])
            else {
                continue;
            };
            for column in 0..geometry.output()[1] {
                if let Some(source_column) =
                    geometry.source(Direction::Forward, 1, column, kx, geometry.input[1])
                {
                    terms.push(Term {
                        a: self.left(source_row, source_column).cast_const().cast(),
                        b: self.right(row - rows.0, column).cast_const().cast(),
                    });
                }
            }
        }
    }

    /// Address of the gradients of `tap` between input channel `row` of the task and the panel at
    /// `column`.
    #[inline(always)]
    fn destination(&self, tap: usize, row: usize, column: usize) -> *mut f32 {
        let panel = (self.to_range.0 + column) / COLUMNS;
        let first = (panel * self.geometry.taps() + tap) * self.geometry.group_in()
            + self.from_range.0
            + row;
        self.dw.wrapping_add(first * COLUMNS)
    }

    /// Adds the products of all `terms` to the gradients of `tap`.
    ///
    /// # Safety
    /// The features of `S` are enabled; [`fill`](Self::fill) has made the operands of the terms.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, tap: usize, samples: Samples, terms: &mut [Term]) {
        // SAFETY: the caller enabled the features of `S` and promises operands that have been
        // filled; the gradients of this task's channels exist.
        unsafe {
            let width = self.to_range.1 - self.to_range.0;
            for column in (0..width).step_by(COLUMNS) {
                let (_, vectors) = panel_extent::<S>(width, column);
                let c = self.destination(tap, 0, column);
                let tile = Tile::<f32> {
                    depth: samples.padded / 2,
                    a_row: 1,
                    a_depth: self.padded[0],
                    b_depth: COLUMNS,
                    c,
                    c_row: COLUMNS,
                    columns: vectors * S::LANES,
                    add: c,
                    ..Tile::plain(terms)
                };
                pair_rows(self.from_range.1 - self.from_range.0, vectors, &tile);
                // Move each term's right operand to the next panel.
                for term in terms.iter_mut() {
                    term.b = term.b.wrapping_add(self.plan.samples / 2 * COLUMNS);
                }
            }
        }
    }

    /// Does what [`multiply`](Self::multiply) does, on AMX tiles.
    ///
    /// # Safety
    /// The conditions of [`multiply`](Self::multiply) hold, and `tiles` were set up on this thread.
    #[inline(always)]
    unsafe fn multiply_tiles<S: Simd>(
        &self,
        tiles: &Tiles,
        tap: usize,
        samples: Samples,
        terms: &[Term],
        moved: &mut Vec<TileTerm>,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises operands that have been
        // filled and tiles set up on this thread; the gradients of this task's channels exist.
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
