use super::Moments;
use crate::buffer::with_scratch;
use crate::parallel::Shared;

/// Runs a convolution whose tasks write shifted partial sums, and merges them into mean and biased variance.
///
/// `counts[t]` is the number of outputs per channel of task `t`. Partial sums are `[task][3][C]`: shift, sum of
/// `y - shift`, sum of `(y - shift)^2`. Shifting by one of the task's own values keeps a large mean from cancelling
/// the variance; partials are merged in `f64` in task order (Chan, Golub and LeVeque, 1983).
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
            let (mut count, mut mean, mut m2) = (0.0f64, 0.0f64, 0.0f64);
            for (task, &k) in partials.chunks_exact(3 * channels).zip(counts) {
                if k == 0 {
                    continue;
                }
                let k = k as f64;
                let (shift, sum, square) = (
                    f64::from(task[c]),
                    f64::from(task[channels + c]),
                    f64::from(task[2 * channels + c]),
                );
                let delta = shift + sum / k - mean;
                let total = count + k;
                m2 += square - sum * sum / k + delta * delta * count * k / total;
                mean += delta * k / total;
                count = total;
            }
            moments.mean[c] = mean as f32;
            // `max` would turn NaN into 0 and hide a diverged network.
            let variance = m2 / count;
            moments.variance[c] = if variance < 0.0 { 0.0 } else { variance as f32 };
        }
    });
}
