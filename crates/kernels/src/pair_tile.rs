//! The register tile with the processor's products of bf16 pairs (`vdpbf16ps`).

use std::arch::x86_64::*;

use crate::element::Element;
use crate::simd::avx512::F32x16;
use crate::tile::{Tile, epilogue, tile_table};

/// Computes the tile of [`crate::tile::run_tile`] with pairs of bf16 in `a` and `b` in place of
/// `f32`; `c` sums the products of both halves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pairs<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the attribute above enables the features, and the caller keeps the conditions of
    // [`crate::tile::run_tile`].
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
                    // A row of bf16 may start at an address that is not aligned to a pair.
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
        epilogue(tile, acc.map(|row| row.map(F32x16::<true>)));
    }
}

/// Computes one register tile on pairs of bf16, where `a`, `b` and their distances count pairs.
///
/// # Safety
/// The conditions of [`crate::tile::run_tile`] hold, and the processor has AVX-512 and its bf16
/// extension.
#[inline(always)]
pub(crate) unsafe fn pair_tile<E: Element>(rows: usize, vectors: usize, args: &Tile<E>) {
    // SAFETY: the caller keeps the conditions of `run_tile` and promises AVX-512 with its bf16
    // extension.
    unsafe { tile_table!(pairs, [E], rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// Runs `vdpbf16ps` on registers alone, without memory, and returns the number of operations.
///
/// # Safety
/// The processor has AVX-512 and its bf16 extension.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) unsafe fn pair_peak(rounds: usize) -> usize {
    let ones = std::hint::black_box(0x3f80_3f80);
    // SAFETY: both types have the same size, and every bit pattern is a value of either.
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
