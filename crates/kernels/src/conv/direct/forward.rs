//! Forward pass and input gradient.
//!
//! All taps accumulate in registers before one store. The input gradient is the same sum with
//! transposed weights and the taps that reach each input pixel. Activations in bf16 are first
//! converted to a matrix of `f32` that holds the taps of a pixel side by side; on processors that
//! multiply bf16, `direct_bf16` is faster.

use super::partial;
use crate::buffer::with_scratch;
use crate::conv::epilogue::Output;
use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::conv::pass::Pass;
use crate::conv::tasks::{BLOCK_SAMPLES, Tasks, order};
use crate::element::{Element, ElementType};
use crate::parallel::{for_each, parts};
use crate::simd::{self, Kernel, Simd, dispatch, load, store};
use crate::tile::{Term, Tile, TileStats, panel_extent, row_blocks, run_tile};

/// Number of outputs per channel of each task.
pub(in crate::conv) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    Tasks::new(pass.geometry, pass.direction, pass.n, BLOCK_SAMPLES).counts(pass.n)
}

/// Computes `pass`.
pub(in crate::conv) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    let Pass { geometry, direction, isa, n, x, weights, partial, .. } = *pass;
    if let Some(tiles) = partial {
        return partial::run(pass, tiles, out);
    }
    let tasks = Tasks::new(geometry, direction, n, BLOCK_SAMPLES);
    let mapping = Mapping::new(geometry, direction);
    let gathered = match E::PRECISION {
        ElementType::F32 => 0,
        ElementType::Bf16 => tasks.samples * geometry.taps() * mapping.from,
    };
    let panels = mapping.to.div_ceil(simd::tile_columns(isa));
    // Gathered activations serve every panel.
    let parts = if gathered > 0 { 1 } else { parts(tasks.count(), panels) };
    for_each(tasks.count() * parts, |index| {
        let (task, part) = (index / parts, index % parts);
        let (pixels, samples) = tasks.range(task, n);
        with_scratch(gathered, |gathered| {
            let kernel = Convolve {
                geometry,
                direction,
                mapping: Mapping::new(geometry, direction),
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                sums: out.sums.at(task * 3 * geometry.groups * mapping.to),
                gathered: gathered.as_mut_ptr(),
                pixels,
                samples,
                panels: (part * panels / parts, (part + 1) * panels / parts),
            };
            // SAFETY: `Pass` and `Output` promise tensors of the geometry's lengths and weights of
            // `packed_len`; the scratch memory holds every tap of the task's samples; tasks write
            // disjoint pixels, samples and channels of the output and of the partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

/// One task. [`run`] guarantees that its pointers are valid; `pixels` and `samples` exist.
struct Convolve<'a, E> {
    geometry: &'a ConvGeometry,
    direction: Direction,
    mapping: Mapping,
    n: usize,
    x: *const E,
    weights: *const f32,
    out: Output<'a, E>,
    /// Null, or this task's part of the output's sums.
    sums: *mut f32,
    /// Memory `[sample][tap][from]` for activations that are not `f32`.
    gathered: *mut f32,
    pixels: (usize, usize),
    samples: (usize, usize),
    /// Panels of outputs, of every group.
    panels: (usize, usize),
}

impl<E: Element> Kernel for Convolve<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let panel_len = self.geometry.taps() * self.mapping.from * S::TILE_COLUMNS;
        let panels = self.mapping.to.div_ceil(S::TILE_COLUMNS);
        for group in 0..self.geometry.groups {
            let weights = self.weights.wrapping_add(group * panels * panel_len);
            // SAFETY: the caller enabled the features of `S`; `run` made the task's pointers valid;
            // the group exists.
            unsafe {
                match E::PRECISION {
                    ElementType::F32 => self.run_in_place::<S>(group, weights, panel_len),
                    ElementType::Bf16 => self.run_gathered::<S>(group, weights, panel_len),
                }
            }
        }
    }
}

impl<E: Element> Convolve<'_, E> {
    /// Computes one group whose activations are `f32` and are read where they lie.
    ///
    /// # Safety
    /// The features of `S` are enabled; `E` is `f32`; `weights` are those of `group`.
    #[inline(always)]
    unsafe fn run_in_place<S: Simd>(&self, group: usize, weights: *const f32, panel_len: usize) {
        let (geometry, mapping) = (self.geometry, &self.mapping);
        let mut sources = Vec::with_capacity(geometry.taps());
        let mut terms = Vec::with_capacity(geometry.taps());
        for (panel, pixel) in order(self.pixels, self.panels, panel_len) {
            let weights = weights.wrapping_add(panel * panel_len);
            mapping.find_sources(geometry, self.direction, pixel, &mut sources);
            terms.clear();
            terms.extend(sources.iter().map(|&(source, tap)| Term {
                a: self.source(source, group).cast(),
                b: weights.wrapping_add(tap * mapping.from * S::TILE_COLUMNS),
            }));
            let (column, a_row) = (panel * S::TILE_COLUMNS, mapping.from * geometry.groups);
            // SAFETY: the caller enabled the features of `S`; each term names a source pixel that
            // exists and the weights of a tap.
            unsafe { self.multiply::<S>(pixel, group, column, a_row, &terms) };
        }
    }

    /// Computes one group whose activations are first gathered as `f32`.
    ///
    /// # Safety
    /// The features of `S` are enabled; `weights` are those of `group`.
    #[inline(always)]
    unsafe fn run_gathered<S: Simd>(&self, group: usize, weights: *const f32, panel_len: usize) {
        let (geometry, mapping) = (self.geometry, &self.mapping);
        let mut sources = Vec::with_capacity(geometry.taps());
        let mut terms = Vec::with_capacity(geometry.taps());
        for pixel in self.pixels.0..self.pixels.1 {
            mapping.find_sources(geometry, self.direction, pixel, &mut sources);
            let row = sources.len() * mapping.from;
            for (index, &(source, _)) in sources.iter().enumerate() {
                // SAFETY: the caller enabled the features of `S`; the source pixel exists, and a
                // row of the gathered matrix has room for every tap.
                unsafe { self.gather::<S>(self.source(source, group), index * mapping.from, row) };
            }
            for panel in self.panels.0..self.panels.1 {
                let weights = weights.wrapping_add(panel * panel_len);
                terms.clear();
                terms.extend(sources.iter().enumerate().map(|(index, &(_, tap))| Term {
                    a: self.gathered.wrapping_add(index * mapping.from).cast_const(),
                    b: weights.wrapping_add(tap * mapping.from * S::TILE_COLUMNS),
                }));
                // SAFETY: the caller enabled the features of `S`; the loop above has gathered each
                // term.
                unsafe { self.multiply::<S>(pixel, group, panel * S::TILE_COLUMNS, row, &terms) };
            }
        }
    }

    /// Address of the first of this task's samples at a source pixel.
    #[inline(always)]
    fn source(&self, pixel: usize, group: usize) -> *const E {
        let row = self.mapping.from * self.geometry.groups;
        self.x.wrapping_add((pixel * self.n + self.samples.0) * row + group * self.mapping.from)
    }

    /// Converts the samples at one source pixel to `f32` and writes them to the columns from `at`
    /// on of the gathered matrix, whose rows have `row` floats.
    ///
    /// # Safety
    /// The features of `S` are enabled; `x` points to the task's samples at a source pixel, and the
    /// columns lie inside a row.
    #[inline(always)]
    unsafe fn gather<S: Simd>(&self, x: *const E, at: usize, row: usize) {
        let from = self.mapping.from;
        for sample in 0..self.samples.1 - self.samples.0 {
            let x = x.wrapping_add(sample * from * self.geometry.groups);
            let out = self.gathered.wrapping_add(sample * row + at);
            let mut c = 0;
            while c < from {
                let lanes = (from - c).min(S::LANES);
                // SAFETY: the caller enabled the features of `S` and promises `from` values at
                // either pointer.
                unsafe { store(load::<S, E>(x.add(c), lanes), out.add(c), lanes) };
                c += S::LANES;
            }
        }
    }

    /// Computes one panel of outputs, from `column` of `group` on, at one pixel for all samples of
    /// the task.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixel is one of the task's; the terms are readable for
    /// the task's samples, `a_row` apart.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        pixel: usize,
        group: usize,
        column: usize,
        a_row: usize,
        terms: &[Term],
    ) {
        let to_row = self.mapping.to * self.geometry.groups;
        let (columns, vectors) = panel_extent::<S>(self.mapping.to, column);
        let channel = group * self.mapping.to + column;
        for (row, rows) in row_blocks::<S>(self.samples.1 - self.samples.0) {
            let at = (pixel * self.n + self.samples.0 + row) * to_row + channel;
            let tile = Tile {
                a_offset: row * a_row,
                depth: self.mapping.from,
                a_row,
                a_depth: 1,
                b_depth: S::TILE_COLUMNS,
                c: self.out.y.at(at),
                c_row: to_row,
                columns,
                add: self.out.add.at(at),
                bias: self.out.bias.at(channel),
                stats: TileStats::new(
                    self.sums,
                    channel,
                    to_row,
                    pixel == self.pixels.0 && row == 0,
                ),
                norm: self.out.norm.map(|norm| norm.tile(at, channel)),
                prefetch: terms.first().map_or(std::ptr::null(), |term| term.b),
                prefetch_step: 16,
                ..Tile::plain(terms)
            };
            // SAFETY: the caller enabled the features of `S` and promises readable terms; the rows
            // and columns of the output exist, and no other task writes them.
            unsafe { run_tile::<S, E>(rows, vectors, &tile) };
        }
    }
}
