//! The register tile on the processor's products of bf16 pairs (`vdpbf16ps`).

use std::arch::x86_64::*;

use crate::element::Element;
use crate::simd::avx512::F32x16;
use crate::tile::{Tile, epilogue, tile_table};

/// As [`crate::tile::run_tile`] with `a` and `b` of pairs of bf16 in place of `f32`: `c` sums the products
/// of both halves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pairs<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    // SAFETY: the features are enabled here; the caller promises the kernel's own conditions.
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
        epilogue(tile, acc.map(|row| row.map(F32x16::<true>)));
    }
}

/// Computes one register tile on pairs of bf16, where `a`, `b` and their distances count pairs.
///
/// # Safety
/// That of [`crate::tile::run_tile`]; AVX-512 and its bf16 extension exist.
#[inline(always)]
pub(crate) unsafe fn pair_tile<E: Element>(rows: usize, vectors: usize, args: &Tile<E>) {
    // SAFETY: the caller promises what this function asks.
    unsafe { tile_table!(pairs, [E], rows, vectors, args; 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
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
