//! What JPEG compression leaves of an image: baseline, quantisation tables of annex K of the
//! standard (ITU-T T.81) scaled as the IJG library does, colour at half the resolution. Entropy
//! coding loses nothing and is left out.

use std::f64::consts::PI;

use super::{PlanarImage, Severity, picture::round};

/// Side of a block.
const N: usize = 8;

/// Table K.1, row by row.
const LUMA: [u8; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// Table K.2, row by row.
const CHROMA: [u8; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// No colour: 128, and a little less so that halves go down, as in the IJG library.
const CHROMA_ZERO: f64 = 128.0 - 1.0 / 65_536.0;

/// Compresses and decompresses.
pub(super) fn compress(x: &mut PlanarImage, severity: Severity) {
    let quality = severity.of([80, 65, 58, 50, 40]);
    let (luma, chroma) = (table(&LUMA, quality), table(&CHROMA, quality));
    let size = [x.height, x.width];
    let levels = |plane: &[f64]| plane.iter().map(|v| round(v * 255.0)).collect::<Vec<_>>();
    if x.channels != 3 {
        for plane in x.planes_mut() {
            let kept = quantise(&levels(plane), size, &luma);
            plane.iter_mut().zip(kept).for_each(|(v, kept)| *v = kept / 255.0);
        }
        return;
    }
    let rgb: Vec<Vec<f64>> = x.planes().map(levels).collect();
    let [y, cb, cr] = to_ycc(&rgb);
    let y = quantise(&y, size, &luma);
    let [cb, cr] = [cb, cr].map(|plane| {
        let (half, small) = halve(&plane, size);
        double(&quantise(&half, small, &chroma), small, size)
    });
    let pixels = size[0] * size[1];
    for p in 0..pixels {
        let (y, cb, cr) = (y[p], cb[p] - 128.0, cr[p] - 128.0);
        let rgb = [y + 1.402 * cr, y - 0.344_136_286 * cb - 0.714_136_286 * cr, y + 1.772 * cb];
        for (c, v) in rgb.into_iter().enumerate() {
            x.values[c * pixels + p] = round(v).clamp(0.0, 255.0) / 255.0;
        }
    }
}

/// A table at a quality from 50 to 100 or below.
fn table(base: &[u8; 64], quality: u32) -> [f64; 64] {
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    base.map(|v| f64::from(((u32::from(v) * scale + 50) / 100).clamp(1, 255)))
}

fn to_ycc(rgb: &[Vec<f64>]) -> [Vec<f64>; 3] {
    let mix = |weights: [f64; 3], offset: f64| -> Vec<f64> {
        let value = |p: usize| (0..3).map(|c| weights[c] * rgb[c][p]).sum::<f64>() + offset;
        (0..rgb[0].len()).map(|p| round(value(p))).collect()
    };
    [
        mix([0.299, 0.587, 0.114], 0.0),
        mix([-0.168_735_892, -0.331_264_108, 0.5], CHROMA_ZERO),
        mix([0.5, -0.418_687_589, -0.081_312_411], CHROMA_ZERO),
    ]
}

/// Each 2x2 values as one, the last row and column repeated where they lack a partner; a mean that
/// ends in one half goes down and up in turn.
fn halve(plane: &[f64], [height, width]: [usize; 2]) -> (Vec<f64>, [usize; 2]) {
    let small = [height.div_ceil(2), width.div_ceil(2)];
    let at = |y: usize, x: usize| plane[y.min(height - 1) * width + x.min(width - 1)];
    let mean = |p: usize| {
        let (y, x) = (2 * (p / small[1]), 2 * (p % small[1]));
        let bias = if (p % small[1]).is_multiple_of(2) { 1.0 } else { 2.0 };
        ((at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1) + bias) / 4.0).floor()
    };
    ((0..small[0] * small[1]).map(mean).collect(), small)
}

/// Twice the size, each value three quarters of the nearest and one of the next along each axis.
fn double(plane: &[f64], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f64> {
    let next = |i: usize, n: usize| {
        if i.is_multiple_of(2) { (i / 2).saturating_sub(1) } else { (i / 2 + 1).min(n - 1) }
    };
    let value = |p: usize| {
        let (y, x) = (p / width, p % width);
        let [a, b] = [y / 2, next(y, h)].map(|row| row * w);
        let column = |i: usize| 3.0 * plane[a + i] + plane[b + i];
        let (near, far) = (column(x / 2), column(next(x, w)));
        let bias = if x.is_multiple_of(2) { 8.0 } else { 7.0 };
        ((3.0 * near + far + bias) / 16.0).floor()
    };
    (0..height * width).map(value).collect()
}

/// Blocks of 8x8 through the discrete cosine transform, rounded to multiples of `table`, and back;
/// levels from 0 to 255. Rounded where the IJG library's integer transforms round: quantisation has
/// ties, which decide by that.
fn quantise(plane: &[f64], [height, width]: [usize; 2], table: &[f64; 64]) -> Vec<f64> {
    let basis = basis();
    let length = (N as f64).sqrt();
    let mut out = vec![0.0; plane.len()];
    for top in (0..height).step_by(N) {
        for left in (0..width).step_by(N) {
            let mut block = [0.0; N * N];
            for (k, v) in block.iter_mut().enumerate() {
                let (y, x) = ((top + k / N).min(height - 1), (left + k % N).min(width - 1));
                *v = plane[y * width + x] - 128.0;
            }
            // Rows with two bits more, then columns with three in all.
            let rows = along_rows(&block, |k, i| 4.0 * length * basis[k][i]);
            let mut kept = along_columns(&rows, |k, i| length / 4.0 * basis[k][i]);
            for (v, step) in kept.iter_mut().zip(table) {
                *v = ((v.abs() + 4.0 * step) / (8.0 * step)).floor().copysign(*v) * step;
            }
            let columns = along_columns(&kept, |i, k| 4.0 * length * basis[k][i]);
            let back = along_rows(&columns, |i, k| length / 32.0 * basis[k][i]);
            for (k, v) in back.iter().enumerate() {
                let (y, x) = (top + k / N, left + k % N);
                if y < height && x < width {
                    out[y * width + x] = (v + 128.0).clamp(0.0, 255.0);
                }
            }
        }
    }
    out
}

/// Row `k`: frequency k of the orthonormal cosine transform.
fn basis() -> [[f64; N]; N] {
    let mut basis = [[0.0; N]; N];
    for (k, row) in basis.iter_mut().enumerate() {
        let scale = if k == 0 { (1.0 / N as f64).sqrt() } else { (2.0 / N as f64).sqrt() };
        for (i, v) in row.iter_mut().enumerate() {
            *v = scale * ((2 * i + 1) as f64 * k as f64 * PI / (2 * N) as f64).cos();
        }
    }
    basis
}

/// Each row times the matrix `at`, rounded.
fn along_rows(block: &[f64; N * N], at: impl Fn(usize, usize) -> f64) -> [f64; N * N] {
    std::array::from_fn(|p| round((0..N).map(|i| at(p % N, i) * block[p / N * N + i]).sum()))
}

/// Each column times the matrix `at`, rounded.
fn along_columns(block: &[f64; N * N], at: impl Fn(usize, usize) -> f64) -> [f64; N * N] {
    std::array::from_fn(|p| round((0..N).map(|i| at(p / N, i) * block[i * N + p % N]).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_scale_as_the_ijg_library_does() {
        // Quality 50 is the annex itself; 80: (16 * 40 + 50) / 100 = 6.
        assert_eq!(table(&LUMA, 50)[..3], [16.0, 11.0, 10.0]);
        assert_eq!(table(&LUMA, 80)[..3], [6.0, 4.0, 4.0]);
        assert_eq!(table(&CHROMA, 40)[..2], [21.0, 23.0]);
    }

    #[test]
    fn with_steps_of_one_hardly_anything_is_lost() {
        let plane: Vec<f64> = (0..12 * 10).map(|i| ((i * 37) % 256) as f64).collect();
        let kept = quantise(&plane, [12, 10], &[1.0; 64]);
        assert!(plane.iter().zip(kept).all(|(a, b)| (a - b).abs() <= 2.0));
    }
}
