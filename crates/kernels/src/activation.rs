//! Elementwise activations and their gradients.

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// Elements of a task.
const CHUNK: usize = 1 << 16;

/// A function of one or two inputs, compiled for the instruction set.
trait Elementwise: Copy + Send + Sync {
    /// Must be `#[inline(always)]`.
    fn apply(self, x: f32, dy: f32) -> f32;
}

struct Map<'a, F, E> {
    f: F,
    x: &'a [E],
    dy: &'a [E],
    out: &'a mut [E],
}

impl<F: Elementwise, E: Element> Kernel for Map<'_, F, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ((out, &x), &dy) in self.out.iter_mut().zip(self.x).zip(self.dy) {
            *out = E::narrow(self.f.apply(x.widen(), dy.widen()));
        }
    }
}

fn map<E: Element>(
    isa: Isa,
    x: &[E],
    dy: &[E],
    out: &mut [E],
    f: impl Elementwise,
) -> Result<(), ShapeError> {
    expect_len("activation gradient", dy.len(), x.len())?;
    expect_len("activation output", out.len(), x.len())?;
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK)).for_each(
        |((out, x), dy)| {
            // SAFETY: the kernel has no conditions of its own.
            unsafe { dispatch(isa, Map { f, x, dy, out }) };
        },
    );
    Ok(())
}

#[derive(Clone, Copy)]
struct Relu;

impl Elementwise for Relu {
    #[inline(always)]
    fn apply(self, x: f32, _: f32) -> f32 {
        // Not `max`, which would turn NaN into 0.
        if x <= 0.0 { 0.0 } else { x }
    }
}

#[derive(Clone, Copy)]
struct ReluGrad;

impl Elementwise for ReluGrad {
    #[inline(always)]
    fn apply(self, x: f32, dy: f32) -> f32 {
        if x <= 0.0 { 0.0 } else { dy }
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Elementwise for Gelu {
    #[inline(always)]
    fn apply(self, x: f32, _: f32) -> f32 {
        x * normal_cdf(x, exp(-0.5 * x * x))
    }
}

#[derive(Clone, Copy)]
struct GeluGrad;

impl Elementwise for GeluGrad {
    #[inline(always)]
    fn apply(self, x: f32, dy: f32) -> f32 {
        /// `1 / sqrt(2 pi)`.
        const DENSITY: f32 = 0.398_942_3;
        let exponential = exp(-0.5 * x * x);
        // At infinity the density is 0 but its product with x is not a number.
        let slope = if exponential == 0.0 { 0.0 } else { x * (DENSITY * exponential) };
        dy * (normal_cdf(x, exponential) + slope)
    }
}

/// Distribution function of the standard normal at `x`, given `exp(-x^2 / 2)`: `erfc(a) = exp(-a^2)
/// t Q(t)` with `t = 1 / (1 + 0.3 a)`, so that the lower tail keeps its relative accuracy (6e-7,
/// and that of the exponential's argument). Q is a fit of ours (`scripts/fit_erfcx.py`). Without
/// branches and calls, so that the compiler makes vectors of it.
#[inline(always)]
fn normal_cdf(x: f32, exponential: f32) -> f32 {
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

/// `exp(x)` for x at most 0; below -87, where it leaves the normal numbers, 0. Without branches and
/// calls.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    /// Adding it rounds to an integer, which then lies in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts: the first has few digits, its product with a small integer is exact.
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

/// `y = max(x, 0)`; NaN stays NaN.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn relu<E: Element>(isa: Isa, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, x, y, Relu)
}

/// `dx = dy` where `x > 0`, else 0.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn relu_grad<E: Element>(isa: Isa, x: &[E], dy: &[E], dx: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, dy, dx, ReluGrad)
}

/// `y = x Phi(x)`, the exact (erf) form. Source: D. Hendrycks and K. Gimpel, arXiv:1606.08415.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn gelu<E: Element>(isa: Isa, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, x, y, Gelu)
}

/// `dx = dy (Phi(x) + x phi(x))`.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn gelu_grad<E: Element>(isa: Isa, x: &[E], dy: &[E], dx: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, dy, dx, GeluGrad)
}
