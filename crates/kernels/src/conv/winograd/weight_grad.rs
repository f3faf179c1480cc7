//! Weight gradient of 3x3 convolutions with stride 1 by Winograd: `dw = G^T [sum over rows of (B^T
//! d B)^T (A dY A^T)] G`, a matrix product over rows for each of the 36 points.
//!
//! With few channels, each task takes a chunk of rows through all steps, and its products stay in
//! the second-level cache. With many channels the products would not stay there. All rows of a
//! section are therefore transformed first; then each point is multiplied by a task of its own,
//! which keeps its products in registers over the whole section. Where one section holds all rows
//! (small images), each task instead takes a block of channels through all points and back.

use std::marker::PhantomData;

use super::grid::{Block, Grid};
use super::input_transform::InputTransform;
use super::transform::{F4, Tiling};
use super::weight_kernels::{
    Channels, Memory, Multiply, OutputGradTransform, TransformBack, Write,
};
use crate::buffer::with_scratch;
use crate::conv::pass::WeightPass;
use crate::conv::reduce::{plane_len, reduce_weights};
use crate::element::Element;
use crate::isa::Isa;
use crate::parallel::{Shared, block_size, for_each};
use crate::simd::{self, dispatch};

/// Number of products of a tile.
const POINTS: usize = F4::POINTS;
/// Rows that are transformed at a time.
const BLOCK_ROWS: usize = block_size(32, 5);
/// Largest number of channels for which a task keeps all products.
const FUSED_CHANNELS: usize = block_size(64, 4);
/// Number of tasks of the fused form, enough to keep many cores busy.
const FUSED_TASKS: usize = block_size(64, 2);
/// Least number of blocks of rows of a fused task: fewer do not pay for its transform back.
const FUSED_MIN_BLOCKS: usize = block_size(8, 1);
/// Floats that the transformed rows of a section may take, so that they stay in the last-level
/// cache.
const SECTION: usize = block_size(3 << 20, 1);
/// Least number of blocks of rows of a section: fewer would load and store the products too often.
const SECTION_MIN_BLOCKS: usize = block_size(4, 1);
/// Most input and output channels of a task that takes all points: its products then stay in the
/// second-level cache.
const BLOCK_FROM: usize = block_size(28, 4);
const BLOCK_TO: usize = block_size(128, 8);
/// Channels that one task transforms.
const TRANSFORM_CHANNELS: usize = block_size(128, 8);
/// Input channels that one task transforms back.
const BACK_CHANNELS: usize = block_size(16, 4);

/// Computes `pass` and writes to `dw`, which has the length of the weights.
pub(in crate::conv) fn weight_grad<E: Element>(pass: &WeightPass<'_, E>, dw: &mut [f32]) {
    let WeightPass { geometry, isa, n, x, dy, .. } = *pass;
    let (from, to) = (geometry.in_channels, geometry.out_channels);
    let problem = Problem { grid: Grid::new::<F4>(geometry, n, BLOCK_ROWS), isa, from, to, x, dy };
    if from.max(to) <= FUSED_CHANNELS {
        problem.run_fused(dw);
    } else {
        problem.run_sections(dw);
    }
}

/// A weight gradient. `WeightPass` guarantees that `x` and `dy` hold the images of the grid with
/// `from` and `to` channels.
#[derive(Clone, Copy)]
struct Problem<E> {
    grid: Grid,
    isa: Isa,
    from: usize,
    to: usize,
    x: Shared<E>,
    dy: Shared<E>,
}

impl<E: Element> Problem<E> {
    /// The sizes of `v`, `d` and `u` for `rows` rows, and their strides.
    fn memory(&self, rows: usize) -> ([usize; 3], Memory) {
        let columns = self.to.next_multiple_of(simd::tile_columns(self.isa));
        // Rows whose length is a power of two would compete for the same cache sets.
        let v_row = self.from.next_multiple_of(simd::lanes(self.isa)) + 16;
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

    /// Calls `f` with memory for `rows` rows and their products.
    fn with_memory(&self, rows: usize, f: impl FnOnce(Memory)) {
        let (lens, memory) = self.memory(rows);
        with_memory(lens, memory, f);
    }

    /// Calls `f` with memory for `rows` rows and without memory for products.
    fn with_row_memory(&self, rows: usize, f: impl FnOnce(Memory)) {
        let ([v_len, d_len, _], memory) = self.memory(rows);
        with_memory([v_len, d_len, 0], memory, f);
    }

    /// Each task takes a chunk of rows through all steps.
    fn run_fused(&self, dw: &mut [f32]) {
        let blocks = self.grid.blocks();
        let chunks = FUSED_TASKS.min(blocks.div_ceil(FUSED_MIN_BLOCKS));
        let chunk_blocks = blocks.div_ceil(chunks);
        let chunks = blocks.div_ceil(chunk_blocks);
        let plane = plane_len(self.isa, 9, self.from, self.to);
        with_scratch(chunks * plane, |partials| {
            let shared = Shared::new(partials);
            for_each(chunks, |chunk| {
                self.with_memory(self.grid.block_rows(), |memory| {
                    let first = chunk * chunk_blocks;
                    for index in first..(first + chunk_blocks).min(blocks) {
                        let block = self.grid.block(index);
                        let write = Write::of(index == first);
                        // SAFETY: the memory holds one block of rows, and only this task has it.
                        unsafe {
                            self.transform(memory, block, 0, self.channels());
                            self.multiply_points(memory, block.rows(), write, self.channels());
                        }
                    }
                    // SAFETY: the products were computed above, and only this task writes its
                    // chunk.
                    unsafe { self.back(memory, self.channels(), (0, 0), shared.at(chunk * plane)) };
                });
            });
            reduce_weights(self.isa, partials, 9, self.from, self.to, dw);
        });
    }

    /// Transforms all rows of a section, then multiplies each point in a task of its own.
    fn run_sections(&self, dw: &mut [f32]) {
        let blocks = self.grid.blocks();
        let block_rows = self.grid.block_rows();
        let block_len = POINTS * block_rows * (self.from + self.to);
        let section_blocks = (SECTION / block_len).max(SECTION_MIN_BLOCKS).min(blocks);
        let sections = blocks.div_ceil(section_blocks);
        // All sections have about the same size.
        let section_blocks = blocks.div_ceil(sections);
        if sections == 1 {
            return self.with_row_memory(blocks * block_rows, |memory| {
                let rows = self.transform_section(memory, 0, blocks);
                self.multiply_by_channels(memory, rows, dw);
            });
        }
        self.with_memory(section_blocks * block_rows, |memory| {
            for section in 0..sections {
                let first = section * section_blocks;
                let count = (blocks - first).min(section_blocks);
                let rows = self.transform_section(memory, first, count);
                let (write, channels) = (Write::of(section == 0), self.channels());
                for_each(POINTS, |point| {
                    let kernel = Multiply { memory, point, rows, write, channels };
                    // SAFETY: the rows were transformed above, and each task writes the products of
                    // its own point.
                    unsafe { dispatch(self.isa, kernel) };
                });
            }
            with_scratch(plane_len(self.isa, 9, self.from, self.to), |planes| {
                let shared = Shared::new(planes);
                for_each(self.from.div_ceil(BACK_CHANNELS), |task| {
                    let channels = (range(task, BACK_CHANNELS, self.from), (0, self.to));
                    // SAFETY: the products were computed above, and tasks write disjoint channels.
                    unsafe { self.back(memory, channels, (0, 0), shared.at(0)) };
                });
                reduce_weights(self.isa, planes, 9, self.from, self.to, dw);
            });
        });
    }

    /// Transforms `count` blocks from `first` on to the rows of `memory`, which has room for them.
    /// Returns the number of these rows.
    fn transform_section(&self, memory: Memory, first: usize, count: usize) -> usize {
        let channel_blocks = self.from.max(self.to).div_ceil(TRANSFORM_CHANNELS);
        // Records where the rows of each block start, because blocks at the edge of the batch are
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
            let channels =
                [self.from, self.to].map(|count| range(channel_block, TRANSFORM_CHANNELS, count));
            // SAFETY: the memory holds the rows of a section, and tasks write disjoint rows or
            // channels.
            unsafe { self.transform(memory, block, starts[index], channels.into()) };
        });
        rows
    }

    /// All input and all output channels.
    fn channels(&self) -> Channels {
        ((0, self.from), (0, self.to))
    }

    /// Multiplies the transformed `rows` and transforms the products back, one block of channels at
    /// a time.
    fn multiply_by_channels(&self, memory: Memory, rows: usize, dw: &mut [f32]) {
        let (from_blocks, to_blocks) = (self.from.div_ceil(BLOCK_FROM), self.to.div_ceil(BLOCK_TO));
        with_scratch(plane_len(self.isa, 9, self.from, self.to), |planes| {
            let shared = Shared::new(planes);
            for_each(from_blocks * to_blocks, |task| {
                let from = range(task % from_blocks, BLOCK_FROM, self.from);
                let to = range(task / from_blocks, BLOCK_TO, self.to);
                // As in `Memory`, neighbouring points begin in different cache sets.
                let u_point = BLOCK_FROM * BLOCK_TO + 16;
                with_scratch(POINTS * u_point, |u| {
                    let memory = Memory { u: Shared::new(u), u_row: BLOCK_TO, u_point, ..memory };
                    // SAFETY: the caller has transformed the rows; the products and the channels
                    // are this task's own.
                    unsafe {
                        self.multiply_points(memory, rows, Write::Fresh, (from, to));
                        self.back(memory, (from, to), (from.0, to.0), shared.at(0));
                    }
                });
            });
            reduce_weights(self.isa, planes, 9, self.from, self.to, dw);
        });
    }

    /// Transforms channels of the input and of the output gradient of a block, and writes them as
    /// the rows from `first` on of `v` and `d`.
    ///
    /// # Safety
    /// `memory` holds these rows, and nothing else accesses these rows and channels.
    unsafe fn transform(&self, memory: Memory, block: Block, first: usize, (from, to): Channels) {
        let input = InputTransform {
            tiling: PhantomData::<F4>,
            grid: self.grid,
            channels: self.from,
            x: self.x.at(0),
            rows: block,
            range: from,
            v: memory.v.at(first * memory.v_row + from.0),
            v_row: memory.v_row,
            v_point: memory.v_point,
        };
        let gradient = OutputGradTransform {
            grid: self.grid,
            to: self.to,
            dy: self.dy,
            memory,
            block,
            first,
            range: to,
        };
        // SAFETY: the tensors hold the images of the grid; the caller promises that `memory` holds
        // the rows and that nothing else accesses them.
        unsafe {
            dispatch(self.isa, input);
            dispatch(self.isa, gradient);
        }
    }

    /// Multiplies the transformed `rows` at every point.
    ///
    /// # Safety
    /// The rows have been transformed, and nothing else accesses these products.
    unsafe fn multiply_points(
        &self,
        memory: Memory,
        rows: usize,
        write: Write,
        channels: Channels,
    ) {
        for point in 0..POINTS {
            // SAFETY: the caller promises transformed rows, and products that nothing else
            // accesses.
            unsafe {
                dispatch(self.isa, Multiply { memory, point, rows, write, channels });
            }
        }
    }

    /// Transforms products back to gradients; `origin` holds the first input and output channel of
    /// `u`.
    ///
    /// # Safety
    /// The products have been computed, and nothing else accesses these channels of `dw`.
    unsafe fn back(
        &self,
        memory: Memory,
        channels: Channels,
        origin: (usize, usize),
        dw: *mut f32,
    ) {
        let kernel = TransformBack { from: self.from, memory, channels, origin, dw };
        // SAFETY: the caller promises computed products, and channels of `dw` that nothing else
        // accesses.
        unsafe { dispatch(self.isa, kernel) };
    }
}

/// Returns part `index` of `len`, cut into parts of `size`; the range is empty beyond the end.
fn range(index: usize, size: usize, len: usize) -> (usize, usize) {
    ((index * size).min(len), ((index + 1) * size).min(len))
}

/// Calls `f` with `memory` that has the given numbers of floats for `v`, `d` and `u`.
fn with_memory([v_len, d_len, u_len]: [usize; 3], memory: Memory, f: impl FnOnce(Memory)) {
    with_scratch(v_len + d_len + u_len, |scratch| {
        let (v, rest) = scratch.split_at_mut(v_len);
        let (d, u) = rest.split_at_mut(d_len);
        f(Memory { v: Shared::new(v), d: Shared::new(d), u: Shared::new(u), ..memory });
    });
}
