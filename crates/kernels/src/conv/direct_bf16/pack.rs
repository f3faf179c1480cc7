//! Packs weights in pairs of bf16.

use half::bf16;

use super::strips;
use crate::amx;
use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::element::Storage;
use crate::isa::Isa;
use crate::parallel::prelude::*;
use crate::simd::{Kernel, Simd, dispatch};

/// Outputs of a panel.
pub(super) const COLUMNS: usize = 32;
/// Input channels packed at a time, even.
const PACK_DEPTH: usize = 16;

/// What a task copies side by side before it multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gather {
    /// Nothing: activations are read in place.
    Nothing,
    /// The taps of a pixel.
    Taps,
    /// The strips of a row of outputs.
    Strips,
}

/// How the depth of one output (all the values that its sum multiplies) is laid out.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    pub(super) gather: Gather,
    /// Number of values of one term.
    pub(super) term: usize,
    /// Number of values of all terms, with their padding.
    pub(super) total: usize,
}

impl Depth {
    pub(super) fn new(geometry: &ConvGeometry, direction: Direction, isa: Isa) -> Self {
        if direction == Direction::Forward && strips::apply(geometry, isa) {
            let term = strips::len(geometry);
            return Self { gather: Gather::Strips, term, total: term * geometry.kernel[1] };
        }
        let from = Mapping::new(geometry, direction).from;
        let step = if isa == Isa::Amx { amx::STEP } else { 2 };
        let total = (geometry.taps() * from).next_multiple_of(step);
        if from.is_multiple_of(step) {
            Self { gather: Gather::Nothing, term: from, total }
        } else {
            Self { gather: Gather::Taps, term: total, total }
        }
    }
}

/// Number of pairs of the packed weights; a pair takes the space of an `f32`.
pub(super) fn packed_len(geometry: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    let to = Mapping::new(geometry, direction).to;
    geometry.groups
        * to.div_ceil(COLUMNS)
        * COLUMNS
        * (Depth::new(geometry, direction, isa).total / 2)
}

/// Packs weights as `[group][panel][pair of tap and from][COLUMNS][2]`, with zeros for columns and
/// depths beyond the last.
pub(super) fn pack(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let mapping = Mapping::new(geometry, direction);
    let depth = Depth::new(geometry, direction, isa);
    let panel_len = depth.total / 2 * COLUMNS;
    if panel_len == 0 {
        return;
    }
    let panels = mapping.to.div_ceil(COLUMNS);
    let weights = Weights { geometry, direction, w, from: mapping.from, to: mapping.to };
    packed.par_chunks_exact_mut(panel_len).enumerate().for_each(|(index, panel)| {
        let (group, first) = (index / panels, index % panels * COLUMNS);
        // SAFETY: a pair of bf16 has the size of an `f32` and a smaller alignment, and every bit
        // pattern is a value of either type.
        let panel = unsafe {
            std::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<[bf16; 2]>(), panel_len)
        };
        let width = (mapping.to - first).min(COLUMNS);
        if depth.gather == Gather::Strips {
            weights.pack_strips(depth.term, first, width, panel);
        } else if mapping.from.is_multiple_of(2) && geometry.taps() == 1 {
            let kernel = PackMatrix { weights: &weights, group, first, width, panel };
            // SAFETY: `PackMatrix::run` needs nothing but the features of the instruction set,
            // which `dispatch` checks.
            unsafe { dispatch(isa, kernel) };
        } else if mapping.from.is_multiple_of(2) {
            weights.pack_even(group, first, width, panel);
        } else {
            weights.pack_odd(group, first, width, panel);
        }
    });
}

/// Weights in PyTorch's order, seen as `to` outputs from `from` inputs of a group.
struct Weights<'a> {
    geometry: &'a ConvGeometry,
    direction: Direction,
    w: &'a [f32],
    from: usize,
    to: usize,
}

/// Packs one panel of a kernel of one tap, whose weights are a matrix, and an even number of
/// inputs.
struct PackMatrix<'a, 'w> {
    weights: &'a Weights<'w>,
    group: usize,
    first: usize,
    width: usize,
    panel: &'a mut [[bf16; 2]],
}

impl Kernel for PackMatrix<'_, '_> {
    type Element = bf16;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { weights: &Weights { direction, w, from, to, .. }, group, first, width, panel } =
            self;
        let mut block = [[0.0f32; COLUMNS]; PACK_DEPTH];
        let depths = (0..from).step_by(PACK_DEPTH);
        for (start, panel) in depths.zip(panel.chunks_mut(PACK_DEPTH / 2 * COLUMNS)) {
            let depth = (from - start).min(PACK_DEPTH);
            match direction {
                Direction::Forward => (0..width).for_each(|column| {
                    let row = &w[(group * to + first + column) * from + start..][..depth];
                    block.iter_mut().zip(row).for_each(|(block, w)| block[column] = *w);
                }),
                Direction::InputGrad => (0..depth).for_each(|f| {
                    let row = &w[(group * from + start + f) * to + first..][..width];
                    block[f][..width].copy_from_slice(row);
                }),
            }
            let rows = block[..depth].as_chunks::<2>().0;
            for (pairs, [a, b]) in panel.chunks_exact_mut(COLUMNS).zip(rows) {
                for (pair, (a, b)) in pairs.iter_mut().zip(a.iter().zip(b)) {
                    *pair = [bf16::narrow(*a), bf16::narrow(*b)];
                }
            }
        }
        // AMX steps are longer than a pair.
        panel[from / 2 * COLUMNS..].fill([bf16::ZERO; 2]);
    }
}

impl Weights<'_> {
    /// The taps between output `t` and input `f` of a group.
    fn taps(&self, group: usize, t: usize, f: usize) -> &[f32] {
        let (group_in, taps) = (self.geometry.group_in(), self.geometry.taps());
        let index = match self.direction {
            Direction::Forward => (group * self.to + t) * group_in + f,
            Direction::InputGrad => (group * self.from + f) * group_in + t,
        };
        &self.w[index * taps..(index + 1) * taps]
    }

    /// Packs one panel of an odd number of inputs, where a pair may hold the last input of one tap
    /// and the first input of the next.
    fn pack_odd(&self, group: usize, first: usize, width: usize, panel: &mut [[bf16; 2]]) {
        let (from, taps) = (self.from, self.geometry.taps());
        let place = |k: usize| (k < taps * from).then(|| (k / from, k % from));
        self.pack_by(place, group, first, width, panel);
    }

    /// Packs one panel of strips of `len` values.
    fn pack_strips(&self, len: usize, first: usize, width: usize, panel: &mut [[bf16; 2]]) {
        let (from, [rows, columns]) = (self.from, self.geometry.kernel);
        let place = |k: usize| {
            let (column, at) = (k / len, k % len);
            (at < rows * from).then(|| (at / from * columns + column, at % from))
        };
        self.pack_by(place, 0, first, width, panel);
    }

    /// Packs one panel whose depth `k` has the tap and the input that `place` says, or zeros.
    fn pack_by(
        &self,
        place: impl Fn(usize) -> Option<(usize, usize)>,
        group: usize,
        first: usize,
        width: usize,
        panel: &mut [[bf16; 2]],
    ) {
        for (row, pairs) in panel.chunks_exact_mut(COLUMNS).enumerate() {
            let places = [place(2 * row), place(2 * row + 1)];
            for (column, pair) in pairs.iter_mut().enumerate() {
                *pair = places.map(|place| match place {
                    Some((tap, f)) if column < width => {
                        bf16::narrow(self.taps(group, first + column, f)[tap])
                    }
                    _ => bf16::ZERO,
                });
            }
        }
    }

    /// Packs one panel of an even number of inputs. The weights of one output and one input lie
    /// side by side over taps; they are transposed in a block that stays in the cache.
    fn pack_even(&self, group: usize, first: usize, width: usize, panel: &mut [[bf16; 2]]) {
        let (from, taps) = (self.from, self.geometry.taps());
        let mut block = vec![[0.0f32; COLUMNS]; taps * PACK_DEPTH];
        for start in (0..from).step_by(PACK_DEPTH) {
            let depth = (from - start).min(PACK_DEPTH);
            let mut copy = |f: usize, column: usize| {
                for (tap, w) in self.taps(group, first + column, start + f).iter().enumerate() {
                    block[tap * PACK_DEPTH + f][column] = *w;
                }
            };
            match self.direction {
                Direction::Forward => {
                    (0..width).for_each(|column| (0..depth).for_each(|f| copy(f, column)))
                }
                Direction::InputGrad => {
                    (0..depth).for_each(|f| (0..width).for_each(|column| copy(f, column)))
                }
            }
            for tap in 0..taps {
                let rows = &block[tap * PACK_DEPTH..][..depth];
                let at = (tap * from + start) / 2 * COLUMNS;
                for (pairs, rows) in
                    panel[at..].chunks_exact_mut(COLUMNS).zip(rows.as_chunks::<2>().0)
                {
                    for (pair, (a, b)) in pairs.iter_mut().zip(rows[0].iter().zip(&rows[1])) {
                        *pair = [bf16::narrow(*a), bf16::narrow(*b)];
                    }
                }
            }
        }
        panel[taps * from / 2 * COLUMNS..].fill([bf16::ZERO; 2]);
    }
}
