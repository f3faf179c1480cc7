//! Forward pass and input gradient.
//!
//! A pair holds two neighbours in depth. Where the channels of a group fill whole steps (2 channels
//! for `vdpbf16ps`, 32 for a tile), activations are read in place, one term for each tap; otherwise
//! the taps of a pixel are gathered side by side and padded with zeros. Weights are packed once per
//! update, as panels of 32 outputs whose rows hold one pair for each output; a row is a vector
//! operand and a row of an AMX tile alike.

use super::pack::{COLUMNS, Depth};
use crate::amx::{self, Sums, TileTerm, Tiles};
use crate::buffer::with_bf16_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::conv::pass::Pass;
use crate::conv::tasks::{BLOCK_SAMPLES, Tasks, order};
use crate::element::Element;
use crate::isa::Isa;
use crate::pair_tile::pair_tile;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, TileStats, epilogue, panel_extent, row_blocks};

/// Largest number of channels for which gathering copies values one by one.
const SHORT: usize = 16;

fn tasks(geometry: &ConvGeometry, direction: Direction, isa: Isa, n: usize) -> Tasks {
    // With tiles, one task holds many pixels of few samples, because the taps of neighbouring
    // pixels overlap and then stay in the second-level cache.
    Tasks::new(geometry, direction, n, if isa == Isa::Amx { amx::BLOCK } else { BLOCK_SAMPLES })
}

/// Number of outputs per channel of each task.
pub(in crate::conv) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    tasks(pass.geometry, pass.direction, pass.isa, pass.n).counts(pass.n)
}

/// Computes `pass`, whose activations are bf16.
pub(in crate::conv) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let Pass { geometry, direction, isa, n, x, weights, .. } = *pass;
    let tasks = tasks(geometry, direction, isa, n);
    let depth = Depth::new(geometry, direction, isa);
    // Tiles read whole blocks of 16 samples.
    let gathered =
        if depth.gather { tasks.samples.next_multiple_of(amx::BLOCK) * depth.total } else { 0 };
    for_each(tasks.count(), |task| {
        let (pixels, samples) = tasks.range(task, n);
        with_bf16_scratch(gathered, |gathered| {
            let mapping = Mapping::new(geometry, direction);
            let kernel = Convolve {
                geometry,
                direction,
                depth,
                tiles: isa == Isa::Amx,
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                sums: out.sums.at(task * 3 * geometry.groups * mapping.to),
                mapping,
                gathered: gathered.as_mut_ptr().cast(),
                pixels,
                samples,
            };
            // SAFETY: `Pass` and `Output` promise activations in bf16 and an instruction set that
            // multiplies them, tensors of the geometry's lengths and weights of `packed_len`; tasks
            // write disjoint pixels and samples of the output, and their own partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
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
    x: *const E,
    /// Packed pairs of bf16.
    weights: *const f32,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    /// Gathered activations, `[sample][tap][from]`, padded to whole steps.
    gathered: *mut E,
    pixels: (usize, usize),
    samples: (usize, usize),
}

impl<E: Element> Kernel for Convolve<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (geometry, mapping) = (self.geometry, &self.mapping);
        let panel_len = self.depth.total / 2 * COLUMNS;
        let panels = mapping.to.div_ceil(COLUMNS);
        let rows = if self.depth.gather { amx::BLOCK } else { self.n };
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
                if self.depth.gather {
                    self.run_gathered::<S>(&mut tiles, group, weights, [panels, panel_len]);
                } else {
                    self.run_in_place::<S>(&mut tiles, group, weights, [panels, panel_len]);
                }
            }
        }
    }
}

/// This thread's tiles and room for their terms, where the instruction set has tiles.
type ThreadTiles = Option<(Tiles, Vec<TileTerm>)>;

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
        [panels, panel_len]: [usize; 2],
    ) {
        let mut sources = Vec::with_capacity(self.geometry.taps());
        for pixel in self.pixels.0..self.pixels.1 {
            self.mapping.find_sources(self.geometry, self.direction, pixel, &mut sources);
            // SAFETY: the caller enabled the features of `S`; the sources exist, and `gathered` has
            // room for every tap.
            unsafe {
                self.gather(group, &sources);
                for panel in 0..panels {
                    let term = Term {
                        a: self.gathered.cast_const().cast(),
                        b: weights.wrapping_add(panel * panel_len),
                    };
                    self.multiply::<S>(tiles, pixel, group, panel * COLUMNS, &[term]);
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
        [panels, panel_len]: [usize; 2],
    ) {
        let mut sources = Vec::with_capacity(self.geometry.taps());
        let mut terms = Vec::with_capacity(self.geometry.taps());
        for (panel, pixel) in order(self.pixels, panels, panel_len) {
            let weights = weights.wrapping_add(panel * panel_len);
            self.mapping.find_sources(self.geometry, self.direction, pixel, &mut sources);
            terms.clear();
            terms.extend(sources.iter().map(|&(source, tap)| Term {
                a: self.source(source, group, 0).cast(),
                b: weights.wrapping_add(tap * self.mapping.from / 2 * COLUMNS),
            }));
            // SAFETY: the caller enabled the features of `S`; each term names a source pixel that
            // exists and the weights of a tap.
            unsafe { self.multiply::<S>(tiles, pixel, group, panel * COLUMNS, &terms) };
        }
    }

    /// Address of `sample` at a source pixel.
    #[inline(always)]
    fn source(&self, pixel: usize, group: usize, sample: usize) -> *const E {
        let row = self.mapping.from * self.geometry.groups;
        self.x.wrapping_add((pixel * self.n + sample) * row + group * self.mapping.from)
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

    /// Computes one panel of outputs of one pixel for all samples of the task. Terms begin at
    /// sample 0, or at the task's first sample where they are gathered.
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
        let (columns, vectors) = panel_extent::<S>(self.mapping.to, column);
        let place = Place { pixel, group, column, columns };
        let Some((tiles, moved)) = tiles else {
            let first = if self.depth.gather { 0 } else { self.samples.0 };
            for (row, rows) in row_blocks::<S>(self.samples.1 - self.samples.0) {
                let tile = Tile {
                    terms,
                    a_offset: (first + row) * self.row_pairs(),
                    depth: self.depth.term / 2,
                    a_row: self.row_pairs(),
                    ..self.tile(place, row)
                };
                // SAFETY: the caller enabled the features of `S`, which include AVX-512's bf16, and
                // promises readable terms; the rows and columns of the output exist, and no other
                // task writes them.
                unsafe { pair_tile(rows, vectors, &tile) };
            }
            return;
        };
        // SAFETY: the caller enabled the features of `S` and promises readable terms; `tiles` were
        // set up on this thread by `run`.
        unsafe { self.multiply_tiles::<S>(tiles, moved, place, vectors, terms) };
    }

    /// Does what [`multiply`](Self::multiply) does, on AMX tiles.
    ///
    /// # Safety
    /// The conditions of [`multiply`](Self::multiply) hold, and `tiles` were set up on this thread
    /// for this task.
    #[inline(always)]
    unsafe fn multiply_tiles<S: Simd>(
        &self,
        tiles: &Tiles,
        moved: &mut Vec<TileTerm>,
        place: Place,
        vectors: usize,
        terms: &[Term],
    ) {
        let (count, row_pairs) = (self.samples.1 - self.samples.0, self.row_pairs());
        // A block at the end of the batch begins earlier, so that it is whole; the rows before the
        // task's first sample are dropped.
        let (start, skip) = if self.depth.gather {
            (0, 0)
        } else {
            let start = self.samples.0.min(self.n.saturating_sub(amx::BLOCK));
            (start, self.samples.0 - start)
        };
        moved.clear();
        moved.extend(terms.iter().map(|term| TileTerm {
            a: term.a.wrapping_add(start * row_pairs).cast(),
            b: term.b.cast(),
        }));
        let mut sums = Sums::zeroed();
        let steps = self.depth.term / amx::STEP;
        // SAFETY: the caller promises terms of which a whole block of samples is readable, or as
        // many rows as the tiles were set up for; a panel is 32 columns wide.
        unsafe {
            amx::multiply(
                tiles,
                moved,
                steps,
                row_pairs * 4,
                skip + count,
                place.columns,
                &mut sums,
            );
        }
        let mut row = 0;
        while row < count {
            let tile = self.tile(place, row);
            let sums = sums.0[skip + row..].as_ptr().cast::<f32>();
            // SAFETY: the caller enabled the features of `S`; that many rows of the sums and of the
            // output exist, and no other task writes them.
            row += unsafe {
                match (count - row >= 8, vectors) {
                    (true, 2) => finish::<S, E, 8, 2>(&tile, sums),
                    (true, _) => finish::<S, E, 8, 1>(&tile, sums),
                    (false, 2) => finish::<S, E, 1, 2>(&tile, sums),
                    (false, _) => finish::<S, E, 1, 1>(&tile, sums),
                }
            };
        }
    }

    /// Distance in pairs from one sample to the next.
    #[inline(always)]
    fn row_pairs(&self) -> usize {
        let row = if self.depth.gather {
            self.depth.total
        } else {
            self.mapping.from * self.geometry.groups
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

/// A panel of outputs at one pixel: `columns` columns from `column` of `group` on.
#[derive(Clone, Copy)]
struct Place {
    pixel: usize,
    group: usize,
    column: usize,
    columns: usize,
}

/// Finishes `R` rows of `V` vectors of an AMX product and returns `R`.
///
/// # Safety
/// The features of `S` are enabled; `R` rows of `V` vectors of sums are readable, and `tile`
/// describes writable memory for them.
#[inline(always)]
unsafe fn finish<S: Simd, E: Element, const R: usize, const V: usize>(
    tile: &Tile<E>,
    sums: *const f32,
) -> usize {
    // SAFETY: the caller enabled the features of `S` and promises readable sums and a writable
    // tile.
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
