//! Elementwise activations and their gradients.

use crate::parallel::block_size;
use crate::parallel::prelude::*;

use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::math::{exp, normal_cdf};
use crate::simd::{Kernel, Simd, dispatch, for_each_vector, load, store};

/// Elements that one task processes.
const CHUNK: usize = block_size(1 << 16, 16);

/// An elementwise function of `x`, or of `x` and `dy`, compiled for each instruction set.
trait Elementwise: Copy + Send + Sync {
    /// Computes one element. Implementations are `#[inline(always)]`, so that they compile for the
    /// instruction set of the loop that calls them.
    fn apply<S: Simd>(self, x: f32, dy: f32) -> f32;
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
            *out = E::narrow(self.f.apply::<S>(x.widen(), dy.widen()));
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
struct Gelu;

impl Elementwise for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, x: f32, _: f32) -> f32 {
        x * normal_cdf::<S>(x, exp::<S>(-0.5 * x * x))
    }
}

#[derive(Clone, Copy)]
struct GeluGrad;

impl Elementwise for GeluGrad {
    #[inline(always)]
    fn apply<S: Simd>(self, x: f32, dy: f32) -> f32 {
        dy * gelu_and_slope::<S>(x)[1]
    }
}

/// GELU of `x` and its derivative.
#[inline(always)]
pub(crate) fn gelu_and_slope<S: Simd>(x: f32) -> [f32; 2] {
    /// `1 / sqrt(2 pi)`, the density of the standard normal at 0.
    const DENSITY: f32 = 0.398_942_3;
    let exponential = exp::<S>(-0.5 * x * x);
    let cdf = normal_cdf::<S>(x, exponential);
    // At infinity the density is 0, but its product with `x` would be NaN.
    let slope = if exponential == 0.0 { 0.0 } else { x * (DENSITY * exponential) };
    [x * cdf, cdf + slope]
}

/// `y = max(x, 0)`; NaN stays NaN.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn relu<E: Element>(isa: Isa, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    gate(isa, x, Some(x), None, y)
}

/// `dx = dy` where `x > 0`, else 0.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn relu_grad<E: Element>(isa: Isa, x: &[E], dy: &[E], dx: &mut [E]) -> Result<(), ShapeError> {
    gate(isa, x, Some(dy), None, dx)
}

/// Does what [`relu_grad`] does in one tensor: `gradient` holds `dy` before the call and `dx` after
/// it. `x` may also be the result of the ReLU, which is positive where its input is.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn relu_grad_in_place<E: Element>(
    isa: Isa,
    x: &[E],
    gradient: &mut [E],
) -> Result<(), ShapeError> {
    gate(isa, x, None, None, gradient)
}

/// `y = max(x + add, 0)`, the end of a residual block; NaN stays NaN.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn add_relu<E: Element>(isa: Isa, x: &[E], add: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    gate(isa, x, Some(x), Some(add), y)
}

/// Writes `value` to `out` where `gate` is positive or NaN, and zero elsewhere. `None` as the value
/// stands for the content of `out`; `add` is added to the value and the gate, which are then one
/// tensor.
fn gate<E: Element>(
    isa: Isa,
    gate: &[E],
    value: Option<&[E]>,
    add: Option<&[E]>,
    out: &mut [E],
) -> Result<(), ShapeError> {
    for (what, values) in [("activation gradient", value), ("activation addend", add)] {
        if let Some(values) = values {
            expect_len(what, values.len(), gate.len())?;
        }
    }
    expect_len("activation output", out.len(), gate.len())?;
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
        let part = index * CHUNK..index * CHUNK + out.len();
        let kernel = Gate {
            gate: &gate[part.clone()],
            value: value.map(|value| &value[part.clone()]),
            add: add.map(|add| &add[part.clone()]),
            out,
        };
        // SAFETY: `Gate::run` needs slices of equal length, which have just been checked;
        // `dispatch` checks the features.
        unsafe { dispatch(isa, kernel) };
    });
    Ok(())
}

/// A part of [`gate`].
struct Gate<'a, E> {
    gate: &'a [E],
    value: Option<&'a [E]>,
    add: Option<&'a [E]>,
    out: &'a mut [E],
}

impl<E: Element> Kernel for Gate<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let out = self.out.as_mut_ptr();
        let gate = self.gate.as_ptr();
        let value = self.value.map_or(out.cast_const(), <[E]>::as_ptr);
        match self.add.map(<[E]>::as_ptr) {
            // SAFETY: the caller enabled the features of `S`; all slices are equally long, and a
            // vector is read before it is written.
            None => for_each_vector!(self.out.len(), |i, lanes| unsafe {
                let value: S = load(value.add(i), lanes);
                store(value.where_positive(load(gate.add(i), lanes)), out.add(i), lanes);
            }),
            // SAFETY: as above.
            Some(add) => for_each_vector!(self.out.len(), |i, lanes| unsafe {
                let sum = load::<S, E>(value.add(i), lanes).add(load(add.add(i), lanes));
                store(sum.where_positive(sum), out.add(i), lanes);
            }),
        }
    }
}

/// `y = x Phi(x)`, the exact (erf) form. Source: D. Hendrycks and K. Gimpel, arXiv:1606.08415.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn gelu<E: Element>(isa: Isa, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, x, y, Gelu)
}

/// `dx = dy (Phi(x) + x phi(x))`.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn gelu_grad<E: Element>(isa: Isa, x: &[E], dy: &[E], dx: &mut [E]) -> Result<(), ShapeError> {
    map(isa, x, dy, dx, GeluGrad)
}
