//! The highest rate of the processor's arithmetic when no memory is involved.

use std::hint::black_box;
use std::iter;
use std::time::Instant;

use super::record::BenchRecord;
use crate::error::ShapeError;
use crate::isa::Isa;
use crate::parallel;
use crate::simd::{Kernel, Simd, dispatch};

/// Shortest time of `run` in seconds, repeated for `budget` seconds and at least three times.
pub(super) fn best(
    budget: f64,
    mut run: impl FnMut() -> Result<(), ShapeError>,
) -> Result<f64, ShapeError> {
    let start = Instant::now();
    let (mut best, mut count) = (f64::INFINITY, 0);
    while count < 3 || start.elapsed().as_secs_f64() < budget {
        let t = Instant::now();
        run()?;
        best = best.min(t.elapsed().as_secs_f64());
        count += 1;
    }
    Ok(best.max(1e-9))
}

/// Number of independent sums, enough to hide the latency of an operation.
const CHAINS: usize = 12;
/// Operations on each of the sums.
const ROUNDS: usize = 100_000;

/// A kernel of fused multiply-adds on registers alone; it returns the number of operations.
struct Fma;

impl Kernel for Fma {
    type Element = f32;
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        // SAFETY: the caller enabled the features of `S`, and register arithmetic touches no
        // memory.
        unsafe {
            let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(1e-3)));
            let mut sums = [b; CHAINS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = sum.mul_add(a, b);
                }
            }
            for sum in sums {
                let mut lanes = [0.0f32; 16];
                sum.store(lanes.as_mut_ptr());
                black_box(lanes);
            }
        }
        2 * ROUNDS * CHAINS * S::LANES
    }
}

/// Measures the rate of `operations` when every thread of the pool runs them at once.
fn peak(
    instruction: &'static str,
    seconds: f64,
    operations: impl Fn() -> usize + Sync,
) -> Result<BenchRecord, ShapeError> {
    let threads = parallel::threads();
    let count = operations();
    let time = best(seconds, || {
        parallel::on_every_thread(|| {
            black_box(operations());
        });
        Ok(())
    })?;
    Ok(BenchRecord::Peak { instruction, threads, gflops: (count * threads) as f64 / time / 1e9 })
}

/// Measures the peaks of the instructions that `isa` has: of `f32`, then of bf16.
///
/// # Errors
/// None today: the result has the type that all measurements return.
pub fn peaks(isa: Isa, seconds: f64) -> Result<Vec<BenchRecord>, ShapeError> {
    // SAFETY: `Fma::run` needs nothing but the features, which `dispatch` checks.
    let fma = peak("fma", seconds, || unsafe { dispatch(isa, Fma) })?;
    Ok(iter::once(fma).chain(bf16_peaks(isa, seconds)?).collect())
}

/// Measures the peaks of the products of bf16 pairs that `isa` has.
#[cfg(target_arch = "x86_64")]
fn bf16_peaks(isa: Isa, seconds: f64) -> Result<Vec<BenchRecord>, ShapeError> {
    let mut peaks = Vec::new();
    if matches!(isa, Isa::Avx512Bf16 | Isa::Amx) && isa.is_available() {
        // SAFETY: the condition above has found AVX-512 with its bf16 extension.
        peaks.push(peak("vdpbf16ps", seconds, || unsafe { crate::pair_tile::pair_peak(ROUNDS) })?);
    }
    if isa == Isa::Amx && isa.is_available() {
        // SAFETY: the condition above has found the tile instructions.
        peaks.push(peak("tdpbf16ps", seconds, || unsafe { crate::amx::peak(1000) })?);
    }
    Ok(peaks)
}

/// There are none on other architectures.
#[cfg(not(target_arch = "x86_64"))]
fn bf16_peaks(_: Isa, _: f64) -> Result<Vec<BenchRecord>, ShapeError> {
    Ok(Vec::new())
}
