//! Weight gradient of 3x3 convolutions with stride 1 by Winograd: `dw = G^T [sum over rows of (B^T
//! d B)^T (A dY A^T)] G`, a matrix product over rows for each of the 36 points.
//!
//! Few channels: each task takes a chunk of rows through all steps, its products staying in the
//! second-level cache. Many channels: their products would not, so all rows of a section are
//! transformed first, then each point is multiplied by a task of its own, which keeps its products
//! in registers over the whole section. Where one section is all (small images), each task instead
//! takes a block of channels through all points and back.

use super::ConvGeometry;
use super::grid::{Block, Grid};
use super::reduce::{plane_len, reduce_weights};
use super::transform::{self, IN, OUT, POINTS, columns};
use super::winograd::InputTransform;
use crate::buffer::with_scratch;
use crate::element::{Element, load};
use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::tile::{Term, Tile, panel_extent, row_blocks};

/// Rows transformed at a time.
const BLOCK_ROWS: usize = 32;
/// Channels up to which a task keeps all products.
const FUSED_CHANNELS: usize = 64;
/// Tasks of the fused form, enough to keep many cores busy.
const FUSED_TASKS: usize = 64;
/// Fewest blocks of rows of a fused task: fewer do not pay for its transform back.
const FUSED_MIN_BLOCKS: usize = 8;
/// Floats of the transformed rows of a section, to stay in the last-level cache.
const SECTION: usize = 3 << 20;
/// Blocks of rows of a section at least: fewer would load and store the products too often.
const SECTION_MIN_BLOCKS: usize = 4;
/// Rows multiplied at a time, for a panel to stay in the first-level cache.
const BLOCK_DEPTH: usize = 128;
/// Depths fetched ahead.
const PREFETCH: usize = 8;
/// Input and output channels of a task that takes all points: its products stay in the second-level
/// cache.
const BLOCK_FROM: usize = 28;
const BLOCK_TO: usize = 128;
/// Channels transformed by a task.
const TRANSFORM_CHANNELS: usize = 128;

pub(super) fn run<E: Element>(
    g: &ConvGeometry,
    isa: Isa,
    n: usize,
    x: &[E],
    dy: &[E],
    dw: &mut [f32],
) {
    let grid = Grid::new(g, n, BLOCK_ROWS);
    let problem = Problem {
        grid,
        from: g.in_channels,
        to: g.out_channels,
        x: Shared::read_only(x),
        dy: Shared::read_only(dy),
    };
    if g.in_channels.max(g.out_channels) <= FUSED_CHANNELS {
        problem.run_fused(isa, dw);
    } else {
        problem.run_sections(isa, dw);
    }
}

#[derive(Clone, Copy)]
struct Problem<E> {
    grid: Grid,
    from: usize,
    to: usize,
    x: Shared<E>,
    dy: Shared<E>,
}

/// Ranges of input and output channels.
type Channels = ((usize, usize), (usize, usize));

/// Scratch memory of transformed rows and products. Each point starts a cache line later than its
/// size asks, so that neighbouring points begin in different cache sets.
#[derive(Clone, Copy)]
struct Memory {
    /// `[point][row][from]`.
    v: Shared,
    v_row: usize,
    v_point: usize,
    /// `[point][panel][row][TILE_COLUMNS]`.
    d: Shared,
    d_point: usize,
    /// Rows of a panel.
    rows: usize,
    /// `[point][from][to]`.
    u: Shared,
    u_row: usize,
    u_point: usize,
}

impl<E: Element> Problem<E> {
    /// Sizes of `v`, `d` and `u` for `rows` rows, and their strides.
    fn memory(&self, isa: Isa, rows: usize) -> ([usize; 3], Memory) {
        let columns = self.to.next_multiple_of(simd::tile_columns(isa));
        // Rows of a power of two would compete for the same cache sets.
        let v_row = self.from.next_multiple_of(simd::lanes(isa)) + 16;
        let memory = Memory {
            v: Shared::null(),
            v_row,
            v_point: rows * v_row + 16,
            d: Shared::null(),
            d_point: rows * columns + 16,
            rows,
            u: Shared::null(),
            u_row: columns,
            u_point: self.from * columns + 16,
        };
        ([memory.v_point, memory.d_point, memory.u_point].map(|point| POINTS * point), memory)
    }

    /// Calls `f` with memory for `rows` rows, and for products if wanted.
    fn with_memory(&self, isa: Isa, rows: usize, products: bool, f: impl FnOnce(Memory)) {
        let ([v_len, d_len, u_len], memory) = self.memory(isa, rows);
        let u_len = if products { u_len } else { 0 };
        with_scratch(v_len + d_len + u_len, |scratch| {
            let (v, rest) = scratch.split_at_mut(v_len);
            let (d, u) = rest.split_at_mut(d_len);
            f(Memory { v: Shared::new(v), d: Shared::new(d), u: Shared::new(u), ..memory });
        });
    }

    fn run_fused(&self, isa: Isa, dw: &mut [f32]) {
        let blocks = self.grid.blocks();
        let chunks = FUSED_TASKS.min(blocks.div_ceil(FUSED_MIN_BLOCKS));
        let chunk_blocks = blocks.div_ceil(chunks);
        let chunks = blocks.div_ceil(chunk_blocks);
        let plane = plane_len(isa, 9, self.from, self.to);
        with_scratch(chunks * plane, |partials| {
            let shared = Shared::new(partials);
            for_each(chunks, |chunk| {
                self.with_memory(isa, self.grid.block_rows(), true, |memory| {
                    for index in chunk * chunk_blocks..((chunk + 1) * chunk_blocks).min(blocks) {
                        let block = self.grid.block(index);
                        let first = index == chunk * chunk_blocks;
                        // SAFETY: the slices have the lengths of the geometry (checked by
                        // `Conv2d`), the memory those of one block of rows, and it is this task's
                        // own.
                        unsafe {
                            self.transform(isa, memory, block, 0, (0, self.from), (0, self.to));
                            for point in 0..POINTS {
                                dispatch(
                                    isa,
                                    Multiply {
                                        memory,
                                        point,
                                        rows: block.rows(),
                                        first,
                                        channels: self.channels(),
                                    },
                                );
                            }
                        }
                    }
                    let dw = shared.at(chunk * plane);
                    // SAFETY: the products were computed above; this task writes its own chunk.
                    unsafe {
                        dispatch(
                            isa,
                            TransformBack {
                                from: self.from,
                                memory,
                                channels: self.channels(),
                                origin: (0, 0),
                                dw,
                            },
                        )
                    };
                });
            });
            reduce_weights(isa, partials, 9, self.from, self.to, dw);
        });
    }

    fn run_sections(&self, isa: Isa, dw: &mut [f32]) {
        let blocks = self.grid.blocks();
        let block_rows = self.grid.block_rows();
        let block_len = POINTS * block_rows * (self.from + self.to);
        let section_blocks = (SECTION / block_len).max(SECTION_MIN_BLOCKS).min(blocks);
        let sections = blocks.div_ceil(section_blocks);
        // Sections of equal size.
        let section_blocks = blocks.div_ceil(sections);
        let channel_blocks = self.from.max(self.to).div_ceil(TRANSFORM_CHANNELS);
        let channels = |index: usize, count: usize| {
            ((index * TRANSFORM_CHANNELS).min(count), ((index + 1) * TRANSFORM_CHANNELS).min(count))
        };
        let one = sections == 1;
        self.with_memory(isa, section_blocks * block_rows, !one, |memory| {
            for section in 0..sections {
                let first = section * section_blocks;
                let count = (blocks - first).min(section_blocks);
                // Rows of each block and where they start: blocks at the edge of the batch are
                // smaller.
                let mut starts = Vec::with_capacity(count);
                let mut rows = 0;
                for index in first..first + count {
                    starts.push(rows);
                    rows += self.grid.block(index).rows();
                }
                for_each(count * channel_blocks, |task| {
                    let (index, channel_block) = (task / channel_blocks, task % channel_blocks);
                    let block = self.grid.block(first + index);
                    let (from, to) =
                        (channels(channel_block, self.from), channels(channel_block, self.to));
                    // SAFETY: the slices have the lengths of the geometry (checked by `Conv2d`),
                    // the memory those of a section; tasks write disjoint rows or channels.
                    unsafe { self.transform(isa, memory, block, starts[index], from, to) };
                });
                if one {
                    self.multiply_by_channels(isa, memory, rows, dw);
                    return;
                }
                for_each(POINTS, |point| {
                    let channels = self.channels();
                    // SAFETY: the rows were transformed above; tasks write the products of their
                    // own point.
                    unsafe {
                        dispatch(
                            isa,
                            Multiply { memory, point, rows, first: section == 0, channels },
                        )
                    };
                });
            }
            with_scratch(plane_len(isa, 9, self.from, self.to), |planes| {
                let shared = Shared::new(planes);
                const CHANNELS: usize = 16;
                for_each(self.from.div_ceil(CHANNELS), |task| {
                    let channels =
                        ((task * CHANNELS, ((task + 1) * CHANNELS).min(self.from)), (0, self.to));
                    // SAFETY: the products were computed above; tasks write disjoint channels.
                    unsafe {
                        dispatch(
                            isa,
                            TransformBack {
                                from: self.from,
                                memory,
                                channels,
                                origin: (0, 0),
                                dw: shared.at(0),
                            },
                        )
                    };
                });
                reduce_weights(isa, planes, 9, self.from, self.to, dw);
            });
        });
    }

    /// All input and all output channels.
    fn channels(&self) -> Channels {
        ((0, self.from), (0, self.to))
    }

    /// Multiplies the transformed `rows` and transforms back, a block of channels at a time.
    fn multiply_by_channels(&self, isa: Isa, memory: Memory, rows: usize, dw: &mut [f32]) {
        let (from_blocks, to_blocks) = (self.from.div_ceil(BLOCK_FROM), self.to.div_ceil(BLOCK_TO));
        with_scratch(plane_len(isa, 9, self.from, self.to), |planes| {
            let shared = Shared::new(planes);
            for_each(from_blocks * to_blocks, |task| {
                let (from, to) = (task % from_blocks * BLOCK_FROM, task / from_blocks * BLOCK_TO);
                let channels = (
                    (from, (from + BLOCK_FROM).min(self.from)),
                    (to, (to + BLOCK_TO).min(self.to)),
                );
                // As for `Memory`: neighbouring points begin in different cache sets.
                let u_point = BLOCK_FROM * BLOCK_TO + 16;
                with_scratch(POINTS * u_point, |u| {
                    let memory = Memory { u: Shared::new(u), u_row: BLOCK_TO, u_point, ..memory };
                    for point in 0..POINTS {
                        // SAFETY: the rows were transformed by the caller; the products are this
                        // task's own.
                        unsafe {
                            dispatch(isa, Multiply { memory, point, rows, first: true, channels })
                        };
                    }
                    // SAFETY: the products were computed above; tasks write disjoint channels.
                    unsafe {
                        dispatch(
                            isa,
                            TransformBack {
                                from: self.from,
                                memory,
                                channels,
                                origin: (from, to),
                                dw: shared.at(0),
                            },
                        )
                    };
                });
            });
            reduce_weights(isa, planes, 9, self.from, self.to, dw);
        });
    }

    /// Transforms channels `from` of the input and `to` of the output gradient of a block, as rows
    /// from `first` of `v` and `d`.
    ///
    /// # Safety
    /// The tensors hold the images of the grid, `memory` these rows; nothing else accesses these
    /// rows and channels.
    unsafe fn transform(
        &self,
        isa: Isa,
        memory: Memory,
        block: Block,
        first: usize,
        from: (usize, usize),
        to: (usize, usize),
    ) {
        let input = InputTransform {
            grid: self.grid,
            channels: self.from,
            x: self.x.at(0),
            rows: block,
            range: from,
            v: memory.v.at(first * memory.v_row + from.0),
            v_row: memory.v_row,
            v_point: memory.v_point,
        };
        // SAFETY: the caller's.
        unsafe {
            dispatch(isa, input);
            dispatch(isa, OutputGradTransform { problem: self, memory, block, first, range: to });
        }
    }
}

/// `D = A dY A^T`; output pixels outside the image count as zero.
struct OutputGradTransform<'a, E> {
    problem: &'a Problem<E>,
    memory: Memory,
    block: Block,
    first: usize,
    range: (usize, usize),
}

impl<E: Element> Kernel for OutputGradTransform<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see `Problem::transform`.
        unsafe {
            for (row, tile, sample) in self.block.iter() {
                let whole_tile = self.problem.grid.extent(tile) == (OUT, OUT);
                let mut c = self.range.0;
                while c < self.range.1 {
                    if whole_tile && self.range.1 - c >= S::LANES {
                        self.transform_vector::<S, true>(row, tile, sample, c);
                    } else {
                        self.transform_vector::<S, false>(row, tile, sample, c);
                    }
                    c += S::LANES;
                }
            }
        }
    }
}

impl<E: Element> OutputGradTransform<'_, E> {
    /// One vector of channels from `c`. `WHOLE`: neither pixels nor channels of it lie outside the
    /// image.
    #[inline(always)]
    unsafe fn transform_vector<S: Simd, const WHOLE: bool>(
        &self,
        row: usize,
        tile: usize,
        sample: usize,
        c: usize,
    ) {
        use transform::output_grad;
        // SAFETY: see `Problem::transform`.
        unsafe {
            let Problem { grid, to, dy, .. } = *self.problem;
            let (y0, x0) = grid.origin(tile);
            let (tall, wide) = if WHOLE { (OUT, OUT) } else { grid.extent(tile) };
            let lanes = if WHOLE { S::LANES } else { (self.range.1 - c).min(S::LANES) };
            let start = ((y0 * grid.width + x0) * grid.n + sample) * to + c;
            let (down, right) = (grid.width * grid.n * to, grid.n * to);
            let mut rows = [[S::zero(); IN]; OUT];
            for (i, line) in rows.iter_mut().enumerate().take(tall) {
                let mut y = [S::zero(); OUT];
                for (j, value) in y.iter_mut().enumerate().take(wide) {
                    *value = load(dy.at(start + i * down + j * right), lanes);
                }
                *line = output_grad(y);
            }
            let points = columns!(&rows, OUT, IN => IN, output_grad);
            let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
            let at = (panel * self.memory.rows + self.first + row) * S::TILE_COLUMNS + lane;
            for (p, value) in points.as_flattened().iter().enumerate() {
                value.store(self.memory.d.at(p * self.memory.d_point + at));
            }
        }
    }
}

/// `U[point] (+)= V[point]^T * D[point]` over `rows` rows.
struct Multiply {
    memory: Memory,
    point: usize,
    rows: usize,
    /// Whether to overwrite `U`.
    first: bool,
    /// `U` holds these alone. Output channels begin at a whole panel.
    channels: Channels,
}

impl Kernel for Multiply {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: see the callers.
        unsafe {
            let (from, to) = self.channels;
            let memory = &self.memory;
            let u = memory.u.at(self.point * memory.u_point);
            for start in (0..self.rows).step_by(BLOCK_DEPTH) {
                let depth = (self.rows - start).min(BLOCK_DEPTH);
                let mut column = to.0;
                while column < to.1 {
                    let (_, vectors) = panel_extent::<S>(to.1, column);
                    let terms = [Term {
                        a: memory.v.at(self.point * memory.v_point + start * memory.v_row),
                        b: memory.d.at(self.point * memory.d_point
                            + column * memory.rows
                            + start * S::TILE_COLUMNS),
                    }];
                    for (row, rows) in row_blocks::<S>(from.1 - from.0) {
                        let c = u.add(row * memory.u_row + column - to.0);
                        let row = from.0 + row;
                        let tile = Tile::<f32> {
                            terms: &terms,
                            a_offset: row,
                            depth,
                            a_row: 1,
                            a_depth: memory.v_row,
                            b_depth: S::TILE_COLUMNS,
                            c,
                            c_row: memory.u_row,
                            columns: vectors * S::LANES,
                            add: if self.first && start == 0 { std::ptr::null() } else { c },
                            bias: std::ptr::null(),
                            stats: None,
                            norm: None,
                            // Rows are short and far apart, which the processor's own prefetcher
                            // does not follow.
                            prefetch: terms[0]
                                .a
                                .wrapping_add(row + rows - 1 + PREFETCH * memory.v_row),
                            prefetch_step: memory.v_row,
                        };
                        S::tile(rows, vectors, &tile);
                    }
                    column += S::TILE_COLUMNS;
                }
            }
        }
    }
}

/// `dw = G^T U G` for ranges of channels, `[panel][tap][from][TILE_COLUMNS]`.
struct TransformBack {
    /// Input channels of the convolution.
    from: usize,
    memory: Memory,
    channels: Channels,
    /// The channels that `U` begins with.
    origin: (usize, usize),
    dw: *mut f32,
}

impl Kernel for TransformBack {
    type Element = f32;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        use transform::weight_grad;
        // SAFETY: see the callers.
        unsafe {
            let from = self.from;
            let (inputs, outputs) = self.channels;
            for ci in inputs.0..inputs.1 {
                let u_row = self.memory.u.at((ci - self.origin.0) * self.memory.u_row);
                let mut c = outputs.0;
                while c < outputs.1 {
                    let mut rows = [[S::zero(); 3]; IN];
                    for (i, row) in rows.iter_mut().enumerate() {
                        let mut u = [S::zero(); IN];
                        for (j, u) in u.iter_mut().enumerate() {
                            *u = S::load(
                                u_row.add((i * IN + j) * self.memory.u_point + c - self.origin.1),
                            );
                        }
                        *row = weight_grad(u);
                    }
                    let dw = columns!(&rows, IN, 3 => 3, weight_grad);
                    let (panel, lane) = (c / S::TILE_COLUMNS, c % S::TILE_COLUMNS);
                    for (tap, value) in dw.as_flattened().iter().enumerate() {
                        let row = (panel * 9 + tap) * from + ci;
                        value.store(self.dw.add(row * S::TILE_COLUMNS + lane));
                    }
                    c += S::LANES;
                }
            }
        }
    }
}
