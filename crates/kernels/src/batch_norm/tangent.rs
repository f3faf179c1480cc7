//! The derivative of batch norm along a tangent, and the backward pass through that derivative.
//!
//! With the batch's statistics, `inv = 1 / sqrt(variance + epsilon)`, `xhat = (x - mean) inv` and
//! means over `M` rows, the derivative of a channel along `t` is
//! `s = gamma inv (t - mean(t) - xhat mean(t xhat))`. A ReLU behind the norm masks it; the mask is
//! constant almost everywhere. The Jacobian is symmetric: `s` is what the backward pass would make
//! of `t` as a gradient, and the gradient by `t` is the same of the gradient by `s`.

use super::{BatchNorm, Repeated, Statistics};
use crate::addend::Addend;
use crate::channels::{Accumulate, chunk, chunk_sums, repeat};
use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::parallel::prelude::*;
use crate::simd::{Kernel, Simd, dispatch, for_each_vector, load, store};

/// `sum(d xhat)` and `sum(d)` of each channel for some tensor `d`.
struct Sums {
    with_x: Vec<f32>,
    alone: Vec<f32>,
}

impl Sums {
    fn statistics(&self) -> Statistics<'_> {
        Statistics::Batch { dgamma: &self.with_x, dbeta: &self.alone }
    }
}

impl BatchNorm<'_> {
    /// Writes the derivative of the output along `tangent`, the derivative of `x`, to `slope`. The
    /// statistics are those of `x`, and have a derivative too.
    ///
    /// # Errors
    /// [`ShapeError`] when `x`, `tangent` and `slope` differ in length, are not whole rows, or the
    /// parameters differ in length.
    #[inline(never)]
    pub fn tangent<E: Element>(
        &self,
        isa: Isa,
        x: &[E],
        tangent: &[E],
        slope: &mut [E],
    ) -> Result<(), ShapeError> {
        expect_len("batch norm tangent", tangent.len(), x.len())?;
        expect_len("batch norm slope", slope.len(), x.len())?;
        let sums = BatchNorm { relu: false, ..*self }.sums(isa, x, tangent)?;
        let (p, channels) = (self.repeated(), self.mean.len());
        let (by_x, offset) = self.through_statistics(sums.statistics(), &p, x.len() / channels)?;
        let chunk = chunk(channels);
        let parts = x.par_chunks(chunk).zip(tangent.par_chunks(chunk));
        slope.par_chunks_mut(chunk).zip(parts).for_each(|(s, (x, t))| {
            let kernel = Tangent { p: &p, by_x: &by_x, offset: &offset, relu: self.relu, x, t, s };
            // SAFETY: `Tangent::run` needs slices of equal length, which have been checked;
            // `dispatch` checks the features.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }

    /// Writes the gradients of a loss by `x`, `tangent` and gamma to `dx`, `dtangent` and `dgamma`,
    /// where `dslope` is its gradient by the result of [`BatchNorm::tangent`].
    ///
    /// # Errors
    /// [`ShapeError`] when the tensors differ in length, are not whole rows, or the parameters and
    /// `dgamma` differ in length.
    #[inline(never)]
    pub fn tangent_grads<E: Element>(
        &self,
        isa: Isa,
        [x, tangent, dslope]: [&[E]; 3],
        [dx, dtangent]: [&mut [E]; 2],
        dgamma: &mut [f32],
    ) -> Result<(), ShapeError> {
        let channels = self.mean.len();
        expect_len("batch norm tangent", tangent.len(), x.len())?;
        expect_len("batch norm slope gradient", dslope.len(), x.len())?;
        expect_len("batch norm input gradient", dx.len(), x.len())?;
        expect_len("batch norm gamma gradient", dgamma.len(), channels)?;
        let of_t = BatchNorm { relu: false, ..*self }.sums(isa, x, tangent)?;
        let of_d = self.sums(isa, x, dslope)?;
        self.input_grad(isa, x, dslope, of_d.statistics(), dtangent, Addend::None)?;
        let p = self.repeated();
        let whole = Masked { p: &p, relu: self.relu, x, t: tangent, d: dslope };
        let chunks = chunk_sums(isa, x.len(), channels, |_| whole);
        let product = |c: usize| chunks.iter().map(|(product, _)| product[c]).sum::<f64>();
        let weights = self.weights(x.len() / channels, &of_t, &of_d, product, dgamma);
        let chunk = chunk(channels);
        dx.par_chunks_mut(chunk).enumerate().for_each(|(index, dx)| {
            let part = index * chunk..index * chunk + dx.len();
            let [x, t, d] = [x, tangent, dslope].map(|values| &values[part.clone()]);
            let kernel = InputGrad { of: Masked { x, t, d, ..whole }, weights: &weights, dx };
            // SAFETY: `InputGrad::run` needs slices of equal length, which have been checked;
            // `dispatch` checks the features.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }

    /// The sums over `d` behind the ReLU's mask.
    fn sums<E: Element>(&self, isa: Isa, x: &[E], d: &[E]) -> Result<Sums, ShapeError> {
        let mut sums =
            Sums { with_x: vec![0.0; self.mean.len()], alone: vec![0.0; self.mean.len()] };
        self.parameter_grads(isa, x, d, &mut sums.with_x, &mut sums.alone)?;
        Ok(sums)
    }

    /// Writes the gradient by gamma and returns the weights of the gradient by `x`. With `Q = sum(t
    /// xhat)`, `R = sum(d xhat)`, the covariance sum `G = sum(d t) - sum(d) sum(t) / M` and
    /// `c = -gamma inv^2 / M`, these gradients are `inv (G - Q R / M)` and
    /// `c (xhat (G - 3 Q R / M) + Q (d - mean(d)) + R (t - mean(t)))`.
    fn weights(
        &self,
        rows: usize,
        of_t: &Sums,
        of_d: &Sums,
        product: impl Fn(usize) -> f64,
        dgamma: &mut [f32],
    ) -> Weights {
        let rows = rows.max(1) as f64;
        let channels = self.inverse_deviation().zip(self.gamma).enumerate();
        let each: Vec<[f32; 4]> = channels
            .map(|(c, (inverse, &gamma))| {
                let (inverse, gamma) = (f64::from(inverse), f64::from(gamma));
                let [q, r, t, d] = [&of_t.with_x, &of_d.with_x, &of_t.alone, &of_d.alone]
                    .map(|sums| f64::from(sums[c]));
                let covariance = product(c) - d * t / rows;
                let both = q * r / rows;
                dgamma[c] = (inverse * (covariance - both)) as f32;
                let common = -gamma * inverse * inverse / rows;
                let by_x = inverse * (covariance - 3.0 * both);
                [by_x, r, q, -(q * d + r * t) / rows].map(|weight| (common * weight) as f32)
            })
            .collect();
        let of = |k: usize| repeat(each.iter().map(|weights| weights[k]));
        Weights { x: of(0), t: of(1), d: of(2), offset: of(3) }
    }
}

struct Tangent<'a, E> {
    p: &'a Repeated,
    by_x: &'a [f32],
    offset: &'a [f32],
    relu: bool,
    x: &'a [E],
    t: &'a [E],
    s: &'a mut [E],
}

impl<E: Element> Kernel for Tangent<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let period = self.by_x.len();
        let parts = self.x.chunks(period).zip(self.t.chunks(period));
        for (s, (x, t)) in self.s.chunks_mut(period).zip(parts) {
            // SAFETY: the caller enabled the features of `S`; the slices are equally long and at
            // most a period.
            for_each_vector!(s.len(), |i, lanes| unsafe {
                let p = self.p.load::<S>(i, lanes);
                let x: S = load(x.as_ptr().add(i), lanes);
                let t: S = load(t.as_ptr().add(i), lanes);
                let by_x: S = load(self.by_x.as_ptr().add(i), lanes);
                let offset: S = load(self.offset.as_ptr().add(i), lanes);
                let slope = t.mul(p.scale).add(x.sub(p.mean).mul(by_x).add(offset));
                store(p.masked(self.relu, x, slope), s.as_mut_ptr().add(i), lanes);
            });
        }
    }
}

/// The input, its tangent, and a gradient of the slope that has yet to pass the ReLU's mask.
struct Masked<'a, E> {
    p: &'a Repeated,
    relu: bool,
    x: &'a [E],
    t: &'a [E],
    d: &'a [E],
}

impl<E> Clone for Masked<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Masked<'_, E> {}

impl<E: Element> Accumulate for Masked<'_, E> {
    type Element = E;

    /// Adds `d t`, behind the mask, to the first sum.
    #[inline(always)]
    unsafe fn add<S: Simd>(self, at: usize, first: &mut [f32], _: &mut [f32]) {
        let part = at..at + first.len();
        let [x, t, d] = [self.x, self.t, self.d].map(|values| &values[part.clone()]);
        // SAFETY: the caller enabled the features of `S`; the slices are equally long and at most a
        // period.
        for_each_vector!(first.len(), |i, lanes| unsafe {
            let x: S = load(x.as_ptr().add(i), lanes);
            let t: S = load(t.as_ptr().add(i), lanes);
            let d = load(d.as_ptr().add(i), lanes);
            let d = self.p.load::<S>(i, lanes).masked(self.relu, x, d);
            let first = first.as_mut_ptr().add(i);
            store(load::<S, f32>(first, lanes).add(d.mul(t)), first, lanes);
        });
    }
}

/// The gradient by the input: `(x - mean) x + t t + d d + offset`, repeated over a period.
struct Weights {
    x: Vec<f32>,
    t: Vec<f32>,
    d: Vec<f32>,
    offset: Vec<f32>,
}

struct InputGrad<'a, E> {
    of: Masked<'a, E>,
    weights: &'a Weights,
    dx: &'a mut [E],
}

impl<E: Element> Kernel for InputGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { of, weights, dx } = self;
        let period = weights.x.len();
        let parts = of.x.chunks(period).zip(of.t.chunks(period)).zip(of.d.chunks(period));
        for (dx, ((x, t), d)) in dx.chunks_mut(period).zip(parts) {
            // SAFETY: the caller enabled the features of `S`; the slices are equally long and at
            // most a period.
            for_each_vector!(dx.len(), |i, lanes| unsafe {
                let p = of.p.load::<S>(i, lanes);
                let x: S = load(x.as_ptr().add(i), lanes);
                let t: S = load(t.as_ptr().add(i), lanes);
                let d = p.masked(of.relu, x, load(d.as_ptr().add(i), lanes));
                let by_x: S = load(weights.x.as_ptr().add(i), lanes);
                let by_t: S = load(weights.t.as_ptr().add(i), lanes);
                let by_d: S = load(weights.d.as_ptr().add(i), lanes);
                let offset: S = load(weights.offset.as_ptr().add(i), lanes);
                let value = x.sub(p.mean).mul(by_x).add(t.mul(by_t));
                store(value.add(d.mul(by_d).add(offset)), dx.as_mut_ptr().add(i), lanes);
            });
        }
    }
}
