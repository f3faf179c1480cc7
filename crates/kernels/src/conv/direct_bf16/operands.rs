//! Rearranges the samples at one pixel into operands of products of pairs.

use std::arch::x86_64::*;

use super::pack::COLUMNS;

/// Channels that are transposed at a time.
const LANES: usize = 16;
/// How many samples ahead memory is fetched: rows of a few channels are short and far apart, so the
/// processor's own prefetcher does not follow them.
const FETCH: usize = 16;

/// The samples that one unit of work covers.
#[derive(Clone, Copy)]
pub(super) struct Samples {
    pub(super) first: usize,
    pub(super) count: usize,
    /// Number of samples that are multiplied: `count`, and zeros up to a whole step.
    pub(super) padded: usize,
}

/// Interleaves two samples' values in `lanes` channels into pairs, with zeros beyond; a null
/// pointer stands for a sample of zeros.
///
/// # Safety
/// Each pointer is null or readable for `lanes <= LANES` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pair(a: *const u16, b: *const u16, lanes: usize) -> __m512i {
    let mask = if lanes == LANES { !0 } else { (1u16 << lanes) - 1 };
    let load = |p: *const u16| {
        // SAFETY: the caller promises that a pointer that is not null is readable for `lanes`
        // values; the mask keeps the others from being read.
        if p.is_null() {
            _mm256_setzero_si256()
        } else {
            unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) }
        }
    };
    _mm512_or_si512(
        _mm512_cvtepu16_epi32(load(a)),
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load(b))),
    )
}

/// Exchanges rows and columns of a matrix of 16 x 16 pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // First transpose the squares of 4 x 4 within the 128-bit lanes, then exchange the lanes.
    let mut fours = [zero; 16];
    for i in (0..16).step_by(4) {
        let (a, b) = (
            _mm512_unpacklo_epi32(rows[i], rows[i + 1]),
            _mm512_unpackhi_epi32(rows[i], rows[i + 1]),
        );
        let (c, d) = (
            _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]),
            _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]),
        );
        fours[i] = _mm512_unpacklo_epi64(a, c);
        fours[i + 1] = _mm512_unpackhi_epi64(a, c);
        fours[i + 2] = _mm512_unpacklo_epi64(b, d);
        fours[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // `fours[4 i + j]` holds column 4 l + j of rows 4 i .. 4 i + 4 in lane l.
    let mut out = [zero; 16];
    for j in 0..4 {
        let (a, b) = (
            _mm512_shuffle_i32x4::<0x88>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[j], fours[4 + j]),
        );
        let (c, d) = (
            _mm512_shuffle_i32x4::<0x88>(fours[8 + j], fours[12 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[8 + j], fours[12 + j]),
        );
        out[j] = _mm512_shuffle_i32x4::<0x88>(a, c);
        out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(b, d);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    out
}

/// The pairs of samples `2 pair` and `2 pair + 1` in `lanes` channels from `x` on; samples are
/// `row` apart.
///
/// # Safety
/// `x` is readable for `lanes` values of `count` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn sample_pair(
    x: *const u16,
    row: usize,
    pair_index: usize,
    count: usize,
    lanes: usize,
) -> __m512i {
    let at = |sample: usize| {
        if sample < count { x.wrapping_add(sample * row) } else { std::ptr::null() }
    };
    // SAFETY: `at` gives null or the address of one of `count` samples, which the caller promises
    // to be readable for `lanes` values.
    unsafe { pair(at(2 * pair_index), at(2 * pair_index + 1), lanes) }
}

/// The indices that interleave 16 values of two vectors, from value `first` on: those of the first
/// vector are 0 to 31, those of the second 32 to 63.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn interleaved(first: i32) -> __m512i {
    let lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let index = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    let second = _mm512_add_epi32(index, _mm512_set1_epi32(32));
    _mm512_or_si512(index, _mm512_slli_epi32::<16>(second))
}

/// Writes `[pair][from][2]` of `padded` samples at one pixel.
///
/// # Safety
/// `x` is readable for `width` values of the samples that exist, `row` apart; `out` is writable for
/// whole blocks of 32 of `width` in a row for each pair.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn interleave(
    x: *const u16,
    row: usize,
    samples: Samples,
    width: usize,
    out: *mut u32,
    out_row: usize,
) {
    let (low, high) = (interleaved(0), interleaved(16));
    // SAFETY: the caller promises readable samples and writable rows; the loops stay inside them,
    // and the masks keep values that do not exist from being read.
    unsafe {
        for p in 0..samples.padded / 2 {
            // All bits where the sample exists.
            let exists =
                [2 * p, 2 * p + 1].map(|sample| 0u32.wrapping_sub((sample < samples.count).into()));
            let a = x.wrapping_add(2 * p * row);
            for c in (0..width).step_by(COLUMNS) {
                let mask = if width - c >= COLUMNS { !0 } else { (1u32 << (width - c)) - 1 };
                let a = a.wrapping_add(c);
                for ahead in [FETCH, FETCH + 1] {
                    _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(ahead * row).cast());
                }
                let first = _mm512_maskz_loadu_epi16(mask & exists[0], a.cast());
                let second = _mm512_maskz_loadu_epi16(mask & exists[1], a.wrapping_add(row).cast());
                let out = out.add(p * out_row + c);
                _mm512_storeu_si512(out.cast(), _mm512_permutex2var_epi16(first, low, second));
                _mm512_storeu_si512(
                    out.add(LANES).cast(),
                    _mm512_permutex2var_epi16(first, high, second),
                );
            }
        }
    }
}

/// Writes `[from][sample]` of `padded` samples at one pixel, with zeros for channels from `width`
/// to `width_padded`.
///
/// # Safety
/// `x` is readable for `width` values of the samples that exist, `row` apart; `out` is writable for
/// `width_padded` rows of as many pairs as the padded samples make.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn turn(
    x: *const u16,
    row: usize,
    samples: Samples,
    width: usize,
    width_padded: usize,
    out: *mut u32,
    out_row: usize,
) {
    // SAFETY: the caller promises readable samples and writable rows; the loops stay inside them.
    unsafe {
        for c in (0..width_padded).step_by(LANES) {
            let lanes = width.saturating_sub(c).min(LANES);
            for first in (0..samples.padded / 2).step_by(16) {
                let mut square = [_mm512_setzero_si512(); 16];
                if lanes > 0 {
                    for (p, value) in square.iter_mut().enumerate() {
                        *value = sample_pair(x.add(c), row, first + p, samples.count, lanes);
                    }
                    square = transpose(square);
                }
                for (i, value) in square.iter().enumerate() {
                    _mm512_storeu_si512(out.add((c + i) * out_row + first).cast(), *value);
                }
            }
        }
    }
}
