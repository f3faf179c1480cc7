//! Weight gradient of any convolution: for each tap `X^T * dY`, summed over output pixels and
//! samples.

use super::direct::source;
use super::reduce::{Cut, Task, plane_len, reduce_weights};
use super::{ConvGeometry, Direction};
use crate::buffer::with_scratch;
use crate::element::{Element, Precision, load, store};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Samples multiplied at a time.
const BLOCK_SAMPLES: usize = 256;
/// Output channels of a task.
const BLOCK_TO: usize = 128;
/// Input channels of a task.
const BLOCK_FROM: usize = 64;
/// Tasks to aim for, enough to keep many cores busy.
const TASKS: usize = 64;
/// Depths fetched ahead.
const PREFETCH: usize = 8;
/// With at most this many input channels all taps of a pixel are gathered into one matrix, else
/// tiles would be almost empty.
const GATHER_FROM: usize = 8;

pub(super) fn run<E: Element>(
    g: &ConvGeometry,
    isa: Isa,
    n: usize,
    x: &[E],
    dy: &[E],
    dw: &mut [f32],
) {
    let [height, width] = g.output();
    let (from, to, taps) = (g.group_in(), g.group_out(), g.taps());
    let samples = n.min(BLOCK_SAMPLES);
    let sample_blocks = n.div_ceil(samples);
    let units = height * width * sample_blocks;
    let plane = plane_len(isa, taps, from, to);
    let cut = Cut::new([from, to], [BLOCK_FROM, BLOCK_TO], units, plane, TASKS);
    let x = Shared::read_only(x);
    let dy = Shared::read_only(dy);
    with_scratch(cut.chunks * plane, |partials| {
        for (group, dw) in dw.chunks_exact_mut((taps * from * to).max(1)).enumerate() {
            let shared = Shared::new(partials);
            for_each(cut.tasks(), |task| {
                let Task { chunk, units, from_range, to_range } = cut.task(task);
                let columns = (to_range.1 - to_range.0).next_multiple_of(simd::tile_columns(isa));
                let gather = if from <= GATHER_FROM && taps > 1 {
                    Gather::Taps
                } else if E::PRECISION == Precision::F32 {
                    Gather::No
                } else {
                    Gather::Tap
                };
                let gathered = match gather {
                    Gather::No => 0,
                    Gather::Tap => from_range.1 - from_range.0,
                    Gather::Taps => taps * from,
                };
                with_scratch(samples * (columns + gathered), |scratch| {
                    let (panels, gathered) = scratch.split_at_mut(samples * columns);
                    let kernel = WeightGrad {
                        g,
                        group,
                        n,
                        samples,
                        sample_blocks,
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
                    // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`),
                    // the scratch those computed above; tasks write disjoint chunks or channels of
                    // the partial gradients.
                    unsafe { dispatch(isa, kernel) };
                });
            });
            reduce_weights(isa, partials, taps, from, to, dw);
        }
    });
}

/// What is copied to a matrix of `f32` before it is multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Gather {
    /// Nothing: the input is `f32` and read in place.
    No,
    /// The pixels under one tap after the other.
    Tap,
    /// All taps of a pixel side by side.
    Taps,
}

struct WeightGrad<'a, E> {
    g: &'a ConvGeometry,
    group: usize,
    n: usize,
    samples: usize,
    sample_blocks: usize,
    /// Output pixels times blocks of samples.
    units: (usize, usize),
    from_range: (usize, usize),
    to_range: (usize, usize),
    x: *const E,
    dy: *const E,
    /// `[panel][sample][TILE_COLUMNS]`.
    panels: *mut f32,
    gather: Gather,
    /// `[sample][tap][from]`, or one tap of it.
    gathered: *mut f32,
    /// `[panel][tap][from][TILE_COLUMNS]`.
    dw: *mut f32,
}

impl<E: Element> Kernel for WeightGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `run` above.
        unsafe {
            let g = self.g;
            let from = g.group_in();
            let [_, out_width] = g.output();
            for panel in
                self.to_range.0 / S::TILE_COLUMNS..self.to_range.1.div_ceil(S::TILE_COLUMNS)
            {
                for tap in 0..g.taps() {
                    let first = (panel * g.taps() + tap) * from + self.from_range.0;
                    let len = (self.from_range.1 - self.from_range.0) * S::TILE_COLUMNS;
                    self.dw.add(first * S::TILE_COLUMNS).write_bytes(0, len);
                }
            }
            for unit in self.units.0..self.units.1 {
                let (pixel, block) = (unit / self.sample_blocks, unit % self.sample_blocks);
                let first = block * self.samples;
                let count = (self.n - first).min(self.samples);
                self.pack_panels::<S>(pixel, first, count);
                let (y, x) = (pixel / out_width, pixel % out_width);
                for ky in 0..g.kernel[0] {
                    for kx in 0..g.kernel[1] {
                        let tap = ky * g.kernel[1] + kx;
                        let sy = source(g, Direction::Forward, 0, y, ky, g.input[0]);
                        let sx = source(g, Direction::Forward, 1, x, kx, g.input[1]);
                        let source = sy.zip(sx).map(|(sy, sx)| {
                            let pixel = (sy * g.input[1] + sx) * self.n + first;
                            self.x.add(pixel * g.in_channels + self.group * from)
                        });
                        let (tap_from, tap_row) =
                            (self.from_range.0, tap * from + self.from_range.0);
                        let width = self.from_range.1 - tap_from;
                        match (self.gather, source) {
                            (Gather::Taps, source) => {
                                self.gather::<S>(source, tap * from, g.taps() * from, from, count)
                            }
                            (Gather::Tap, Some(source)) => {
                                self.gather::<S>(
                                    Some(source.add(tap_from)),
                                    0,
                                    width,
                                    width,
                                    count,
                                );
                                self.multiply::<S>(self.gathered, width, count, tap_row, width);
                            }
                            (Gather::No, Some(source)) => {
                                self.multiply::<S>(
                                    source.add(tap_from).cast(),
                                    g.in_channels,
                                    count,
                                    tap_row,
                                    width,
                                );
                            }
                            (Gather::Tap | Gather::No, None) => {}
                        }
                    }
                }
                if self.gather == Gather::Taps {
                    let width = g.taps() * from;
                    self.multiply::<S>(self.gathered, width, count, 0, width);
                }
            }
        }
    }
}

impl<E: Element> WeightGrad<'_, E> {
    /// Copies the output gradient of one pixel into panels, where depths are contiguous.
    #[inline(always)]
    unsafe fn pack_panels<S: Simd>(&self, pixel: usize, first: usize, count: usize) {
        // SAFETY: see `run` above.
        unsafe {
            let row = self.g.out_channels;
            let width = self.to_range.1 - self.to_range.0;
            let dy = self.dy.add(
                (pixel * self.n + first) * row + self.group * self.g.group_out() + self.to_range.0,
            );
            for sample in 0..count {
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
                    let at = (panel * self.samples + sample) * S::TILE_COLUMNS + lane;
                    load::<S, E>(dy.add(sample * row + c), lanes).store(self.panels.add(at));
                    c += S::LANES;
                }
            }
        }
    }

    /// Copies the `width` channels at `source` to columns from `at` of the gathered matrix with
    /// rows of `row`, or zeros where the tap lies outside the image.
    #[inline(always)]
    unsafe fn gather<S: Simd>(
        &self,
        source: Option<*const E>,
        at: usize,
        row: usize,
        width: usize,
        count: usize,
    ) {
        // SAFETY: see `run` above.
        unsafe {
            for sample in 0..count {
                let out = self.gathered.add(sample * row + at);
                let mut c = 0;
                while c < width {
                    let lanes = (width - c).min(S::LANES);
                    let value = match source {
                        Some(x) => load::<S, E>(x.add(sample * self.g.in_channels + c), lanes),
                        None => S::zero(),
                    };
                    store(value, out.add(c), lanes);
                    c += S::LANES;
                }
            }
        }
    }

    /// `dw[row..][to_range] += a^T * panels` for `rows` columns of `a`, `[count][a_depth]`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        a: *const f32,
        a_depth: usize,
        count: usize,
        first: usize,
        rows: usize,
    ) {
        // SAFETY: see `run` above.
        unsafe {
            let plane_rows = self.g.taps() * self.g.group_in();
            let width = self.to_range.1 - self.to_range.0;
            let mut column = 0;
            while column < width {
                let (_, vectors) = panel_extent::<S>(width, column);
                let terms = [Term { a, b: self.panels.add(column * self.samples) }];
                for (row, rows) in row_blocks::<S>(rows) {
                    let panel = (self.to_range.0 + column) / S::TILE_COLUMNS;
                    let c = self.dw.add((panel * plane_rows + first + row) * S::TILE_COLUMNS);
                    let tile = Tile::<f32> {
                        terms: &terms,
                        a_offset: row,
                        depth: count,
                        a_row: 1,
                        a_depth,
                        b_depth: S::TILE_COLUMNS,
                        c,
                        c_row: S::TILE_COLUMNS,
                        columns: vectors * S::LANES,
                        add: c,
                        bias: std::ptr::null(),
                        stats: None,
                        norm: None,
                        // Rows are short and far apart, which the processor's own prefetcher does
                        // not follow.
                        prefetch: a.wrapping_add(row + rows - 1 + PREFETCH * a_depth),
                        prefetch_step: a_depth,
                    };
                    S::tile(rows, vectors, &tile);
                }
                column += S::TILE_COLUMNS;
            }
        }
    }
}
