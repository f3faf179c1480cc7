//! Per-channel parameters and sums over `[rows][C]` tensors.
//!
//! `C` may be small or odd, so parameters and accumulators are repeated to a *period* of whole rows
//! that is long enough for the compiler's vector loops; tensors are then processed period by
//! period.

use crate::parallel::block_size;
use crate::parallel::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, expect_len, parameter};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// Least number of elements of a period.
const MIN_PERIOD: usize = block_size(256, 16);
/// Elements that one task aims for.
const CHUNK: usize = block_size(1 << 16, 32);

/// Number of elements of a period for `channels` channels: a multiple of `channels`.
pub(crate) fn period(channels: usize) -> usize {
    channels * MIN_PERIOD.div_ceil(channels)
}

/// Number of elements that one task processes: a whole number of periods.
pub(crate) fn chunk(channels: usize) -> usize {
    let period = period(channels);
    period * (CHUNK / period).max(1)
}

/// Repeats a per-channel parameter over a period.
pub(crate) fn repeat(values: impl ExactSizeIterator<Item = f32> + Clone) -> Vec<f32> {
    let channels = values.len();
    values.cycle().take(period(channels)).collect()
}

/// Checks that `len` elements are whole rows of `channels`.
pub(crate) fn expect_rows(
    what: &'static str,
    len: usize,
    channels: usize,
) -> Result<(), ShapeError> {
    if channels == 0 {
        return Err(parameter(what, "needs at least one channel"));
    }
    if !len.is_multiple_of(channels) {
        return Err(parameter(
            what,
            format!("{len} elements are not whole rows of {channels} channels"),
        ));
    }
    Ok(())
}

/// Two sums over the rows of one chunk, accumulated element by element over periods.
pub(crate) trait Accumulate: Copy + Send + Sync {
    /// How the tensor is stored.
    type Element: Element;

    /// Adds one period (or its beginning) of the tensor, at offset `at`, to `first` and `second`,
    /// which are equally long. Implementations are `#[inline(always)]`, so that they compile for
    /// the instruction set.
    ///
    /// # Safety
    /// The features of `S` are enabled, and the tensor holds `first.len()` elements from `at` on.
    unsafe fn add<S: Simd>(self, at: usize, first: &mut [f32], second: &mut [f32]);
}

struct AccumulateChunk<'a, A> {
    accumulate: A,
    start: usize,
    end: usize,
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl<A: Accumulate> Kernel for AccumulateChunk<'_, A> {
    type Element = A::Element;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut at = self.start;
        while at < self.end {
            let len = self.first.len().min(self.end - at);
            // SAFETY: the caller enabled the features of `S`; each period lies inside the tensor.
            unsafe {
                self.accumulate.add::<S>(at, &mut self.first[..len], &mut self.second[..len])
            };
            at += len;
        }
    }
}

/// Returns both sums of every chunk, per channel, in chunk order. Sums within a chunk are short and
/// computed in `f32`; sums over them are computed in `f64`.
pub(crate) fn chunk_sums<A: Accumulate>(
    isa: Isa,
    len: usize,
    channels: usize,
    accumulate: impl Fn(usize) -> A + Sync,
) -> Vec<(Vec<f64>, Vec<f64>)> {
    let (period, chunk) = (period(channels), chunk(channels));
    (0..len.div_ceil(chunk))
        .into_par_iter()
        .map(|index| {
            let start = index * chunk;
            let mut first = vec![0.0f32; period];
            let mut second = vec![0.0f32; period];
            let kernel = AccumulateChunk {
                accumulate: accumulate(start),
                start,
                end: (start + chunk).min(len),
                first: &mut first,
                second: &mut second,
            };
            // SAFETY: `AccumulateChunk::run` needs nothing but the features, which `dispatch`
            // checks.
            unsafe { dispatch(isa, kernel) };
            (fold(&first, channels), fold(&second, channels))
        })
        .collect()
}

/// Sums the repetitions of each channel in a period.
fn fold(period: &[f32], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; channels];
    for row in period.chunks_exact(channels) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    sums
}

/// Mean and sum of squared deviations of a set of values, merged pairwise. Source: T. F. Chan, G.
/// H. Golub and R. J. LeVeque, "Algorithms for Computing the Sample Variance", The American
/// Statistician, 1983.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    count: f64,
    mean: f64,
    deviation: f64,
}

impl Spread {
    /// Merges `count` values with the given sums of `x - shift` and `(x - shift)^2`.
    pub(crate) fn merge(&mut self, count: usize, shift: f32, sum: f64, square: f64) {
        if count == 0 {
            return;
        }
        let k = count as f64;
        let delta = f64::from(shift) + sum / k - self.mean;
        let total = self.count + k;
        self.deviation += square - sum * sum / k + delta * delta * self.count * k / total;
        self.mean += delta * k / total;
        self.count = total;
    }

    /// Mean and biased variance; both are zero for an empty set.
    pub(crate) fn moments(&self) -> (f32, f32) {
        if self.count == 0.0 {
            return (0.0, 0.0);
        }
        let variance = self.deviation / self.count;
        // `max` would turn NaN into 0 and hide a diverged network.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        (self.mean as f32, variance as f32)
    }
}

#[derive(Clone, Copy)]
struct Sum<'a, E> {
    x: &'a [E],
}

impl<E: Element> Accumulate for Sum<'_, E> {
    type Element = E;

    #[inline(always)]
    unsafe fn add<S: Simd>(self, at: usize, first: &mut [f32], _: &mut [f32]) {
        for (sum, x) in first.iter_mut().zip(&self.x[at..]) {
            *sum += x.widen();
        }
    }
}

/// `sums[c] = sum over rows of x[row][c]`, for example the gradient of a bias.
///
/// # Errors
/// [`ShapeError`] when `x` is not whole rows of `sums.len()` channels.
#[inline(never)]
pub fn channel_sums<E: Element>(isa: Isa, x: &[E], sums: &mut [f32]) -> Result<(), ShapeError> {
    let channels = sums.len();
    expect_rows("channel sums", x.len(), channels)?;
    let chunks = chunk_sums(isa, x.len(), channels, |_| Sum { x });
    for (c, sum) in sums.iter_mut().enumerate() {
        *sum = chunks.iter().map(|(first, _)| first[c]).sum::<f64>() as f32;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Shifted<'a, E> {
    x: &'a [E],
    shift: &'a [E],
    channels: usize,
}

impl<E: Element> Accumulate for Shifted<'_, E> {
    type Element = E;

    #[inline(always)]
    unsafe fn add<S: Simd>(self, at: usize, first: &mut [f32], second: &mut [f32]) {
        let len = first.len();
        let rows = self.x[at..at + len]
            .chunks_exact(self.channels)
            .zip(first.chunks_exact_mut(self.channels))
            .zip(second.chunks_exact_mut(self.channels));
        for ((x, sum), square) in rows {
            for (((x, shift), sum), square) in x.iter().zip(self.shift).zip(sum).zip(square) {
                let d = x.widen() - shift.widen();
                *sum += d;
                *square += d * d;
            }
        }
    }
}

/// Mean and biased variance of each channel of `x`, `[rows][C]`.
///
/// Sums are shifted by a value of each chunk and merged in `f64`, so a large mean does not cancel
/// the variance.
///
/// # Errors
/// [`ShapeError`] when `variance` has another length than `mean`, or `x` is not whole rows of that
/// many channels.
#[inline(never)]
pub fn channel_moments<E: Element>(
    isa: Isa,
    x: &[E],
    mean: &mut [f32],
    variance: &mut [f32],
) -> Result<(), ShapeError> {
    let channels = mean.len();
    expect_rows("channel moments", x.len(), channels)?;
    expect_len("variance", variance.len(), channels)?;
    let chunks = chunk_sums(isa, x.len(), channels, |start| Shifted {
        x,
        shift: &x[start..start + channels],
        channels,
    });
    let chunk = chunk(channels);
    for c in 0..channels {
        let mut spread = Spread::default();
        for (index, (sum, square)) in chunks.iter().enumerate() {
            let start = index * chunk;
            let rows = (x.len() - start).min(chunk) / channels;
            spread.merge(rows, x[start + c].widen(), sum[c], square[c]);
        }
        (mean[c], variance[c]) = spread.moments();
    }
    Ok(())
}
