//! Weight gradient of any convolution: the product `X^T * dY` of each tap, summed over output
//! pixels and samples.

use crate::buffer::with_scratch;
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::conv::pass::WeightPass;
use crate::conv::reduce::{Cut, Task, plane_len, reduce_weights};
use crate::element::{Element, ElementType};
use crate::parallel::{Shared, block_size, for_each};
use crate::simd::{self, Kernel, Simd, dispatch, load, store};
use crate::tile::{Term, Tile, panel_extent, row_blocks, run_tile};

/// Most samples of a unit.
const BLOCK_SAMPLES: usize = block_size(256, 5);
/// Products of a unit that are summed in registers, at least if there are as many: fewer samples are
/// taken of several pixels together.
const UNIT_DEPTH: usize = block_size(128, 7);
/// Most output channels of a task.
const BLOCK_TO: usize = block_size(128, 8);
/// Most input channels of a task.
const BLOCK_FROM: usize = block_size(64, 4);
/// Number of tasks to aim for, enough to keep many cores busy.
const TASKS: usize = block_size(64, 4);
/// How many depths ahead memory is fetched.
const PREFETCH: usize = 8;
/// Largest number of input channels for which all taps of a pixel are gathered into one matrix; one
/// tap alone would leave tiles almost empty.
const GATHER_FROM: usize = block_size(8, 4);

/// Computes `pass` and writes to `dw`, which has the length of the weights.
pub(in crate::conv) fn weight_grad<E: Element>(pass: &WeightPass<'_, E>, dw: &mut [f32]) {
    let WeightPass { geometry, isa, n, x, dy, .. } = *pass;
    let [height, width] = geometry.output();
    let (from, to, taps) = (geometry.group_in(), geometry.group_out(), geometry.taps());
    let samples = n.min(BLOCK_SAMPLES);
    let sample_blocks = n.div_ceil(samples);
    let group_pixels = (UNIT_DEPTH / samples).clamp(1, height * width);
    let units = (height * width).div_ceil(group_pixels) * sample_blocks;
    let plane = plane_len(isa, taps, from, to);
    let cut = Cut::new([from, to], [BLOCK_FROM, BLOCK_TO], units, plane, TASKS);
    with_scratch(cut.chunks * plane, |partials| {
        for (group, dw) in dw.chunks_exact_mut((taps * from * to).max(1)).enumerate() {
            let shared = Shared::new(partials);
            for_each(cut.tasks(), |task| {
                let Task { chunk, units, from_range, to_range } = cut.task(task);
                let columns = (to_range.1 - to_range.0).next_multiple_of(simd::tile_columns(isa));
                let gather = Gather::of::<E>(from, taps);
                let gathered = match gather {
                    Gather::No => 0,
                    Gather::Tap => from_range.1 - from_range.0,
                    Gather::Taps => taps * from,
                };
                let rows = group_pixels * samples;
                with_scratch(rows * (columns + gathered), |scratch| {
                    let (panels, gathered) = scratch.split_at_mut(rows * columns);
                    let kernel = WeightGrad {
                        geometry,
                        group,
                        n,
                        samples,
                        sample_blocks,
                        group_pixels,
                        units,
                        from_range,
                        to_range,
                        x: x.at(0),
                        dy: dy.at(0),
                        panels: panels.as_mut_ptr(),
                        gather,
                        gathered: gathered.as_mut_ptr(),
                        dw: shared.at(chunk * plane),
                    };
                    // SAFETY: `WeightPass` promises tensors of the geometry's lengths; the scratch
                    // memory has those computed above; tasks write disjoint chunks or channels of
                    // the partial gradients.
                    unsafe { dispatch(isa, kernel) };
                });
            });
            reduce_weights(isa, partials, taps, from, to, dw);
        }
    });
}

/// Which input pixels are copied to a matrix of `f32` before they are multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Gather {
    /// None: the input is `f32` and read in place.
    No,
    /// The pixels under one tap, tap after tap.
    Tap,
    /// All taps of a pixel side by side.
    Taps,
}

impl Gather {
    /// Chooses for activations of `E` with `from` input channels and `taps` taps.
    fn of<E: Element>(from: usize, taps: usize) -> Self {
        if from <= GATHER_FROM && taps > 1 {
            Gather::Taps
        } else if E::PRECISION == ElementType::F32 {
            Gather::No
        } else {
            Gather::Tap
        }
    }
}

/// One task. [`weight_grad`] guarantees that its pointers are valid.
struct WeightGrad<'a, E> {
    geometry: &'a ConvGeometry,
    group: usize,
    n: usize,
    samples: usize,
    sample_blocks: usize,
    /// Output pixels of a unit.
    group_pixels: usize,
    /// Range of units; a unit is a group of output pixels and one block of samples.
    units: (usize, usize),
    from_range: (usize, usize),
    to_range: (usize, usize),
    x: *const E,
    dy: *const E,
    /// The output gradient of a unit, `[panel][pixel][sample][TILE_COLUMNS]`.
    panels: *mut f32,
    gather: Gather,
    /// Gathered inputs, `[pixel][sample][tap][from]`, with one tap or all taps.
    gathered: *mut f32,
    /// The task's weight gradients, `[panel][tap][from][TILE_COLUMNS]`.
    dw: *mut f32,
}

impl<E: Element> Kernel for WeightGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [height, width] = self.geometry.output();
        // SAFETY: the caller enabled the features of `S` and promises the memory that the fields
        // name; the units are output pixels and blocks of samples that exist.
        unsafe {
            self.clear::<S>();
            let mut terms = Vec::with_capacity(self.group_pixels);
            for unit in self.units.0..self.units.1 {
                let (group, block) = (unit / self.sample_blocks, unit % self.sample_blocks);
                let first = block * self.samples;
                let count = (self.n - first).min(self.samples);
                let pixel = group * self.group_pixels;
                let pixels = (pixel, (pixel + self.group_pixels).min(height * width));
                for (index, pixel) in (pixels.0..pixels.1).enumerate() {
                    self.pack_panels::<S>(index, pixel, first, count);
                }
                self.add_pixels::<S>(pixels, first, count, &mut terms);
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
    unsafe fn clear<S: Simd>(&self) {
        let (taps, from) = (self.geometry.taps(), self.geometry.group_in());
        let len = (self.from_range.1 - self.from_range.0) * S::TILE_COLUMNS;
        for panel in self.to_range.0 / S::TILE_COLUMNS..self.to_range.1.div_ceil(S::TILE_COLUMNS) {
            for tap in 0..taps {
                let first = (panel * taps + tap) * from + self.from_range.0;
                // SAFETY: the caller promises that no other task writes this task's channels, whose
                // panels these are.
                unsafe { self.dw.add(first * S::TILE_COLUMNS).write_bytes(0, len) };
            }
        }
    }

    /// Adds to the gradients, for `count` samples from `first` on, the products of the output
    /// `pixels` with those under their taps. The panels hold the output pixels' gradients. `terms`
    /// is memory for the factors.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixels, those of a unit, and the samples exist.
    #[inline(always)]
    unsafe fn add_pixels<S: Simd>(
        &self,
        pixels: (usize, usize),
        first: usize,
        count: usize,
        terms: &mut Vec<Term>,
    ) {
        let geometry = self.geometry;
        let from = geometry.group_in();
        let channels = self.from_range.1 - self.from_range.0;
        let all_taps = geometry.taps() * from;
        for tap in 0..geometry.taps() {
            terms.clear();
            for (index, pixel) in (pixels.0..pixels.1).enumerate() {
                let source = self.source(pixel, tap, first);
                let rows = index * self.samples;
                // SAFETY: the caller enabled the features of `S`; a source is a pixel of the input,
                // and the gathered matrix has room for one tap, or for all taps where they lie side
                // by side, of every pixel of a unit.
                unsafe {
                    match (self.gather, source) {
                        (Gather::Taps, source) => {
                            let at = rows * all_taps + tap * from;
                            self.gather::<S>(source, at, all_taps, from, count);
                        }
                        (Gather::Tap, Some(source)) => {
                            let source = source.add(self.from_range.0);
                            let at = rows * channels;
                            self.gather::<S>(Some(source), at, channels, channels, count);
                            terms.push(self.term::<S>(self.gathered.add(at), index));
                        }
                        (Gather::No, Some(source)) => {
                            let source = source.add(self.from_range.0).cast();
                            terms.push(self.term::<S>(source, index));
                        }
                        (Gather::Tap | Gather::No, None) => {}
                    }
                }
            }
            let a_depth = if self.gather == Gather::No { geometry.in_channels } else { channels };
            // SAFETY: the caller enabled the features of `S`; the terms name `count` samples of
            // input pixels, and the panels those of the output pixels.
            unsafe {
                self.multiply::<S>(terms, a_depth, count, tap * from + self.from_range.0, channels)
            };
        }
        if self.gather == Gather::Taps {
            terms.extend((0..pixels.1 - pixels.0).map(|index| {
                let rows = self.gathered.wrapping_add(index * self.samples * all_taps);
                self.term::<S>(rows, index)
            }));
            // SAFETY: the caller enabled the features of `S`; the loop above has gathered all taps
            // of `count` samples.
            unsafe { self.multiply::<S>(terms, all_taps, count, 0, all_taps) };
        }
    }

    /// Address of sample `first` at the input pixel under `tap` of an output pixel; `None` outside
    /// the image.
    #[inline(always)]
    fn source(&self, pixel: usize, tap: usize, first: usize) -> Option<*const E> {
        let geometry = self.geometry;
        let ([height, width], out_width) = (geometry.input, geometry.output()[1]);
        let [y, x] = [pixel / out_width, pixel % out_width];
        let (ky, kx) = (tap / geometry.kernel[1], tap % geometry.kernel[1]);
        let sy = geometry.source(Direction::Forward, 0, y, ky, height)?;
        let sx = geometry.source(Direction::Forward, 1, x, kx, width)?;
        let pixel = (sy * width + sx) * self.n + first;
        let channel = self.group * geometry.group_in();
        Some(self.x.wrapping_add(pixel * geometry.in_channels + channel))
    }

    /// The product of the rows at `a` with the first panel of the unit's pixel `index`.
    #[inline(always)]
    fn term<S: Simd>(&self, a: *const f32, index: usize) -> Term {
        Term { a, b: self.panels.wrapping_add(index * self.samples * S::TILE_COLUMNS) }
    }

    /// Copies the output gradient of one pixel, the unit's `index`-th, into panels, where depths are
    /// contiguous.
    ///
    /// # Safety
    /// The features of `S` are enabled; the pixel and the samples exist.
    #[inline(always)]
    unsafe fn pack_panels<S: Simd>(&self, index: usize, pixel: usize, first: usize, count: usize) {
        // SAFETY: the caller enabled the features of `S` and promises a pixel and samples that
        // exist; the panels have room for one block of samples.
        unsafe {
            let dy_row = self.geometry.out_channels;
            let width = self.to_range.1 - self.to_range.0;
            let dy = self.dy.add(
                (pixel * self.n + first) * dy_row
                    + self.group * self.geometry.group_out()
                    + self.to_range.0,
            );
            for sample in 0..count {
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
                    let row = (panel * self.group_pixels + index) * self.samples + sample;
                    let at = row * S::TILE_COLUMNS + lane;
                    load::<S, E>(dy.add(sample * dy_row + c), lanes).store(self.panels.add(at));
                    c += S::LANES;
                }
            }
        }
    }

    /// Copies the `width` channels at `source` to the gathered matrix from `at` on, where its rows have
    /// `row` floats, or writes zeros where the tap lies outside the image.
    ///
    /// # Safety
    /// The features of `S` are enabled; the source is readable for `count` samples, and the columns
    /// lie in the row.
    #[inline(always)]
    unsafe fn gather<S: Simd>(
        &self,
        source: Option<*const E>,
        at: usize,
        row: usize,
        width: usize,
        count: usize,
    ) {
        // SAFETY: the caller enabled the features of `S` and promises a source readable for `count`
        // samples and columns inside the row.
        unsafe {
            for sample in 0..count {
                let out = self.gathered.add(sample * row + at);
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let value = match source {
                        Some(x) => {
                            load::<S, E>(x.add(sample * self.geometry.in_channels + c), lanes)
                        }
                        None => S::zero(),
                    };
                    store(value, out.add(c), lanes);
                    c += S::LANES;
                }
            }
        }
    }

    /// `dw[first..][to_range] += sum over terms of a^T * panels` for `rows` columns of each `a`, which
    /// is `[count][a_depth]`. The terms name the first panel.
    ///
    /// # Safety
    /// The features of `S` are enabled; each `a` is readable for `count` samples, and the panels hold
    /// them; the rows of `dw` exist.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        terms: &mut [Term],
        a_depth: usize,
        count: usize,
        first: usize,
        rows: usize,
    ) {
        let Some(Term { a, .. }) = terms.first().copied() else { return };
        // SAFETY: the caller enabled the features of `S` and promises `count` samples in each `a`
        // and in the panels, and rows of `dw` that exist and that no other task writes.
        unsafe {
            let plane_rows = self.geometry.taps() * self.geometry.group_in();
            let width = self.to_range.1 - self.to_range.0;
            let mut column = 0;
            while column < width {
                let (_, vectors) = panel_extent::<S>(width, column);
                for (row, rows) in row_blocks::<S>(rows) {
                    let panel = (self.to_range.0 + column) / S::TILE_COLUMNS;
                    let c = self.dw.add((panel * plane_rows + first + row) * S::TILE_COLUMNS);
                    let tile = Tile::<f32> {
                        a_offset: row,
                        depth: count,
                        a_row: 1,
                        a_depth,
                        b_depth: S::TILE_COLUMNS,
                        c,
                        c_row: S::TILE_COLUMNS,
                        columns: vectors * S::LANES,
                        add: c,
                        // Rows are short and far apart, so the processor's own prefetcher does not
                        // follow them.
                        prefetch: a.wrapping_add(row + rows - 1 + PREFETCH * a_depth),
                        prefetch_step: a_depth,
                        ..Tile::plain(terms)
                    };
                    run_tile::<S, f32>(rows, vectors, &tile);
                }
                for term in terms.iter_mut() {
                    term.b =
                        term.b.wrapping_add(self.group_pixels * self.samples * S::TILE_COLUMNS);
                }
                column += S::TILE_COLUMNS;
            }
        }
    }
}
