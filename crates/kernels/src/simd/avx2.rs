use std::arch::x86_64::*;

use half::bf16;

use super::vector::{Kernel, Simd};

/// Eight lanes in a `ymm` register.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the attribute above enables the features, and the caller keeps the kernel's own
    // conditions.
    unsafe { kernel.run::<F32x8>() }
}

/// A mask with the first `n` lanes set.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `n < 8`, so the eight lanes read lie in the sixteen of the table.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n).cast()) }
}

/// Eight bf16 as `f32`.
#[inline(always)]
unsafe fn widen(x: __m128i) -> F32x8 {
    // SAFETY: the caller promises that the processor has AVX2 and FMA.
    unsafe { F32x8(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))) }
}

/// The nearest bf16 of each lane, in the lane's lower half, ties to even.
#[inline(always)]
unsafe fn narrow(x: __m256) -> __m256i {
    // SAFETY: the caller promises that the processor has AVX2 and FMA.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let upper = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(
            bits,
            _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)),
        ));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_blendv_epi8(rounded, quiet, nan)
    }
}

/// The lower halves of eight lanes of 32 bits, as eight lanes of 16 bits.
#[inline(always)]
unsafe fn pack(x: __m256i) -> __m128i {
    // SAFETY: the caller promises that the processor has AVX2 and FMA.
    unsafe {
        let packed = _mm256_permute4x64_epi64::<0b00_00_10_00>(_mm256_packus_epi32(x, x));
        _mm256_castsi256_si128(packed)
    }
}

impl Simd for F32x8 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { Self(_mm256_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { Self(_mm256_maskload_ps(p, first(n))) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { _mm256_maskstore_ps(p, first(n), self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { widen(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the caller promises AVX2 and FMA, and that `p` is valid for these lanes.
        unsafe { _mm_storeu_si128(p.cast(), pack(narrow(self.0))) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self {
        let mut lanes = [bf16::ZERO; 8];
        // SAFETY: the caller promises AVX2 and FMA, `n < 8`, and a pointer valid for `n` lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load_bf16(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize) {
        let mut lanes = [bf16::ZERO; 8];
        // SAFETY: the caller promises AVX2 and FMA, `n < 8`, and a pointer valid for `n` lanes.
        unsafe {
            self.store_bf16(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(narrow(self.0)))) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe {
            Self(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_NLE_UQ>(gate.0, _mm256_setzero_ps())))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX2 and FMA.
        unsafe { Self(_mm256_fmadd_ps(self.0, m.0, a.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: the caller promises AVX2 and FMA; a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller promises that the processor has AVX2 and FMA, and keeps the kernel's
        // own conditions.
        unsafe { run(kernel) }
    }
}
