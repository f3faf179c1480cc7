use crate::isa::Isa;
use crate::parallel::{Shared, for_each};
use crate::simd;

/// Input channels of a task.
const FROM: usize = 16;

/// Elements of one chunk of partial gradients, `[panel][tap][from][TILE_COLUMNS]`.
pub(super) fn plane_len(isa: Isa, taps: usize, from: usize, to: usize) -> usize {
    taps * from * to.next_multiple_of(simd::tile_columns(isa))
}

/// Sums `partials`, `[chunk][panel][tap][from][TILE_COLUMNS]`, over chunks in order and writes PyTorch's
/// `[to][from][tap]`. Columns beyond `to` are ignored.
pub(super) fn reduce_weights(isa: Isa, partials: &[f32], taps: usize, from: usize, to: usize, dw: &mut [f32]) {
    let columns = simd::tile_columns(isa);
    let plane = plane_len(isa, taps, from, to);
    let out = Shared::new(dw);
    let blocks = from.div_ceil(FROM);
    for_each(to.div_ceil(columns) * blocks, |task| {
        let (panel, block) = (task / blocks, task % blocks);
        let (first, width) = (panel * columns, (to - panel * columns).min(columns));
        let start = block * FROM;
        let count = (from - start).min(FROM);
        // `[from][tap][TILE_COLUMNS]`
        let mut sums = vec![0.0f32; count * taps * columns];
        for tap in 0..taps {
            let at = ((panel * taps + tap) * from + start) * columns;
            for chunk in partials.chunks_exact(plane) {
                for (ci, row) in chunk[at..at + count * columns].chunks_exact(columns).enumerate() {
                    for (sum, x) in sums[(ci * taps + tap) * columns..][..columns].iter_mut().zip(row) {
                        *sum += x;
                    }
                }
            }
        }
        // Output channels outermost: each is one contiguous run, and every run lies on a page of its own.
        for co in 0..width {
            let run = ((first + co) * from + start) * taps;
            for (i, row) in sums.chunks_exact(columns).enumerate() {
                // SAFETY: the index is below `to * from * taps = dw.len()`; tasks write disjoint channels.
                unsafe { *out.at(run + i) = row[co] };
            }
        }
    });
}
