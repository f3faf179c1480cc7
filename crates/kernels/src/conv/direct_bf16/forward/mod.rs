//! Forward pass and input gradient.
//!
//! A pair holds two neighbours in depth. Where the channels of a group fill whole steps (2 channels
//! for `vdpbf16ps`, 32 for a tile), activations are read in place, one term for each tap; otherwise
//! the taps of a pixel are gathered side by side and padded with zeros. Weights are packed once per
//! update, as panels of 32 outputs whose rows hold one pair for each output; a row is a vector
//! operand and a row of an AMX tile alike.

mod strips;
mod tiles;

use super::pack::{COLUMNS, Depth, Gather};
use super::plan::as_product;
use crate::amx::{self, Tiles};
use crate::buffer::with_bf16_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::conv::pass::Pass;
use crate::conv::tasks::{BLOCK_SAMPLES, Tasks, order};
use crate::element::Element;
use crate::isa::Isa;
use crate::pair_tile::{VECTORS, pair_rows};
use crate::parallel::{Shared, block_size, for_each, parts};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, TileStats};
use tiles::ThreadTiles;

pub(super) use tiles::finish;

/// Lanes of a vector of AVX-512.
const LANES: usize = 16;
/// Largest number of channels for which gathering copies values one by one.
const SHORT: usize = 16;
/// Bytes of the activations of a task that is one matrix product: they stay in the second-level
/// cache while every panel of weights passes over them.
const PRODUCT_BYTES: usize = 1 << 18;
/// Rows of such a task, at least and at most. Fewer would read the weights too often; more would
/// leave too few tasks.
const PRODUCT_ROWS: [usize; 2] = [block_size(96, 5), block_size(384, 5)];

fn tasks(geometry: &ConvGeometry, direction: Direction, isa: Isa, n: usize) -> Tasks {
    let block = if isa == Isa::Amx {
        // With tiles, one task holds many pixels of few samples, because the taps of neighbouring
        // pixels overlap and then stay in the second-level cache.
        amx::BLOCK
    } else if geometry.input == [1; 2] {
        let row = Mapping::new(geometry, direction).from * geometry.groups * size_of::<u16>();
        (PRODUCT_BYTES / row.max(1)).clamp(PRODUCT_ROWS[0], PRODUCT_ROWS[1])
    } else {
        BLOCK_SAMPLES
    };
    Tasks::new(geometry, direction, n, block)
}

/// Number of outputs per channel of each task.
pub(super) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    let (geometry, n) = as_product(pass.geometry, pass.n, pass.isa);
    tasks(&geometry, pass.direction, pass.isa, n).counts(n)
}

/// Computes `pass`, whose activations are bf16.
pub(super) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let Pass { direction, isa, x, weights, .. } = *pass;
    let (geometry, n) = as_product(pass.geometry, pass.n, isa);
    let geometry = &geometry;
    let tasks = tasks(geometry, direction, isa, n);
    let depth = Depth::new(geometry, direction, isa);
    let gathered = match depth.gather {
        Gather::Nothing => 0,
        // Tiles read whole blocks of 16 samples.
        Gather::Taps => tasks.samples.next_multiple_of(amx::BLOCK) * depth.total,
        Gather::Strips => {
            let pixels = tasks.range(0, n).0;
            tasks.samples * strips::scratch_len(geometry, pixels.1 - pixels.0)
        }
    };
    let tiles = isa == Isa::Amx;
    let outputs = Mapping::new(geometry, direction).to;
    let strips = outputs.div_ceil(strip(tiles));
    // Gathered activations and the set-up of AMX tiles serve every strip.
    let whole = tiles || depth.gather != Gather::Nothing;
    let parts = if whole { 1 } else { parts(tasks.count(), strips) };
    for_each(tasks.count() * parts, |index| {
        let (task, part) = (index / parts, index % parts);
        let (pixels, samples) = tasks.range(task, n);
        with_bf16_scratch(gathered, |gathered| {
            let mapping = Mapping::new(geometry, direction);
            let kernel = Convolve {
                geometry,
                direction,
                depth,
                tiles,
                n,
                x,
                weights: weights.at(0),
                out,
                sums: out.sums.at(task * 3 * geometry.groups * mapping.to),
                mapping,
                gathered: gathered.as_mut_ptr().cast(),
                pixels,
                samples,
                strips: (part * strips / parts, (part + 1) * strips / parts),
            };
            // SAFETY: `Pass` and `Output` promise activations in bf16 and an instruction set that
            // multiplies them, tensors of the geometry's lengths and weights of `packed_len`; tasks
            // write disjoint pixels, samples and channels of the output and of the partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

/// Outputs that are multiplied at a time, with AMX tiles or without.
#[inline(always)]
fn strip(tiles: bool) -> usize {
    if tiles { COLUMNS } else { VECTORS * LANES }
}

/// One task. [`run`] guarantees that its pointers are valid; `pixels` and `samples` exist.
struct Convolve<'a, E> {
    geometry: &'a ConvGeometry,
    direction: Direction,
    mapping: Mapping,
    depth: Depth,
    /// Whether to multiply with AMX tiles.
    tiles: bool,
    n: usize,
    x: Shared<E>,
    /// Packed pairs of bf16.
    weights: *const f32,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    /// Gathered activations, `[sample][tap][from]`, padded to whole steps.
    gathered: *mut E,
    pixels: (usize, usize),
    samples: (usize, usize),
    /// Strips of outputs, of every group, where activations are read in place.
    strips: (usize, usize),
}

impl<E: Element> Kernel for Convolve<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (geometry, mapping) = (self.geometry, &self.mapping);
        let panel_len = self.depth.total / 2 * COLUMNS;
        let panels = mapping.to.div_ceil(COLUMNS);
        let in_place = self.depth.gather == Gather::Nothing;
        let rows = if in_place { self.n } else { amx::BLOCK };
        let rows = [rows.min(16), rows.saturating_sub(16).min(16)];
        let mut tiles = self.tiles.then(|| {
            // SAFETY: `run` sets `tiles` only on an instruction set that has the tile instructions.
            (unsafe { Tiles::new(rows) }, Vec::with_capacity(geometry.taps()))
        });
        for group in 0..geometry.groups {
            let weights = self.weights.wrapping_add(group * panels * panel_len);
            // SAFETY: the caller enabled the features of `S`; `run` made the task's pointers valid;
            // the group exists.
            unsafe {
                match self.depth.gather {
                    Gather::Nothing => {
                        self.run_in_place::<S>(&mut tiles, group, weights, panel_len);
                    }
                    Gather::Taps => self.run_gathered::<S>(&mut tiles, group, weights, panel_len),
                    Gather::Strips => self.run_strips::<S>(weights, panel_len),
                }
            }
        }
    }
}

impl<E: Element> Convolve<'_, E> {
    /// Computes one group whose taps are gathered side by side.
    ///
    /// # Safety
    /// The features of `S` are enabled; `weights` are those of `group`.
    #[inline(always)]
    unsafe fn run_gathered<S: Simd>(
        &self,
        tiles: &mut ThreadTiles,
        group: usize,
        weights: *const f32,
        panel_len: usize,
    ) {
        let mut sources = Vec::with_capacity(self.geometry.taps());
        for pixel in self.pixels.0..self.pixels.1 {
            self.mapping.find_sources(self.geometry, self.direction, pixel, &mut sources);
            // SAFETY: the caller enabled the features of `S`; the sources exist, and `gathered` has
            // room for every tap.
            unsafe {
                self.gather(group, &sources);
                for column in (0..self.mapping.to).step_by(self.columns()) {
                    let term = Term {
                        a: self.gathered.cast_const().cast(),
                        b: weights.wrapping_add(column / COLUMNS * panel_len),
                    };
                    self.multiply::<S>(tiles, pixel, group, column, &[term]);
                }
            }
        }
    }

    /// Computes one group whose activations are read where they lie.
    ///
    /// # Safety
    /// The features of `S` are enabled; `weights` are those of `group`.
    #[inline(always)]
    unsafe fn run_in_place<S: Simd>(
        &self,
        tiles: &mut ThreadTiles,
        group: usize,
        weights: *const f32,
        panel_len: usize,
    ) {
        let mut sources = Vec::with_capacity(self.geometry.taps());
        let mut terms = Vec::with_capacity(self.geometry.taps());
        let columns = self.columns();
        let strip_len = columns / COLUMNS * panel_len;
        for (strip, pixel) in order(self.pixels, self.strips, strip_len) {
            let weights = weights.wrapping_add(strip * strip_len);
            self.mapping.find_sources(self.geometry, self.direction, pixel, &mut sources);
            terms.clear();
            terms.extend(sources.iter().map(|&(source, tap)| Term {
                a: self.source(source, group, 0).cast(),
                b: weights.wrapping_add(tap * self.mapping.from / 2 * COLUMNS),
            }));
            // SAFETY: the caller enabled the features of `S`; each term names a source pixel that
            // exists and the weights of a tap.
            unsafe { self.multiply::<S>(tiles, pixel, group, strip * columns, &terms) };
        }
    }

    /// Outputs that are multiplied at a time: a register tile takes several panels, a product of
    /// AMX tiles takes one.
    #[inline(always)]
    fn columns(&self) -> usize {
        strip(self.tiles)
    }

    /// Address of `sample` at a source pixel.
    #[inline(always)]
    fn source(&self, pixel: usize, group: usize, sample: usize) -> *const E {
        let row = self.mapping.from * self.geometry.groups;
        self.x.at((pixel * self.n + sample) * row + group * self.mapping.from)
    }

    /// Copies the values under each tap of a pixel side by side, with zeros for taps outside the
    /// image and for the padding.
    ///
    /// # Safety
    /// The pixels in `sources` exist.
    #[inline(always)]
    unsafe fn gather(&self, group: usize, sources: &[(usize, usize)]) {
        // SAFETY: the caller promises that the sources exist; `gathered` has room for the depth of
        // every sample.
        unsafe {
            let (from, total) = (self.mapping.from, self.depth.total);
            let row = from * self.geometry.groups;
            let count = self.samples.1 - self.samples.0;
            if sources.len() < self.geometry.taps() || total > from * self.geometry.taps() {
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

    /// Computes [`columns`](Self::columns) outputs of one pixel for all samples of the task. Terms
    /// begin at sample 0, or at the task's first sample where they are gathered.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixel is one of the task's, and the terms are readable
    /// for its samples.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        tiles: &mut ThreadTiles,
        pixel: usize,
        group: usize,
        column: usize,
        terms: &[Term],
    ) {
        let columns = (self.mapping.to - column).min(self.columns());
        let place = Place { pixel, group, column, columns };
        let vectors = columns.div_ceil(LANES);
        let Some((tiles, moved)) = tiles else {
            let in_place = self.depth.gather == Gather::Nothing;
            let first = if in_place { self.samples.0 } else { 0 };
            let tile = Tile {
                terms,
                a_offset: first * self.row_pairs(),
                depth: self.depth.term / 2,
                a_row: self.row_pairs(),
                b_panel: self.depth.total / 2 * COLUMNS,
                ..self.tile(place, 0)
            };
            // SAFETY: the caller enabled the features of `S`, which include AVX-512's bf16, and
            // promises readable terms; the rows and columns of the output exist, and no other task
            // writes them.
            unsafe { pair_rows(self.samples.1 - self.samples.0, vectors, &tile) };
            return;
        };
        // SAFETY: the caller enabled the features of `S` and promises readable terms; `tiles` were
        // set up on this thread by `run`.
        unsafe { self.multiply_tiles::<S>(tiles, moved, place, vectors, terms) };
    }

    /// Distance in pairs from one sample to the next.
    #[inline(always)]
    fn row_pairs(&self) -> usize {
        let row = match self.depth.gather {
            Gather::Nothing => self.mapping.from * self.geometry.groups,
            Gather::Taps | Gather::Strips => self.depth.term,
        };
        row / 2
    }

    /// The destination of the outputs of one pixel, from `row` of the task's samples on.
    #[inline(always)]
    fn tile(&self, place: Place, row: usize) -> Tile<'static, E> {
        let Place { pixel, group, column, columns } = place;
        let to_row = self.mapping.to * self.geometry.groups;
        let channel = group * self.mapping.to + column;
        let at = (pixel * self.n + self.samples.0 + row) * to_row + channel;
        let first = pixel == self.pixels.0 && row == 0;
        Tile {
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
            stats: TileStats::new(self.sums, channel, to_row, first),
            norm: self.out.norm.map(|norm| norm.tile(at, channel)),
            ..Tile::plain(&[])
        }
    }
}

/// Panels of outputs at one pixel: `columns` columns from `column` of `group` on.
#[derive(Clone, Copy)]
struct Place {
    pixel: usize,
    group: usize,
    column: usize,
    columns: usize,
}
