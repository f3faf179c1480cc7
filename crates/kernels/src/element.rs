//! Storage types of activations and their gradients.

use std::fmt;
use std::str::FromStr;

use half::bf16;
use thiserror::Error;

use crate::conv::{self, Job, Output, WeightJob};
use crate::simd::{Kernel, Simd};

/// How activations and their gradients are stored. Weights, statistics and sums are `f32` in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// bfloat16: the upper half of a binary32, with 8 significant bits.
    Bf16,
}

/// The name is not that of a precision.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown precision {0:?}: expected f32 or bf16")]
pub struct UnknownPrecision(String);

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

/// A storage type of activations: `f32` or [`bf16`]. Arithmetic is in `f32`; a result is rounded
/// once, when it is stored.
pub trait Element: Storage {
    /// The value as `f32`, exactly.
    fn to_f32(self) -> f32 {
        self.widen()
    }

    /// The nearest value, ties to even. NaN stays NaN.
    #[must_use]
    fn from_f32(x: f32) -> Self {
        Self::narrow(x)
    }
}

impl Element for f32 {}
impl Element for bf16 {}

/// What the kernels need of an [`Element`]. Every bit pattern is a value, and all zeros are zero.
pub trait Storage: Copy + Send + Sync + Default + PartialEq + fmt::Debug + 'static {
    const PRECISION: Precision;

    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;

    /// Loads a whole vector.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S;
    /// Stores a whole vector, rounded.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn store<S: Simd>(value: S, p: *mut Self);
    /// Loads the first `n < LANES` lanes and zeroes the others.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S;
    /// Stores the first `n < LANES` lanes, rounded.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn store_first<S: Simd>(value: S, p: *mut Self, n: usize);
    /// What a load would find after a store of `value`.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn stored<S: Simd>(value: S) -> S;
    /// Runs a kernel on a processor with AVX-512 and its bf16 extension.
    ///
    /// # Safety
    /// Those features exist, and the kernel's own conditions hold.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_on_avx512bf16<K: Kernel>(kernel: K) -> K::Output;
    /// [`conv::convolve`], compiled in this crate.
    fn convolve(job: &Job<'_, Self>, out: Output<Self>);
    /// [`conv::weight_grad`], compiled in this crate.
    fn weight_grad(job: &WeightJob<'_, Self>, dw: &mut [f32]);
}

impl Storage for f32 {
    const PRECISION: Precision = Precision::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the trait's conditions.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(value: S, p: *mut Self) {
        // SAFETY: the trait's conditions.
        unsafe { value.store(p) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S {
        // SAFETY: the trait's conditions.
        unsafe { S::load_first(p, n) }
    }
    #[inline(always)]
    unsafe fn store_first<S: Simd>(value: S, p: *mut Self, n: usize) {
        // SAFETY: the trait's conditions.
        unsafe { value.store_first(p, n) }
    }
    #[inline(always)]
    unsafe fn stored<S: Simd>(value: S) -> S {
        value
    }
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_on_avx512bf16<K: Kernel>(kernel: K) -> K::Output {
        // Nothing to convert: the same code and bits as without the extension.
        // SAFETY: the caller's.
        unsafe { crate::simd::run_on_avx512(kernel) }
    }
    fn convolve(job: &Job<'_, Self>, out: Output<Self>) {
        conv::convolve(job, out);
    }
    fn weight_grad(job: &WeightJob<'_, Self>, dw: &mut [f32]) {
        conv::weight_grad(job, dw);
    }
}

impl Storage for bf16 {
    const PRECISION: Precision = Precision::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        // Without branches, for loops over slices to become vector code.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        Self::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S {
        // SAFETY: the trait's conditions.
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(value: S, p: *mut Self) {
        // SAFETY: the trait's conditions.
        unsafe { value.store_bf16(p) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S {
        // SAFETY: the trait's conditions.
        unsafe { S::load_first_bf16(p, n) }
    }
    #[inline(always)]
    unsafe fn store_first<S: Simd>(value: S, p: *mut Self, n: usize) {
        // SAFETY: the trait's conditions.
        unsafe { value.store_first_bf16(p, n) }
    }
    #[inline(always)]
    unsafe fn stored<S: Simd>(value: S) -> S {
        // SAFETY: the trait's conditions.
        unsafe { value.round_bf16() }
    }
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_on_avx512bf16<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's.
        unsafe { crate::simd::run_on_avx512bf16(kernel) }
    }
    fn convolve(job: &Job<'_, Self>, out: Output<Self>) {
        conv::convolve_bf16(job, out);
    }
    fn weight_grad(job: &WeightJob<'_, Self>, dw: &mut [f32]) {
        conv::weight_grad_bf16(job, dw);
    }
}

/// Loads `lanes <= LANES` values.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd, E: Element>(p: *const E, lanes: usize) -> S {
    // SAFETY: the caller's.
    unsafe { if lanes == S::LANES { E::load(p) } else { E::load_first(p, lanes) } }
}

/// Stores `lanes <= LANES` values.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, E: Element>(value: S, p: *mut E, lanes: usize) {
    // SAFETY: the caller's.
    unsafe {
        if lanes == S::LANES {
            E::store(value, p);
        } else {
            E::store_first(value, p, lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert_eq!(
            "f16".parse::<Precision>().unwrap_err().to_string(),
            "unknown precision \"f16\": expected f32 or bf16"
        );
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // One step above 1 is 1 + 2^-7.
        let step = 2f32.powi(-7);
        for (x, expected) in [
            (1.0 + step * 0.49, 1.0),
            (1.0 + step * 0.5, 1.0),
            (1.0 + step * 1.5, 1.0 + step * 2.0),
            (1.0 + step * 0.51, 1.0 + step),
        ] {
            assert_eq!(bf16::from_f32(x).to_f32(), expected, "{x}");
            assert_eq!(<bf16 as Element>::from_f32(-x).widen(), -expected, "{x}");
        }
        assert_eq!(bf16::narrow(f32::MAX).widen(), f32::INFINITY);
        assert_eq!(bf16::narrow(f32::NEG_INFINITY).widen(), f32::NEG_INFINITY);
        // A NaN whose payload lies in the lower half alone must not turn into infinity.
        assert!(bf16::narrow(f32::from_bits(0x7f80_0001)).widen().is_nan());
        for bits in 0..=u16::MAX {
            let x = bf16::from_bits(bits);
            assert!(x.is_nan() || bf16::narrow(x.widen()).to_bits() == bits);
        }
    }

    /// Every instruction set loads, rounds and stores alike.
    #[test]
    fn vectors_convert_like_scalars() {
        use crate::simd::dispatch;
        struct Convert<'a> {
            x: &'a [f32],
            y: &'a mut [bf16],
            back: &'a mut [f32],
            rounded: &'a mut [f32],
        }
        impl Kernel for Convert<'_> {
            type Element = bf16;
            type Output = ();
            #[inline(always)]
            unsafe fn run<S: Simd>(self) {
                for i in (0..self.x.len()).step_by(S::LANES) {
                    let lanes = (self.x.len() - i).min(S::LANES);
                    // SAFETY: `lanes` values lie within each of the slices, which are equally long.
                    unsafe {
                        let x: S = load(self.x.as_ptr().add(i), lanes);
                        store(x, self.y.as_mut_ptr().add(i), lanes);
                        store(bf16::stored(x), self.rounded.as_mut_ptr().add(i), lanes);
                        let back: S = load(self.y.as_ptr().add(i), lanes);
                        store(back, self.back.as_mut_ptr().add(i), lanes);
                    }
                }
            }
        }
        let mut state = 1u32;
        let mut x: Vec<f32> = (0..4099)
            .map(|_| {
                state = state.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15);
                f32::from_bits(state)
            })
            // The hardware conversion takes denormals for zero, the others keep them.
            .map(|x| if x.is_subnormal() { 0.0 } else { x })
            .collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::MAX,
            1.0 + 2f32.powi(-8),
        ]);
        for isa in crate::Isa::available() {
            let mut y = vec![bf16::default(); x.len()];
            let (mut back, mut rounded) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            // SAFETY: the kernel's slices are equally long.
            unsafe {
                dispatch(isa, Convert { x: &x, y: &mut y, back: &mut back, rounded: &mut rounded })
            };
            for (i, &x) in x.iter().enumerate() {
                let expected = bf16::narrow(x);
                assert_eq!(y[i].to_bits(), expected.to_bits(), "{isa}: {x:e}");
                assert_eq!(back[i].to_bits(), expected.widen().to_bits(), "{isa}: {x:e}");
                assert_eq!(rounded[i].to_bits(), expected.widen().to_bits(), "{isa}: {x:e}");
            }
        }
    }
}
