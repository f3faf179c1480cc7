//! Direct convolution: an output pixel is a sum over kernel taps of `[N x C_in] * [C_in x C_out]`.
//!
//! All taps accumulate in registers before one store. The input gradient is the same with
//! transposed weights and the taps that reach each input pixel. Activations in bf16 are first
//! converted to a matrix of `f32`, a pixel's taps side by side; processors that multiply bf16 do
//! better ([`super::pairs`]).

use super::grid::Rows;
use super::partial::{Partial, TileList};
use super::{ConvGeometry, Direction, Job, Output, TILE_SIDE};
use crate::buffer::with_scratch;
use crate::element::{Element, Precision, load, store};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, TileStats, panel_extent, row_blocks};

/// Samples of a task.
pub(super) const BLOCK_SAMPLES: usize = 256;
/// Packed weights (`f32`) up to which a task goes pixel by pixel: they stay in the second-level
/// cache.
const FEW_WEIGHTS: usize = 1 << 16;
/// TileList of a task.
const BLOCK_TILES: usize = 32;
/// Rows (pixels times samples) a task aims for.
const TASK_ROWS: usize = 512;

/// One direction: output pixels `to_size` with `to` channels per group from `from_size` with
/// `from`.
pub(super) struct Problem {
    pub from: usize,
    pub to: usize,
    pub from_size: [usize; 2],
    pub to_size: [usize; 2],
}

impl Problem {
    pub(super) fn new(g: &ConvGeometry, direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self {
                from: g.group_in(),
                to: g.group_out(),
                from_size: g.input,
                to_size: g.output(),
            },
            Direction::InputGrad => Self {
                from: g.group_out(),
                to: g.group_in(),
                from_size: g.output(),
                to_size: g.input,
            },
        }
    }
}

/// How output pixels and samples are cut into tasks.
pub(super) struct Tasks {
    pixels: usize,
    group: usize,
    pub samples: usize,
    blocks: usize,
}

impl Tasks {
    /// Tasks of at most `block` samples.
    pub(super) fn new(g: &ConvGeometry, direction: Direction, n: usize, block: usize) -> Self {
        let [h, w] = Problem::new(g, direction).to_size;
        let samples = n.clamp(1, block);
        Self {
            pixels: h * w,
            group: (TASK_ROWS / samples).max(1),
            samples,
            blocks: n.div_ceil(samples),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.pixels.div_ceil(self.group) * self.blocks
    }

    /// Outputs per channel of each task.
    pub(super) fn counts(&self, n: usize) -> Vec<usize> {
        let outputs = |task| {
            let (pixels, samples) = self.range(task, n);
            (pixels.1 - pixels.0) * (samples.1 - samples.0)
        };
        (0..self.count()).map(outputs).collect()
    }

    /// Ranges of pixels and samples of a task.
    pub(super) fn range(&self, task: usize, n: usize) -> ((usize, usize), (usize, usize)) {
        let (group, block) = (task / self.blocks, task % self.blocks);
        (
            (group * self.group, ((group + 1) * self.group).min(self.pixels)),
            (block * self.samples, ((block + 1) * self.samples).min(n)),
        )
    }
}

/// Outputs per channel of each task.
pub(super) fn task_counts(g: &ConvGeometry, direction: Direction, n: usize) -> Vec<usize> {
    Tasks::new(g, direction, n, BLOCK_SAMPLES).counts(n)
}

pub(super) fn packed_len(g: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    let problem = Problem::new(g, direction);
    let columns = problem.to.next_multiple_of(simd::tile_columns(isa));
    g.groups * g.taps() * problem.from * columns
}

/// Packs weights as `[group][panel][tap][from][TILE_COLUMNS]`, columns that do not exist as zeros.
pub(super) fn pack(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
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
pub(super) fn source(
    g: &ConvGeometry,
    direction: Direction,
    dimension: usize,
    at: usize,
    tap: usize,
    size: usize,
) -> Option<usize> {
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

pub(super) fn run<E: Element>(
    g: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    n: usize,
    x: &[E],
    weights: &[f32],
    out: Output<E>,
) {
    let tasks = Tasks::new(g, direction, n, BLOCK_SAMPLES);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    let gathered = match E::PRECISION {
        Precision::F32 => 0,
        Precision::Bf16 => tasks.samples * g.taps() * Problem::new(g, direction).from,
    };
    for_each(tasks.count(), |task| {
        let (pixels, samples) = tasks.range(task, n);
        with_scratch(gathered, |gathered| {
            let kernel = Convolve {
                g,
                direction,
                problem: Problem::new(g, direction),
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                partial: out.partials.at(task * 3 * g.groups * Problem::new(g, direction).to),
                gathered: gathered.as_mut_ptr(),
                pixels,
                samples,
            };
            // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), the
            // weights those of `packed_len`; tasks write disjoint pixels and samples of the output,
            // and their own partial sums.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

/// As [`run`] forward, for some tiles of [`TILE_SIDE`] output pixels square of some samples; the others
/// are left as they are. `partial` fits. The bits are those of [`run`] for weights that are finite.
pub(super) fn run_partial<E: Element>(job: &Job<'_, E>, partial: &Partial<'_, E>, out: Output<E>) {
    let Job { g, isa, n, x, weights, .. } = *job;
    let blocks = TileList::tasks(partial, BLOCK_TILES);
    let window: [usize; 2] = std::array::from_fn(|d| (TILE_SIDE - 1) * g.stride[d] + g.kernel[d]);
    let x = Shared::read_only(x);
    let weights = Shared::read_only(weights);
    for_each(blocks.len(), |index| {
        with_scratch(window[0] * window[1] * g.in_channels, |seen| {
            let problem = Problem::new(g, Direction::Forward);
            let kernel = ConvolvePartial {
                g,
                problem,
                n,
                x: x.at(0),
                weights: weights.at(0),
                out,
                rows: blocks[index],
                window,
                seen: seen.as_mut_ptr(),
            };
            // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`), and so
            // have overlays; the weights those of `packed_len`; the tiles exist and differ.
            unsafe { dispatch(isa, kernel) };
        });
    });
}

struct ConvolvePartial<'a, E> {
    g: &'a ConvGeometry,
    problem: Problem,
    n: usize,
    x: *const E,
    weights: *const f32,
    out: Output<E>,
    rows: TileList<'a, E>,
    /// Height and width of what a tile sees.
    window: [usize; 2],
    /// What the tile sees, `[y][x][C_in]`, zeros beside the image: its taps all exist, and lie as
    /// regularly for one pixel as for the next.
    seen: *mut f32,
}

impl<E: Element> Kernel for ConvolvePartial<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [height, width] = self.problem.to_size;
        let tiles_x = width.div_ceil(TILE_SIDE);
        let mut terms = Vec::with_capacity(self.g.taps());
        for tile in self.rows.tiles {
            let (top, left) = (tile.tile / tiles_x * TILE_SIDE, tile.tile % tiles_x * TILE_SIDE);
            let (tall, wide) = ((height - top).min(TILE_SIDE), (width - left).min(TILE_SIDE));
            // SAFETY: see `run_partial`.
            unsafe {
                self.look::<S>(tile.sample, top, left);
                for line in 0..tall {
                    self.multiply::<S>(
                        tile.sample,
                        (top + line) * width + left,
                        line,
                        wide,
                        &mut terms,
                    );
                }
            }
        }
    }
}

impl<E: Element> ConvolvePartial<'_, E> {
    /// Copies what the tile from (`top`, `left`) on sees.
    #[inline(always)]
    unsafe fn look<S: Simd>(&self, sample: usize, top: usize, left: usize) {
        let (g, channels, [height, width]) = (self.g, self.g.in_channels, self.problem.from_size);
        for pixel in 0..self.window[0] * self.window[1] {
            // Wraps above the height or width when it lies before the image.
            let y = (top * g.stride[0] + pixel / self.window[1]).wrapping_sub(g.padding[0]);
            let x = (left * g.stride[1] + pixel % self.window[1]).wrapping_sub(g.padding[1]);
            let inside = y < height && x < width;
            // SAFETY: see `run_partial`; pixels are read inside the image alone.
            unsafe {
                let to = self.seen.add(pixel * channels);
                let mut c = 0;
                while c < channels {
                    let lanes = (channels - c).min(S::LANES);
                    let value: S = if inside {
                        load(
                            self.rows
                                .input(self.x, y, x)
                                .add(((y * width + x) * self.n + sample) * channels + c),
                            lanes,
                        )
                    } else {
                        S::zero()
                    };
                    store(value, to.add(c), lanes);
                    c += S::LANES;
                }
            }
        }
    }

    /// All channels of `count` output pixels from `pixel` on, in line `line` of the tile.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        sample: usize,
        pixel: usize,
        line: usize,
        count: usize,
        terms: &mut Vec<Term>,
    ) {
        let (g, problem) = (self.g, &self.problem);
        let to_row = self.n * problem.to * g.groups;
        let panels = problem.to.div_ceil(S::TILE_COLUMNS);
        let (y, x) = (pixel / problem.to_size[1], pixel % problem.to_size[1]);
        for index in 0..g.groups * panels {
            let (group, column) = (index / panels, index % panels * S::TILE_COLUMNS);
            let channel = group * problem.to + column;
            let (columns, vectors) = panel_extent::<S>(problem.to, column);
            // SAFETY: see `run_partial`.
            unsafe {
                let weights = self.weights.add(index * g.taps() * problem.from * S::TILE_COLUMNS);
                terms.clear();
                terms.extend((0..g.taps()).map(|tap| {
                    let (down, right) = (line * g.stride[0] + tap / g.kernel[1], tap % g.kernel[1]);
                    Term {
                        a: self.seen.add(
                            (down * self.window[1] + right) * g.in_channels + group * problem.from,
                        ),
                        b: weights.add(tap * problem.from * S::TILE_COLUMNS),
                    }
                }));
                for (row, rows) in row_blocks::<S>(count) {
                    let at = (pixel + row) * to_row + sample * problem.to * g.groups + channel;
                    let add = self.out.add;
                    let tile = Tile {
                        terms,
                        a_offset: row * g.stride[1] * g.in_channels,
                        depth: problem.from,
                        a_row: g.stride[1] * g.in_channels,
                        a_depth: 1,
                        b_depth: S::TILE_COLUMNS,
                        c: self.out.y.at(at),
                        c_row: to_row,
                        columns,
                        add: if add.is_null() {
                            add.at(0)
                        } else {
                            self.rows.addend(add.at(0), y, x).add(at)
                        },
                        bias: self.out.bias.at(channel),
                        stats: None,
                        norm: self.out.norm.map(|norm| norm.tile(at, channel)),
                        prefetch: weights,
                        prefetch_step: 16,
                    };
                    S::tile(rows, vectors, &tile);
                }
            }
        }
    }
}

struct Convolve<'a, E> {
    g: &'a ConvGeometry,
    direction: Direction,
    problem: Problem,
    n: usize,
    x: *const E,
    weights: *const f32,
    out: Output<E>,
    partial: *mut f32,
    /// `[sample][tap][from]`, where the activations are not `f32`.
    gathered: *mut f32,
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
            let panel_len = g.taps() * problem.from * S::TILE_COLUMNS;
            let panels = problem.to.div_ceil(S::TILE_COLUMNS);
            let mut sources = Vec::with_capacity(g.taps());
            let mut terms = Vec::with_capacity(g.taps());
            for group in 0..g.groups {
                let weights = self.weights.add(group * panels * panel_len);
                match E::PRECISION {
                    Precision::F32 => {
                        for (panel, pixel) in order(self.pixels, panels, panel_len) {
                            let weights = weights.add(panel * panel_len);
                            find_sources(g, self.direction, problem, pixel, &mut sources);
                            terms.clear();
                            terms.extend(sources.iter().map(|&(source, tap)| Term {
                                a: self.source(source, group).cast(),
                                b: weights.add(tap * problem.from * S::TILE_COLUMNS),
                            }));
                            self.multiply::<S>(
                                pixel,
                                group,
                                panel * S::TILE_COLUMNS,
                                problem.from * g.groups,
                                &terms,
                            );
                        }
                    }
                    Precision::Bf16 => {
                        for pixel in self.pixels.0..self.pixels.1 {
                            find_sources(g, self.direction, problem, pixel, &mut sources);
                            let row = sources.len() * problem.from;
                            for (index, &(source, _)) in sources.iter().enumerate() {
                                self.gather::<S>(
                                    self.source(source, group),
                                    index * problem.from,
                                    row,
                                );
                            }
                            for panel in 0..panels {
                                let weights = weights.add(panel * panel_len);
                                terms.clear();
                                terms.extend(sources.iter().enumerate().map(
                                    |(index, &(_, tap))| Term {
                                        a: self.gathered.add(index * problem.from).cast_const(),
                                        b: weights.add(tap * problem.from * S::TILE_COLUMNS),
                                    },
                                ));
                                self.multiply::<S>(
                                    pixel,
                                    group,
                                    panel * S::TILE_COLUMNS,
                                    row,
                                    &terms,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The order of a task's panels and pixels. Many weights: panel by panel, so that one serves all
/// pixels from a cache near by. Few: pixel by pixel, which reads and writes each in one go.
pub(super) fn order(
    pixels: (usize, usize),
    panels: usize,
    panel_len: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let count = pixels.1 - pixels.0;
    let by_pixel = panels * panel_len <= FEW_WEIGHTS;
    (0..panels * count).map(move |index| {
        let (panel, pixel) = if by_pixel {
            (index % panels, index / panels)
        } else {
            (index / count, index % count)
        };
        (panel, pixels.0 + pixel)
    })
}

/// The source pixels of output `pixel` that lie inside the image, and their taps.
#[inline(always)]
pub(super) fn find_sources(
    g: &ConvGeometry,
    direction: Direction,
    problem: &Problem,
    pixel: usize,
    sources: &mut Vec<(usize, usize)>,
) {
    let (y, x) = (pixel / problem.to_size[1], pixel % problem.to_size[1]);
    sources.clear();
    for ky in 0..g.kernel[0] {
        let Some(sy) = source(g, direction, 0, y, ky, problem.from_size[0]) else {
            continue;
        };
        for kx in 0..g.kernel[1] {
            if let Some(sx) = source(g, direction, 1, x, kx, problem.from_size[1]) {
                sources.push((sy * problem.from_size[1] + sx, ky * g.kernel[1] + kx));
            }
        }
    }
}

impl<E: Element> Convolve<'_, E> {
    /// The first of this task's samples at a source pixel.
    #[inline(always)]
    unsafe fn source(&self, pixel: usize, group: usize) -> *const E {
        let row = self.problem.from * self.g.groups;
        // SAFETY: the source pixel exists.
        unsafe { self.x.add((pixel * self.n + self.samples.0) * row + group * self.problem.from) }
    }

    /// Converts the samples at one source pixel to columns from `at` of the gathered matrix with
    /// rows of `row`.
    #[inline(always)]
    unsafe fn gather<S: Simd>(&self, x: *const E, at: usize, row: usize) {
        // SAFETY: see `run` above.
        unsafe {
            let from = self.problem.from;
            for sample in 0..self.samples.1 - self.samples.0 {
                let (x, out) =
                    (x.add(sample * from * self.g.groups), self.gathered.add(sample * row + at));
                let mut c = 0;
                while c < from {
                    let lanes = (from - c).min(S::LANES);
                    store(load::<S, E>(x.add(c), lanes), out.add(c), lanes);
                    c += S::LANES;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        pixel: usize,
        group: usize,
        column: usize,
        a_row: usize,
        terms: &[Term],
    ) {
        // SAFETY: see `run` above.
        unsafe {
            let (g, problem) = (self.g, &self.problem);
            let to_row = problem.to * g.groups;
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
                    a_offset: row * a_row,
                    depth: problem.from,
                    a_row,
                    a_depth: 1,
                    b_depth: S::TILE_COLUMNS,
                    c: self.out.y.at(at),
                    c_row: to_row,
                    columns,
                    add: self.out.add.at(at),
                    bias: self.out.bias.at(channel),
                    stats,
                    norm: self.out.norm.map(|norm| norm.tile(at, channel)),
                    prefetch: terms.first().map_or(std::ptr::null(), |term| term.b),
                    prefetch_step: 16,
                };
                S::tile(rows, vectors, &tile);
            }
        }
    }
}
