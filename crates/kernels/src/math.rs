//! Sums and functions of `f32` without branches and calls, so that the compiler makes vector code
//! of them.

use crate::simd::Simd;

/// Number of independent partial results of a reduction, enough for the widest vectors.
pub(crate) const LANES: usize = 16;

/// Sums of the values of `f` over the elements of three slices of one length, in a fixed order that
/// vectorises.
#[inline(always)]
pub(crate) fn sums<const N: usize, A: Copy, B: Copy, C: Copy>(
    a: &[A],
    b: &[B],
    c: &[C],
    f: impl Fn(A, B, C) -> [f32; N],
) -> [f32; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    let ((a, a_rest), (b, b_rest), (c, c_rest)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            let values = f(a[lane], b[lane], c[lane]);
            for n in 0..N {
                lanes[n][lane] += values[n];
            }
        }
    }
    for (lane, ((a, b), c)) in a_rest.iter().zip(b_rest).zip(c_rest).enumerate() {
        let values = f(*a, *b, *c);
        for n in 0..N {
            lanes[n][lane] += values[n];
        }
    }
    let mut totals = [0.0; N];
    for (total, lanes) in totals.iter_mut().zip(&mut lanes) {
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        *total = lanes[0];
    }
    totals
}

/// `a * b + c`, in one operation where the processor has it: a function made of such steps takes
/// half as long.
#[inline(always)]
fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` for `x <= 0`. Below -87 the exact result is not a normal number, and the function
/// returns 0.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    /// Adding this constant rounds `x` to an integer, which then lies in the lowest bits of the
    /// sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first part has few digits, so that its product with a small integer
    /// is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let inside = if x < LEAST { LEAST } else { x };
    let rounded = mul_add::<S>(inside, std::f32::consts::LOG2_E, ROUND);
    let k = rounded - ROUND;
    let r = mul_add::<S>(-k, LN_2[1], mul_add::<S>(-k, LN_2[0], inside));
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let value = series[1..].iter().fold(series[0], |sum, c| mul_add::<S>(sum, r, *c)) * power;
    if x < LEAST { 0.0 } else { value }
}

/// Distribution function of the standard normal at `x`, given `exp(-x^2 / 2)`. It uses `erfc(a) =
/// exp(-a^2) t Q(t)` with `t = 1 / (1 + 0.3 a)`, so that the lower tail keeps its relative accuracy
/// (6e-7, plus the error of the exponential's argument). `scripts/fit_erfcx.py` fits the polynomial
/// Q.
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(x: f32, exponential: f32) -> f32 {
    const Q: [f32; 9] = [
        0.169_187_68,
        0.170_719_89,
        0.148_310_36,
        0.215_024_8,
        -0.094_856_72,
        0.547_988_24,
        -0.512_491_35,
        0.485_658,
        -0.129_540_97,
    ];
    let t = 1.0 / mul_add::<S>(0.3 * std::f32::consts::FRAC_1_SQRT_2, x.abs(), 1.0);
    let q = Q[..8].iter().rev().fold(Q[8], |sum, c| mul_add::<S>(sum, t, *c));
    let tail = 0.5 * exponential * t * q;
    if x > 0.0 { 1.0 - tail } else { tail }
}
