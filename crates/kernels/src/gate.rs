//! Maps times a factor of each sample and channel, the gate of squeeze-and-excitation, its
//! gradients, and sums of maps. Source: Hu et al. 2017, arXiv:1709.01507.

use crate::element::Element;
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::parallel::block_size;
use crate::parallel::prelude::*;
use crate::simd::{Kernel, Simd, dispatch, for_each_vector, load, store};

/// Elements that one task of a sum over pixels, and of a sum of maps, processes.
const COLUMNS: usize = block_size(1024, 16);
const CHUNK: usize = block_size(1 << 16, 16);

/// `y = x factor`: each pixel of `x`, `[pixels][N x C]`, times `factor`, `[N x C]`. With the
/// gradient of `y` in place of `x` it computes the gradient of `x`.
///
/// # Errors
/// [`ShapeError`] when `x` is not whole pixels of `factor.len()` values, or `y` has another length.
#[inline(never)]
pub fn gate<E: Element>(isa: Isa, x: &[E], factor: &[f32], y: &mut [E]) -> Result<(), ShapeError> {
    expect_pixels(x.len(), factor.len())?;
    expect_len("gate output", y.len(), x.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let row = factor.len();
    y.par_chunks_exact_mut(row).zip(x.par_chunks_exact(row)).for_each(|(y, x)| {
        // SAFETY: `Combine::run` needs slices of equal length, which have just been made;
        // `dispatch` checks the features.
        unsafe { dispatch(isa, Combine { x, other: factor, y, of: Combination::Product }) };
    });
    Ok(())
}

/// Gradient of [`gate`] by the factor: `gradient[i] = sum over pixels of x[pixel][i] dy[pixel][i]`.
///
/// # Errors
/// [`ShapeError`] when `x` is not whole pixels of `gradient.len()` values, or `dy` has another
/// length.
#[inline(never)]
pub fn gate_factor_grad<E: Element>(
    isa: Isa,
    x: &[E],
    dy: &[E],
    gradient: &mut [f32],
) -> Result<(), ShapeError> {
    let row = gradient.len();
    expect_pixels(x.len(), row)?;
    expect_len("gate gradient", dy.len(), x.len())?;
    gradient.par_chunks_mut(COLUMNS).enumerate().for_each(|(index, sums)| {
        // SAFETY: the columns of the sums lie within the rows, and `x` and `dy` are whole rows.
        unsafe { dispatch(isa, SumProducts { x, dy, row, start: index * COLUMNS, sums }) };
    });
    Ok(())
}

/// `y = x + add`, rounded once.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
#[inline(never)]
pub fn add<E: Element>(isa: Isa, x: &[E], add: &[E], y: &mut [E]) -> Result<(), ShapeError> {
    expect_len("addend", add.len(), x.len())?;
    expect_len("sum", y.len(), x.len())?;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(add.par_chunks(CHUNK)).for_each(
        |((y, x), other)| {
            // SAFETY: as in `gate`.
            unsafe { dispatch(isa, Combine { x, other, y, of: Combination::Sum }) };
        },
    );
    Ok(())
}

/// Adds the gradient of [`global_average`](crate::pool::global_average) to the map that `dx` holds:
/// `dy / pixels` to each of its pixels.
///
/// # Errors
/// [`ShapeError`] when `dx` does not hold `pixels` rows of `dy.len()`, or `pixels` is zero.
#[inline(never)]
pub fn add_average_grad<E: Element>(
    isa: Isa,
    pixels: usize,
    dy: &[f32],
    dx: &mut [E],
) -> Result<(), ShapeError> {
    if pixels == 0 {
        return Err(parameter("global average pooling", "needs at least one pixel"));
    }
    expect_len("pooling input", dx.len(), elements("pooling input", &[pixels, dy.len()])?)?;
    if dx.is_empty() {
        return Ok(());
    }
    let scale = 1.0 / pixels as f32;
    dx.par_chunks_exact_mut(dy.len()).for_each(|dx| {
        // SAFETY: `AddScaled::run` needs slices of equal length, which have just been made;
        // `dispatch` checks the features.
        unsafe { dispatch(isa, AddScaled { dy, scale, dx }) };
    });
    Ok(())
}

fn expect_pixels(len: usize, row: usize) -> Result<(), ShapeError> {
    if row == 0 && len > 0 || row > 0 && !len.is_multiple_of(row) {
        return Err(parameter("gate", format!("{len} elements are not whole pixels of {row}")));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Combination {
    Product,
    Sum,
}

/// `y` from `x` and as many other values, which may be stored otherwise.
struct Combine<'a, E, O> {
    x: &'a [E],
    other: &'a [O],
    y: &'a mut [E],
    of: Combination,
}

impl<E: Element, O: Element> Kernel for Combine<'_, E, O> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (x, other, y) = (self.x.as_ptr(), self.other.as_ptr(), self.y.as_mut_ptr());
        // SAFETY: the caller enabled the features of `S`; all slices are equally long.
        match self.of {
            Combination::Product => for_each_vector!(self.y.len(), |i, lanes| unsafe {
                let product = load::<S, E>(x.add(i), lanes).mul(load(other.add(i), lanes));
                store(product, y.add(i), lanes);
            }),
            Combination::Sum => for_each_vector!(self.y.len(), |i, lanes| unsafe {
                let sum = load::<S, E>(x.add(i), lanes).add(load(other.add(i), lanes));
                store(sum, y.add(i), lanes);
            }),
        }
    }
}

/// Sums of products over the pixels, for the columns from `start` on.
struct SumProducts<'a, E> {
    x: &'a [E],
    dy: &'a [E],
    row: usize,
    start: usize,
    sums: &'a mut [f32],
}

impl<E: Element> Kernel for SumProducts<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let sums = self.sums.as_mut_ptr();
        self.sums.fill(0.0);
        for at in (0..self.x.len()).step_by(self.row).map(|pixel| pixel + self.start) {
            let (x, dy) = (self.x[at..].as_ptr(), self.dy[at..].as_ptr());
            // SAFETY: the caller enabled the features of `S`; the columns lie within the pixel's
            // row of both tensors.
            for_each_vector!(self.sums.len(), |i, lanes| unsafe {
                let sum: S = load(sums.add(i), lanes);
                let sum = load::<S, E>(x.add(i), lanes).mul_add(load(dy.add(i), lanes), sum);
                store(sum, sums.add(i), lanes);
            });
        }
    }
}

/// `dx + scale dy`.
struct AddScaled<'a, E> {
    dy: &'a [f32],
    scale: f32,
    dx: &'a mut [E],
}

impl<E: Element> Kernel for AddScaled<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (dy, dx) = (self.dy.as_ptr(), self.dx.as_mut_ptr());
        // SAFETY: the caller enabled the features of `S`; both slices are equally long, and a
        // vector is read before it is written.
        unsafe {
            let scale = S::splat(self.scale);
            for_each_vector!(self.dx.len(), |i, lanes| {
                let sum = load::<S, f32>(dy.add(i), lanes)
                    .mul_add(scale, load(dx.add(i).cast_const(), lanes));
                store(sum, dx.add(i), lanes);
            });
        }
    }
}
