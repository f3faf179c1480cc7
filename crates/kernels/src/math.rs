//! Sums and functions of `f32` without branches and calls, so that the compiler makes vector code
//! of them.

/// Number of independent partial results of a reduction, enough for the widest vectors.
pub(crate) const LANES: usize = 16;

/// Sum of `f(i)` for `i` below `len`, in a fixed order that vectorises.
#[inline(always)]
pub(crate) fn sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for i in whole..len {
        lanes[i - whole] += f(i);
    }
    lanes.iter().sum()
}

/// The largest value; NaN is ignored. An empty slice gives negative infinity.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let more = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = more(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, more)
}

/// `exp(x)` for `x <= 0`. Below -87 the exact result is not a normal number, and the function
/// returns 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    /// Adding this constant rounds `x` to an integer, which then lies in the lowest bits of the
    /// sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first part has few digits, so that its product with a small integer
    /// is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let inside = if x < LEAST { LEAST } else { x };
    let rounded = inside * std::f32::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = inside - k * LN_2[0] - k * LN_2[1];
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    let value = series.iter().fold(0.0, |sum, c| sum * r + c) * power;
    if x < LEAST { 0.0 } else { value }
}

/// Distribution function of the standard normal at `x`, given `exp(-x^2 / 2)`. It uses `erfc(a) =
/// exp(-a^2) t Q(t)` with `t = 1 / (1 + 0.3 a)`, so that the lower tail keeps its relative accuracy
/// (6e-7, plus the error of the exponential's argument). `scripts/fit_erfcx.py` fits the polynomial
/// Q.
#[inline(always)]
pub(crate) fn normal_cdf(x: f32, exponential: f32) -> f32 {
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
    let t = 1.0 / (1.0 + 0.3 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let q = Q.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = 0.5 * exponential * t * q;
    if x > 0.0 { 1.0 - tail } else { tail }
}
