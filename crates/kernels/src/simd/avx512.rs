use std::arch::x86_64::*;

use half::bf16;

use super::vector::{Kernel, Simd};

/// Sixteen lanes in a `zmm` register. `NATIVE` says that conversion to bf16 is one instruction
/// (avx512_bf16).
#[derive(Clone, Copy)]
pub(crate) struct F32x16<const NATIVE: bool>(pub(crate) __m512);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the attribute above enables the features, and the caller keeps the kernel's own
    // conditions.
    unsafe { kernel.run::<F32x16<false>>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
#[inline(never)]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the attribute above enables the features, and the caller keeps the kernel's own
    // conditions.
    unsafe { kernel.run::<F32x16<true>>() }
}

/// Exchanges rows and columns of a square.
#[inline(always)]
unsafe fn transposed(rows: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller promises that the processor has AVX-512.
    unsafe {
        let float = |x: __m512d| _mm512_castpd_ps(x);
        let double = |x: __m512| _mm512_castps_pd(x);
        // First the squares of 4 x 4 within the 128-bit lanes, then the lanes.
        let mut fours = [_mm512_setzero_pd(); 16];
        for i in (0..16).step_by(4) {
            let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (lower, higher) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            fours[i] = _mm512_unpacklo_pd(double(low), double(lower));
            fours[i + 1] = _mm512_unpackhi_pd(double(low), double(lower));
            fours[i + 2] = _mm512_unpacklo_pd(double(high), double(higher));
            fours[i + 3] = _mm512_unpackhi_pd(double(high), double(higher));
        }
        // `fours[4 i + j]` holds column 4 l + j of rows 4 i .. 4 i + 4 in lane l.
        let mut out = [_mm512_setzero_ps(); 16];
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]].map(float);
            let even = _mm512_shuffle_f32x4::<0x88>(a, b);
            let odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
            let even_below = _mm512_shuffle_f32x4::<0x88>(c, d);
            let odd_below = _mm512_shuffle_f32x4::<0xdd>(c, d);
            out[j] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
            out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
            out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
            out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
        }
        out
    }
}

impl<const NATIVE: bool> F32x16<NATIVE> {
    /// The nearest bf16 of each lane, ties to even.
    #[inline(always)]
    unsafe fn narrow(self) -> __m256i {
        // SAFETY: the caller promises that the processor has AVX-512, and its bf16 extension where
        // `NATIVE`.
        unsafe {
            if NATIVE {
                return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
            }
            let bits = _mm512_castps_si512(self.0);
            let upper = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(
                bits,
                _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)),
            ));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(
                rounded,
                nan,
                upper,
                _mm512_set1_epi32(0x40),
            ))
        }
    }

    /// Sixteen bf16 as `f32`.
    #[inline(always)]
    unsafe fn widen(x: __m256i) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))) }
    }
}

impl<const NATIVE: bool> Simd for F32x16<NATIVE> {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { Self(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { Self(_mm512_maskz_loadu_ps((1u16 << n) - 1, p)) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { _mm512_mask_storeu_ps(p, (1u16 << n) - 1, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { Self::widen(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { _mm256_storeu_si256(p.cast(), self.narrow()) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { Self::widen(_mm256_maskz_loadu_epi16((1u16 << n) - 1, p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize) {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for these lanes.
        unsafe { _mm256_mask_storeu_epi16(p.cast(), (1u16 << n) - 1, self.narrow()) }
    }
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self::widen(self.narrow()) }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, other: Self, p: *mut bf16) {
        // SAFETY: the caller promises AVX-512, and that `p` is valid for twice the lanes.
        unsafe {
            let (first, second) = (self.narrow(), other.narrow());
            let pairs = _mm512_or_si512(
                _mm512_cvtepu16_epi32(first),
                _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(second)),
            );
            _mm512_storeu_si512(p.cast(), pairs);
        }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe {
            Self(_mm512_maskz_mov_ps(
                _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate.0, _mm512_setzero_ps()),
                self.0,
            ))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        // SAFETY: the caller promises that the processor has AVX-512.
        unsafe { Self(_mm512_fmadd_ps(self.0, m.0, a.0)) }
    }
    #[inline(always)]
    unsafe fn transpose(x: *const f32, x_row: usize, y: *mut f32, y_row: usize) {
        // SAFETY: the caller promises AVX-512, and squares of 16 rows of 16 floats.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(x.add(i * x_row));
            }
            for (i, row) in transposed(rows).into_iter().enumerate() {
                _mm512_storeu_ps(y.add(i * y_row), row);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: the caller promises AVX-512; a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller promises that the processor has these features, and keeps the kernel's
        // own conditions.
        unsafe { if NATIVE { run_bf16(kernel) } else { run(kernel) } }
    }
}
