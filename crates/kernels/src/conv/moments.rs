//! Statistics of a convolution's result, from the partial sums of its tasks.

use super::epilogue::Moments;
use crate::buffer::with_scratch;
use crate::channels::Spread;
use crate::parallel::Shared;

/// Runs a convolution whose tasks write shifted partial sums, and merges them into mean and biased
/// variance.
///
/// `counts[t]` is the number of outputs per channel of task `t`. Partial sums are `[task][3][C]`:
/// shift, sum of `y - shift`, sum of `(y - shift)^2`. Shifting by one of the task's own values
/// keeps a large mean from cancelling the variance; partials are merged in `f64` in task order.
pub(super) fn collect(
    counts: &[usize],
    channels: usize,
    moments: Moments<'_>,
    run: impl FnOnce(Shared),
) {
    with_scratch(counts.len() * 3 * channels, |partials| {
        partials.fill(0.0);
        run(Shared::new(partials));
        for c in 0..channels {
            let mut spread = Spread::default();
            for (task, &count) in partials.chunks_exact(3 * channels).zip(counts) {
                let (sum, square) = (task[channels + c], task[2 * channels + c]);
                spread.merge(count, task[c], f64::from(sum), f64::from(square));
            }
            (moments.mean[c], moments.variance[c]) = spread.moments();
        }
    });
}
