use std::arch::x86_64::*;

use super::{Kernel, Simd, tile_table};
use crate::tile::{self, Tile};

/// Sixteen lanes in a `zmm` register.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { kernel.run::<F32x16>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const R: usize, const V: usize>(tile: &Tile) {
    // SAFETY: the features are enabled here, the rest is the caller's.
    unsafe { tile::compute::<F32x16, R, V>(tile) }
}

impl Simd for F32x16 {
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
    unsafe fn tile(rows: usize, vectors: usize, args: &Tile) {
        // SAFETY: the trait's conditions.
        unsafe { tile_table!(tile, rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
    }
}
