//! The one-dimensional transforms of Winograd F(4, 3) at the points 0, ±2/3, ±3/2 and infinity.
//!
//! Toom-Cook with points `p` multiplies polynomials by evaluation and interpolation: with `N_j =
//! prod_{k != j} (p_j - p_k)`, row `j` of `G` is `(1, p_j, p_j^2) / N_j`, row `j` of `B^T` holds
//! the coefficients of `prod_{k != j} (x - p_k)`, and column `j` of `A^T` is `(1, p_j, p_j^2,
//! p_j^3)`. A pair of reciprocal points (`a b = 1`) has an error five times smaller than the usual
//! 0, ±1, ±2. A two-dimensional transform applies the one-dimensional one to rows and columns.

use crate::simd::Simd;

/// Largest side of an input tile.
pub(super) const SIDE: usize = 6;

/// A row or column of a tile; a smaller tile leaves the last values zero.
pub(super) type Line<S> = [S; SIDE];

/// An algorithm F(OUT, 3): its one-dimensional transforms.
pub(super) trait Tiling: Copy + Send + Sync + 'static {
    /// Side of an output tile.
    const OUT: usize;
    /// Side of an input tile: an output tile and one pixel around it.
    const IN: usize = Self::OUT + 2;
    /// Number of points, which are the products of one tile.
    const POINTS: usize = Self::IN * Self::IN;

    /// `B^T x`: transforms an input row or column to its points.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    unsafe fn input<S: Simd>(x: Line<S>) -> Line<S>;

    /// `A^T m`: transforms products to outputs.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    unsafe fn output<S: Simd>(m: Line<S>) -> Line<S>;

    /// `G g`: transforms three weights to their points.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    unsafe fn weight<S: Simd>(g: Line<S>) -> Line<S>;
}

/// F(4, 3) at the points 0, ±2/3, ±3/2 and infinity. A pair of reciprocal points (`a b = 1`) has an
/// error five times smaller than the usual 0, ±1, ±2.
#[derive(Clone, Copy)]
pub(super) struct F4;

const A: f64 = 2.0 / 3.0;
const B: f64 = 1.5;
const A2: f64 = A * A;
const B2: f64 = B * B;

/// `1 / N_j` of the points 0, ±a and ±b.
const G0: f64 = 1.0 / (A2 * B2);
const GA: f64 = 1.0 / (2.0 * A2 * (A2 - B2));
const GB: f64 = 1.0 / (2.0 * B2 * (B2 - A2));

impl Tiling for F4 {
    const OUT: usize = 4;

    #[inline(always)]
    unsafe fn input<S: Simd>(x: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let sum = S::splat(-(A2 + B2) as f32);
            let (a, b) = (S::splat(A as f32), S::splat(B as f32));
            let (minus_a2, minus_b2) = (S::splat(-A2 as f32), S::splat(-B2 as f32));
            let even_a = x[2].mul_add(minus_b2, x[4]);
            let odd_a = x[1].mul_add(minus_b2, x[3]).mul(a);
            let even_b = x[2].mul_add(minus_a2, x[4]);
            let odd_b = x[1].mul_add(minus_a2, x[3]).mul(b);
            // a^2 b^2 = 1, so the first and last rows need no factor.
            [
                x[2].mul_add(sum, x[0].add(x[4])),
                even_a.add(odd_a),
                even_a.sub(odd_a),
                even_b.add(odd_b),
                even_b.sub(odd_b),
                x[3].mul_add(sum, x[1].add(x[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>(m: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
            [
                m[0].add(even_a).add(even_b),
                combine(A, odd_a, B, odd_b),
                combine(A2, even_a, B2, even_b),
                combine(A2 * A, odd_a, B2 * B, odd_b).add(m[5]),
                S::zero(),
                S::zero(),
            ]
        }
    }

    #[inline(always)]
    unsafe fn weight<S: Simd>(g: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let even_a = combine(GA, g[0], GA * A2, g[2]);
            let odd_a = g[1].mul(S::splat((GA * A) as f32));
            let even_b = combine(GB, g[0], GB * B2, g[2]);
            let odd_b = g[1].mul(S::splat((GB * B) as f32));
            [
                g[0].mul(S::splat(G0 as f32)),
                even_a.add(odd_a),
                even_a.sub(odd_a),
                even_b.add(odd_b),
                even_b.sub(odd_b),
                g[2],
            ]
        }
    }
}

impl F4 {
    /// `A y`: transforms output gradients to their points.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(super) unsafe fn output_grad<S: Simd>(y: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let even_a = y[2].mul_add(S::splat(A2 as f32), y[0]);
            let odd_a = combine(A, y[1], A2 * A, y[3]);
            let even_b = y[2].mul_add(S::splat(B2 as f32), y[0]);
            let odd_b = combine(B, y[1], B2 * B, y[3]);
            [y[0], even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), y[3]]
        }
    }

    /// `G^T u`: transforms points to three weight gradients.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(super) unsafe fn weight_grad<S: Simd>(u: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let (even_a, odd_a) = (u[1].add(u[2]), u[1].sub(u[2]));
            let (even_b, odd_b) = (u[3].add(u[4]), u[3].sub(u[4]));
            [
                u[0].mul_add(S::splat(G0 as f32), combine(GA, even_a, GB, even_b)),
                combine(GA * A, odd_a, GB * B, odd_b),
                combine(GA * A2, even_a, GB * B2, even_b).add(u[5]),
                S::zero(),
                S::zero(),
                S::zero(),
            ]
        }
    }
}

/// F(2, 3) at the points 0, ±1 and infinity, whose transforms multiply by no more than one: points
/// that are rounded to bf16 keep the result within twice the error of rounded weights.
#[derive(Clone, Copy)]
pub(super) struct F2;

/// Two values or four, and zeros.
///
/// # Safety
/// The features of `S` are enabled.
#[inline(always)]
unsafe fn line<S: Simd, const N: usize>(values: [S; N]) -> Line<S> {
    // SAFETY: the caller enabled the features of `S`.
    unsafe {
        let mut line = [S::zero(); SIDE];
        for (x, value) in line.iter_mut().zip(values) {
            *x = value;
        }
        line
    }
}

impl Tiling for F2 {
    const OUT: usize = 2;

    #[inline(always)]
    unsafe fn input<S: Simd>(x: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe { line([x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[1].sub(x[3])]) }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>(m: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe { line([m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])]) }
    }

    #[inline(always)]
    unsafe fn weight<S: Simd>(g: Line<S>) -> Line<S> {
        // SAFETY: the caller enabled the features of `S`.
        unsafe {
            let half = S::splat(0.5);
            let (even, odd) = (g[0].add(g[2]).mul(half), g[1].mul(half));
            line([g[0], even.add(odd), even.sub(odd), g[2]])
        }
    }
}

/// Applies the one-dimensional transform `$f` to each of the first `$width` columns of `$rows`.
///
/// Each row is transformed as it is loaded, and the columns follow. These are macros, because the
/// compiler might not inline a closure into a function with other features.
macro_rules! columns {
    ($rows:expr, $width:expr, $f:path) => {{
        let rows: &[crate::conv::winograd::transform::Line<S>; 6] = $rows;
        let mut result = [[S::zero(); 6]; 6];
        for j in 0..$width {
            let mut column = [S::zero(); 6];
            for (c, row) in column.iter_mut().zip(rows) {
                *c = row[j];
            }
            for (line, value) in result.iter_mut().zip($f(column)) {
                line[j] = value;
            }
        }
        result
    }};
}
pub(super) use columns;

/// `ka xa + kb xb`.
///
/// # Safety
/// The features of `S` are enabled.
#[inline(always)]
unsafe fn combine<S: Simd>(ka: f64, xa: S, kb: f64, xb: S) -> S {
    // SAFETY: the caller enabled the features of `S`.
    unsafe { xa.mul_add(S::splat(ka as f32), xb.mul(S::splat(kb as f32))) }
}
