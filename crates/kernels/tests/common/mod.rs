//! Plain `f64` references and helpers shared by the tests.
#![allow(dead_code, reason = "each test binary uses some of these")]

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
pub mod amx;

use sora_kernels::conv::ConvGeometry;
use sora_kernels::{Element, ElementType, Isa};

/// Largest relative error of rounding to bf16, which has 8 significant bits.
pub const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// The instruction sets to test, an emulated one among them where the processor lacks AMX.
pub fn instruction_sets() -> Vec<Isa> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    return amx::instruction_sets();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
    Isa::available().collect()
}

/// Those on which `E` runs code of its own.
pub fn distinct_instruction_sets<E: Element>() -> Vec<Isa> {
    let same = |isa| E::PRECISION == ElementType::F32 && matches!(isa, Isa::Amx | Isa::Avx512Bf16);
    instruction_sets().into_iter().filter(|&isa| !same(isa)).collect()
}

/// `all` of the cases; under Miri, where a step takes a thousand times as long, `few` that take the
/// same ways.
pub fn cases<T: Copy>(all: &[T], few: &[T]) -> Vec<T> {
    if cfg!(miri) { few } else { all }.to_vec()
}

/// As [`values`], rounded to `E`.
pub fn values_as<E: Element>(len: usize, seed: u64, mean: f32) -> Vec<E> {
    narrowed(&values(len, seed, mean))
}

pub fn narrowed<E: Element>(x: &[f32]) -> Vec<E> {
    x.iter().map(|&x| E::from_f32(x)).collect()
}

pub fn widened<E: Element>(x: &[E]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Fails unless every element is within its own rounding to `E`, and `tolerance` times the largest
/// magnitude of `expected` for the arithmetic before it.
#[track_caller]
pub fn assert_rounded<E: Element>(what: &str, actual: &[E], expected: &[f64], tolerance: f64) {
    let rounding = match E::PRECISION {
        ElementType::F32 => return assert_close(what, &widened(actual), expected, tolerance),
        ElementType::Bf16 => BF16_ROUNDING,
    };
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    for (i, (a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(a.to_f32()) - e).abs();
        let allowed = rounding * e.abs() + tolerance * scale;
        assert!(
            error <= allowed,
            "{what}[{i}]: {a:?} differs from {e} by {error:e}, more than {allowed:e}"
        );
    }
}

/// Deterministic values of unit scale around `mean`.
pub fn values(len: usize, seed: u64, mean: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0 + mean
        })
        .collect()
}

/// Fails unless every element of `actual` is within `tolerance` times the largest magnitude of
/// `expected`.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - e).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}[{i}]: {a} differs from {e} by {error:e} of the scale {scale:e}, more than {tolerance:e}"
        );
    }
}

/// Reference convolution: calls `term(y index, x index, w index)` for every product.
pub fn for_each_term(geometry: &ConvGeometry, n: usize, mut term: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = geometry.output();
    let (gi, go) =
        (geometry.in_channels / geometry.groups, geometry.out_channels / geometry.groups);
    for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
        for (ky, kx) in
            (0..geometry.kernel[0]).flat_map(|y| (0..geometry.kernel[1]).map(move |x| (y, x)))
        {
            let iy = (oy * geometry.stride[0] + ky).wrapping_sub(geometry.padding[0]);
            let ix = (ox * geometry.stride[1] + kx).wrapping_sub(geometry.padding[1]);
            if iy >= geometry.input[0] || ix >= geometry.input[1] {
                continue;
            }
            for sample in 0..n {
                for co in 0..geometry.out_channels {
                    for ci in 0..gi {
                        let y = ((oy * ow + ox) * n + sample) * geometry.out_channels + co;
                        let x = ((iy * geometry.input[1] + ix) * n + sample) * geometry.in_channels
                            + co / go * gi
                            + ci;
                        let w =
                            ((co * gi + ci) * geometry.kernel[0] + ky) * geometry.kernel[1] + kx;
                        term(y, x, w);
                    }
                }
            }
        }
    }
}

/// Mean and biased variance per channel of rows of `c` values.
pub fn moments(x: &[f64], c: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = (x.len() / c) as f64;
    let mut mean = vec![0.0; c];
    for (i, v) in x.iter().enumerate() {
        mean[i % c] += v / rows;
    }
    let mut variance = vec![0.0; c];
    for (i, v) in x.iter().enumerate() {
        variance[i % c] += (v - mean[i % c]).powi(2) / rows;
    }
    (mean, variance)
}

pub fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Runs `f` on a pool of `threads` threads; on this one where the kernels use no other.
pub fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    if cfg!(feature = "serial") {
        return f();
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(f)
}
