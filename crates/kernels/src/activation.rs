//! Elementwise activations and their gradients.

use crate::parallel::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::math::{exp, normal_cdf};
use crate::simd::{Kernel, Simd, dispatch};

/// Elements that one task processes.
const CHUNK: usize = 1 << 16;

/// An elementwise function of `x`, or of `x` and `dy`, compiled for each instruction set.
trait Elementwise: Copy + Send + Sync {
    /// Computes one element. Implementations are `#[inline(always)]`, so that they compile for the
    /// instruction set of the loop that calls them.
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
            // SAFETY: `Map::run` needs nothing but the features of the instruction set, which
            // `dispatch` checks.
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
        // `max` would turn NaN into 0 and hide a diverged network.
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
        /// `1 / sqrt(2 pi)`, the density of the standard normal at 0.
        const DENSITY: f32 = 0.398_942_3;
        let exponential = exp(-0.5 * x * x);
        // At infinity the density is 0, but its product with `x` would be NaN.
        let slope = if exponential == 0.0 { 0.0 } else { x * (DENSITY * exponential) };
        dy * (normal_cdf(x, exponential) + slope)
    }
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
