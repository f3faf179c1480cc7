use std::arch::x86_64::*;

use half::bf16;

use super::{Kernel, Simd, tile_table};
use crate::element::Element;
use crate::tile::{self, Tile};

/// Sixteen lanes in a `zmm` register. `NATIVE`: conversion to bf16 is an instruction (avx512_bf16).
#[derive(Clone, Copy)]
pub(crate) struct F32x16<const NATIVE: bool>(__m512);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { kernel.run::<F32x16<false>>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { kernel.run::<F32x16<true>>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { tile::compute::<F32x16<false>, E, R, V>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn tile_bf16<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { tile::compute::<F32x16<true>, E, R, V>(tile) }
}

/// As [`tile::compute`] with `a` and `b` of pairs of bf16 in place of `f32`: `c` sums the products
/// of both halves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pairs<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); V]; R];
        if !tile.add.is_null() {
            for r in 0..R {
                _mm_prefetch::<_MM_HINT_T0>(tile.add.wrapping_add(r * tile.c_row).cast());
            }
        }
        for term in tile.terms {
            let mut a = term.a.wrapping_add(tile.a_offset);
            let mut b = term.b;
            for _ in 0..tile.depth {
                let mut panel = [_mm512_setzero_si512(); V];
                for (v, lane) in panel.iter_mut().enumerate() {
                    *lane = _mm512_loadu_si512(b.add(v * 16).cast());
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    // Rows of bf16 may start at any even address.
                    let x = _mm512_set1_epi32(
                        a.wrapping_add(r * tile.a_row).cast::<i32>().read_unaligned(),
                    );
                    let x = std::mem::transmute::<__m512i, __m512bh>(x);
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = _mm512_dpbf16_ps(
                            *sum,
                            x,
                            std::mem::transmute::<__m512i, __m512bh>(panel[v]),
                        );
                    }
                }
                a = a.wrapping_add(tile.a_depth);
                b = b.wrapping_add(tile.b_depth);
            }
        }
        tile::epilogue(tile, acc.map(|row| row.map(F32x16::<true>)));
    }
}

/// Computes one register tile on pairs of bf16, where `a`, `b` and their distances count pairs.
///
/// # Safety
/// That of [`tile::compute`]; AVX-512 and its bf16 extension exist.
#[inline(always)]
pub(crate) unsafe fn pair_tile<E: Element>(rows: usize, vectors: usize, args: &Tile<E>) {
    // SAFETY: the caller's.
    unsafe { tile_table!(pairs, rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// `vdpbf16ps` on registers alone; the number of operations.
///
/// # Safety
/// AVX-512 and its bf16 extension exist.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) unsafe fn pair_peak(rounds: usize) -> usize {
    let ones = std::hint::black_box(0x3f80_3f80);
    // SAFETY: types of the same size, of which every bit pattern is a value.
    let (a, b) = unsafe {
        let ones = _mm512_set1_epi32(ones);
        (
            std::mem::transmute::<__m512i, __m512bh>(ones),
            std::mem::transmute::<__m512i, __m512bh>(ones),
        )
    };
    let mut sums = [_mm512_setzero_ps(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, b);
        }
    }
    std::hint::black_box(sums);
    4 * 16 * sums.len() * rounds
}

impl<const NATIVE: bool> F32x16<NATIVE> {
    /// The nearest bf16 of each lane, ties to even.
    #[inline(always)]
    unsafe fn narrow(self) -> __m256i {
        // SAFETY: the features are the caller's.
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
        // SAFETY: the features are the caller's.
        unsafe { Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))) }
    }
}

impl<const NATIVE: bool> Simd for F32x16<NATIVE> {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's conditions.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_maskz_loadu_ps((1u16 << n) - 1, p)) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the trait's conditions.
        unsafe { _mm512_mask_storeu_ps(p, (1u16 << n) - 1, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self::widen(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the trait's conditions.
        unsafe { _mm256_storeu_si256(p.cast(), self.narrow()) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self::widen(_mm256_maskz_loadu_epi16((1u16 << n) - 1, p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize) {
        // SAFETY: the trait's conditions.
        unsafe { _mm256_mask_storeu_epi16(p.cast(), (1u16 << n) - 1, self.narrow()) }
    }
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self::widen(self.narrow()) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe {
            Self(_mm512_maskz_mov_ps(
                _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate.0, _mm512_setzero_ps()),
                self.0,
            ))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        // SAFETY: the trait's conditions.
        unsafe { Self(_mm512_fmadd_ps(self.0, m.0, a.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: the trait's conditions.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(rows: usize, vectors: usize, args: &Tile<E>) {
        // SAFETY: the trait's conditions.
        unsafe {
            if NATIVE {
                tile_table!(tile_bf16, rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            } else {
                tile_table!(tile, rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            }
        }
    }
}
