use crate::parallel::{Shared, for_each};

/// Sums `partials`, `[chunk][tap][from][to]`, over chunks in order and writes PyTorch's `[to][from][tap]`.
pub(super) fn reduce_weights(partials: &[f32], taps: usize, from: usize, to: usize, dw: &mut [f32]) {
    const BLOCK: usize = 16;
    let plane = taps * from * to;
    let out = Shared::new(dw);
    for_each(from, |ci| {
        let mut sums = vec![0.0f32; taps * BLOCK];
        for co0 in (0..to).step_by(BLOCK) {
            let width = (to - co0).min(BLOCK);
            sums.fill(0.0);
            for chunk in partials.chunks_exact(plane) {
                for tap in 0..taps {
                    let row = (tap * from + ci) * to + co0;
                    for (sum, x) in sums[tap * BLOCK..][..width].iter_mut().zip(&chunk[row..]) {
                        *sum += x;
                    }
                }
            }
            for co in 0..width {
                for tap in 0..taps {
                    // SAFETY: the index is below `to * from * taps = dw.len()`, and only this task writes column `ci`.
                    unsafe {
                        *out.at(((co0 + co) * from + ci) * taps + tap) = sums[tap * BLOCK + co];
                    }
                }
            }
        }
    });
}
