//! The most that the arithmetic can do, without memory.

use std::hint::black_box;
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

/// Independent sums, enough to hide the latency of an operation.
const CHAINS: usize = 12;
/// Operations on each of them.
const ROUNDS: usize = 100_000;

/// Fused multiply-adds on registers alone; the number of operations.
struct Fma;

impl Kernel for Fma {
    type Element = f32;
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        // SAFETY: the features are those of the instruction set.
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

/// Rate of `operations` run on every thread of the pool at once.
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

/// The peaks of the instructions that `isa` has: that of `f32`, then that of bf16.
///
/// # Errors
/// Never for an instruction set that the machine has.
pub fn peaks(isa: Isa, seconds: f64) -> Result<Vec<BenchRecord>, ShapeError> {
    // SAFETY: the kernel has no conditions of its own.
    let mut peaks = vec![peak("fma", seconds, || unsafe { dispatch(isa, Fma) })?];
    #[cfg(target_arch = "x86_64")]
    if matches!(isa, Isa::Avx512Bf16 | Isa::Amx) && isa.is_available() {
        // SAFETY: the instruction set has just been found.
        peaks.push(peak("vdpbf16ps", seconds, || unsafe { crate::pair_tile::pair_peak(ROUNDS) })?);
    }
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && isa.is_available() {
        // SAFETY: the instruction set has just been found.
        peaks.push(peak("tdpbf16ps", seconds, || unsafe { crate::amx::peak(1000) })?);
    }
    Ok(peaks)
}
