//! Sums the partial gradients of tasks.

use crate::isa::Isa;
use crate::parallel::{Shared, block_size, for_each};
use crate::simd;

/// Input channels that one task sums, times the taps: so long are the runs that it writes.
const RUN: usize = block_size(144, 4);
/// Least input channels that one task sums.
const FROM: usize = block_size(16, 4);

/// Number of elements of one chunk of partial gradients, `[panel][tap][from][TILE_COLUMNS]`.
pub(super) fn plane_len(isa: Isa, taps: usize, from: usize, to: usize) -> usize {
    taps * from * to.next_multiple_of(simd::tile_columns(isa))
}

/// Most floats that the partial gradients may take; larger numbers of chunks are merged into longer
/// chunks.
const MAX_PARTIALS: usize = 4 << 20;

/// A weight gradient cut into tasks: one task for each chunk of units and each block of input and
/// output channels.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    channels: [usize; 2],
    /// Input and output channels of a block.
    block: [usize; 2],
    /// Number of blocks of input and output channels.
    blocks: [usize; 2],
    units: usize,
    pub chunks: usize,
    /// Number of units of a chunk.
    chunk_units: usize,
}

/// One task of a [`Cut`]: ranges of units, input and output channels.
pub(super) struct Task {
    pub chunk: usize,
    pub units: (usize, usize),
    pub from_range: (usize, usize),
    pub to_range: (usize, usize),
}

impl Cut {
    /// Cuts `units` (at least one) of input and output `channels` into about `aim` tasks, whose
    /// partial gradients take `plane` floats a chunk.
    pub(super) fn new(
        channels: [usize; 2],
        block: [usize; 2],
        units: usize,
        plane: usize,
        aim: usize,
    ) -> Self {
        let blocks = [channels[0].div_ceil(block[0]), channels[1].div_ceil(block[1])];
        let chunks = aim
            .div_ceil(blocks[0] * blocks[1])
            .min((MAX_PARTIALS / plane.max(1)).max(1))
            .min(units);
        let chunk_units = units.div_ceil(chunks);
        Self { channels, block, blocks, units, chunks: units.div_ceil(chunk_units), chunk_units }
    }

    pub(super) fn tasks(&self) -> usize {
        self.chunks * self.blocks[0] * self.blocks[1]
    }

    pub(super) fn task(&self, task: usize) -> Task {
        let blocks = self.blocks[0] * self.blocks[1];
        let (chunk, block) = (task / blocks, task % blocks);
        let range =
            |index: usize, size: usize, len: usize| (index * size, ((index + 1) * size).min(len));
        Task {
            chunk,
            units: range(chunk, self.chunk_units, self.units),
            from_range: range(block / self.blocks[1], self.block[0], self.channels[0]),
            to_range: range(block % self.blocks[1], self.block[1], self.channels[1]),
        }
    }
}

/// Sums `partials`, `[chunk][panel][tap][from][TILE_COLUMNS]`, over chunks in order and writes
/// PyTorch's `[to][from][tap]`. Columns beyond `to` are ignored.
pub(super) fn reduce_weights(
    isa: Isa,
    partials: &[f32],
    taps: usize,
    from: usize,
    to: usize,
    dw: &mut [f32],
) {
    let columns = simd::tile_columns(isa);
    let plane = plane_len(isa, taps, from, to);
    let out = Shared::new(dw);
    let block_from = (RUN / taps.max(1)).max(FROM);
    let blocks = from.div_ceil(block_from);
    for_each(to.div_ceil(columns) * blocks, |task| {
        let (panel, block) = (task / blocks, task % blocks);
        let (first, width) = (panel * columns, (to - panel * columns).min(columns));
        let start = block * block_from;
        let count = (from - start).min(block_from);
        // `[from][tap][TILE_COLUMNS]`
        let mut sums = vec![0.0f32; count * taps * columns];
        for tap in 0..taps {
            let at = ((panel * taps + tap) * from + start) * columns;
            for chunk in partials.chunks_exact(plane) {
                for (ci, row) in chunk[at..at + count * columns].chunks_exact(columns).enumerate() {
                    for (sum, x) in
                        sums[(ci * taps + tap) * columns..][..columns].iter_mut().zip(row)
                    {
                        *sum += x;
                    }
                }
            }
        }
        // The loop over output channels is outermost, because each output channel is one contiguous
        // run and every run lies on a page of its own.
        for co in 0..width {
            let run = ((first + co) * from + start) * taps;
            for (i, row) in sums.chunks_exact(columns).enumerate() {
                // SAFETY: the index is below `to * from * taps`, the length of `dw`; tasks write
                // disjoint channels.
                unsafe { *out.at(run + i) = row[co] };
            }
        }
    });
}
