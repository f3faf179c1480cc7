//! The register tile with the processor's products of bf16 pairs (`vdpbf16ps`).

use std::arch::x86_64::*;

use crate::element::Element;
use crate::simd::Simd;
use crate::simd::avx512::F32x16;
use crate::tile::{Tile, epilogue};

/// Rows of a tile of one or two vectors, and of one of three or four: as many as leave registers
/// for the operands.
const ROWS: [usize; 2] = [14, 6];
/// Most vectors of a row: two panels of two vectors each.
pub(crate) const VECTORS: usize = 4;

/// Computes `blocks` tiles of `R` rows, one below the other, with pairs of bf16 in `a` and `b` in
/// place of `f32`; `c` sums the products of both halves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pairs<E: Element, const R: usize, const V: usize>(tile: &Tile<E>, blocks: usize) {
    let mut tile = *tile;
    for _ in 0..blocks {
        // SAFETY: the attribute above enables the features, and the caller keeps the conditions of
        // [`crate::tile::run_tile`] for every block.
        unsafe {
            let mut acc = [[F32x16::<true>::zero(); V]; R];
            fetch_destination::<E, R, V>(&tile);
            for term in tile.terms {
                let mut a = term.a.wrapping_add(tile.a_offset);
                let mut b = term.b;
                for _ in 0..tile.depth {
                    let mut panel = [_mm512_setzero_si512(); V];
                    for (v, lane) in panel.iter_mut().enumerate() {
                        let b = b.wrapping_add(v / 2 * tile.b_panel + v % 2 * 16);
                        *lane = _mm512_loadu_si512(b.cast());
                    }
                    for (r, row) in acc.iter_mut().enumerate() {
                        // A row of bf16 may start at an address that is not aligned to a pair.
                        let x = a.wrapping_add(r * tile.a_row).cast::<i32>().read_unaligned();
                        let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x));
                        for (v, sum) in row.iter_mut().enumerate() {
                            let y = std::mem::transmute::<__m512i, __m512bh>(panel[v]);
                            sum.0 = _mm512_dpbf16_ps(sum.0, x, y);
                        }
                    }
                    a = a.wrapping_add(tile.a_depth);
                    b = b.wrapping_add(tile.b_depth);
                }
            }
            epilogue(&tile, acc);
        }
        tile.step(R);
    }
}

/// Fetches the rows that the tile will read and write, or write alone, while it multiplies.
#[inline(always)]
unsafe fn fetch_destination<E: Element, const R: usize, const V: usize>(tile: &Tile<E>) {
    let lines = (V * 16 * size_of::<E>()).div_ceil(64);
    for (r, line) in (0..R).flat_map(|r| (0..lines).map(move |line| (r, line))) {
        let at = r * tile.c_row + line * (64 / size_of::<E>());
        // SAFETY: a prefetch of any address is harmless.
        unsafe {
            if !tile.add.is_null() {
                _mm_prefetch::<_MM_HINT_T0>(tile.add.wrapping_add(at).cast());
            } else {
                _mm_prefetch::<_MM_HINT_ET0>(tile.c.wrapping_add(at).cast());
            }
        }
    }
}

/// Calls [`pairs`] with the numbers of rows and vectors as constants.
macro_rules! table {
    ($rows:expr, $vectors:expr, $tile:expr, $blocks:expr; $($r:literal)*; $($wide:literal)*) => {
        match ($rows, $vectors) {
            $(
                ($r, 1) => pairs::<E, $r, 1>($tile, $blocks),
                ($r, 2) => pairs::<E, $r, 2>($tile, $blocks),
            )*
            $(
                ($wide, 3) => pairs::<E, $wide, 3>($tile, $blocks),
                ($wide, 4) => pairs::<E, $wide, 4>($tile, $blocks),
            )*
            _ => debug_assert!(false, "no register tile of this size"),
        }
    };
}

/// Computes `rows` rows of `vectors <= VECTORS` vectors on pairs of bf16, where `a`, `b` and their
/// distances count pairs. Blocks differ by at most one row.
///
/// # Safety
/// The conditions of [`crate::tile::run_tile`] hold for these rows, and the processor has AVX-512
/// and its bf16 extension.
#[inline(always)]
pub(crate) unsafe fn pair_rows<E: Element>(rows: usize, vectors: usize, tile: &Tile<E>) {
    let blocks = rows.div_ceil(ROWS[usize::from(vectors > 2)]);
    if blocks == 0 {
        return;
    }
    let (size, larger) = (rows / blocks, rows % blocks);
    // SAFETY: the caller keeps the conditions of `run_tile` for all rows and promises AVX-512 with
    // its bf16 extension.
    unsafe {
        let mut tile = *tile;
        if larger > 0 {
            strip(size + 1, vectors, &tile, larger);
            tile.step(larger * (size + 1));
        }
        strip(size, vectors, &tile, blocks - larger);
    }
}

/// Computes `blocks` tiles of `rows` rows.
///
/// # Safety
/// The conditions of [`pair_rows`] hold for `rows * blocks` rows.
unsafe fn strip<E: Element>(rows: usize, vectors: usize, tile: &Tile<E>, blocks: usize) {
    // SAFETY: the caller keeps the conditions of `pair_rows`.
    unsafe {
        table!(rows, vectors, tile, blocks; 1 2 3 4 5 6 7 8 9 10 11 12 13 14; 1 2 3 4 5 6);
    }
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
