//! Batch normalisation with an optional ReLU, over `[rows][C]` (rows = height x width x batch).
//!
//! Source: S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015. The backward pass computes
//! the ReLU mask again from the input, with the arithmetic of the forward pass, so the input is all
//! that has to be kept.

mod tangent;

use crate::parallel::prelude::*;

use crate::addend::Addend;
use crate::channels::{Accumulate, chunk, chunk_sums, expect_rows, repeat};
use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::normalize::Normalize;
use crate::simd::{Kernel, Simd, dispatch, for_each_vector, load, store};

/// Statistics and affine parameters of a batch normalisation, each `[C]`.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Mean of each channel: of the batch in training, the running mean in evaluation.
    pub mean: &'a [f32],
    /// Biased variance of each channel.
    pub variance: &'a [f32],
    /// Scale of each channel.
    pub gamma: &'a [f32],
    /// Offset of each channel.
    pub beta: &'a [f32],
    /// Value added to the variance.
    pub epsilon: f32,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// How the statistics depend on the input in the backward pass.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// The statistics were computed from this batch, so gradients flow through them. The fields are
    /// the results of [`BatchNorm::parameter_grads`].
    Batch {
        /// Gradient of `gamma`, `[C]`.
        dgamma: &'a [f32],
        /// Gradient of `beta`, `[C]`.
        dbeta: &'a [f32],
    },
    /// The statistics are constants, as in evaluation.
    Constant,
}

/// A batch norm's parameters, repeated over a period.
struct Repeated {
    mean: Vec<f32>,
    /// `gamma / sqrt(variance + epsilon)`.
    scale: Vec<f32>,
    beta: Vec<f32>,
}

impl BatchNorm<'_> {
    fn check(&self, len: usize) -> Result<(), ShapeError> {
        let channels = self.mean.len();
        expect_len("batch norm variance", self.variance.len(), channels)?;
        expect_len("batch norm gamma", self.gamma.len(), channels)?;
        expect_len("batch norm beta", self.beta.len(), channels)?;
        expect_rows("batch norm", len, channels)
    }

    /// Returns `gamma / sqrt(variance + epsilon)` of each channel, after it has checked that each
    /// parameter has `channels` values.
    pub(crate) fn scale(&self, channels: usize) -> Result<Vec<f32>, ShapeError> {
        expect_len("batch norm mean", self.mean.len(), channels)?;
        self.check(0)?;
        Ok(self
            .inverse_deviation()
            .zip(self.gamma)
            .map(|(inverse, gamma)| inverse * gamma)
            .collect())
    }

    fn inverse_deviation(&self) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
        let epsilon = f64::from(self.epsilon);
        self.variance.iter().map(move |&v| (1.0 / (f64::from(v) + epsilon).sqrt()) as f32)
    }

    fn repeated(&self) -> Repeated {
        let scale: Vec<f32> = self
            .inverse_deviation()
            .zip(self.gamma)
            .map(|(inverse, gamma)| inverse * gamma)
            .collect();
        Repeated {
            mean: repeat(self.mean.iter().copied()),
            scale: repeat(scale.iter().copied()),
            beta: repeat(self.beta.iter().copied()),
        }
    }

    /// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`, then ReLU if set. NaN stays NaN.
    ///
    /// # Errors
    /// [`ShapeError`] when the parameters differ in length, or `x` and `y` do not hold the same
    /// number of whole rows.
    #[inline(never)]
    pub fn forward<E: Element>(&self, isa: Isa, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
        self.check(x.len())?;
        expect_len("batch norm output", y.len(), x.len())?;
        let p = self.repeated();
        let chunk = chunk(self.mean.len());
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
            let kernel = Forward { p: &p, relu: self.relu, x, y };
            // SAFETY: `Forward::run` needs slices of equal length, which have just been checked;
            // `dispatch` checks the features.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }

    /// `dgamma = sum(dy' xhat)`, `dbeta = sum(dy')`, each `[C]`, where `dy'` is `dy` behind the
    /// ReLU mask and `xhat` is the normalised input.
    ///
    /// # Errors
    /// [`ShapeError`] when the parameters differ in length, or `x` and `dy` do not hold the same
    /// number of whole rows.
    #[inline(never)]
    pub fn parameter_grads<E: Element>(
        &self,
        isa: Isa,
        x: &[E],
        dy: &[E],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) -> Result<(), ShapeError> {
        self.check(x.len())?;
        let channels = self.mean.len();
        expect_len("batch norm output gradient", dy.len(), x.len())?;
        expect_len("batch norm gamma gradient", dgamma.len(), channels)?;
        expect_len("batch norm beta gradient", dbeta.len(), channels)?;
        let p = self.repeated();
        let chunks = chunk_sums(isa, x.len(), channels, |_| ParameterGrads {
            p: &p,
            relu: self.relu,
            x,
            dy,
        });
        for (c, inverse) in self.inverse_deviation().enumerate() {
            dbeta[c] = chunks.iter().map(|(sum, _)| sum[c]).sum::<f64>() as f32;
            let product: f64 = chunks.iter().map(|(_, product)| product[c]).sum();
            dgamma[c] = (product * f64::from(inverse)) as f32;
        }
        Ok(())
    }

    /// Writes the gradient of the loss by `x` to `dx`, through the normalisation (and the ReLU),
    /// plus `add`.
    ///
    /// # Errors
    /// [`ShapeError`] when `x`, `dy`, `dx` and a tensor in `add` differ in length, are not whole
    /// rows, or the parameters differ in length.
    #[inline(never)]
    pub fn input_grad<E: Element>(
        &self,
        isa: Isa,
        x: &[E],
        dy: &[E],
        statistics: Statistics<'_>,
        dx: &mut [E],
        add: Addend<'_, E>,
    ) -> Result<(), ShapeError> {
        expect_len("batch norm output gradient", dy.len(), x.len())?;
        self.input_grad_of(isa, x, Some(dy), statistics, dx, add)
    }

    /// Does what [`BatchNorm::input_grad`] does in one tensor: `gradient` holds `dy` before the
    /// call and `dx` (plus `add`) after it.
    ///
    /// # Errors
    /// [`ShapeError`] when `x`, `gradient` and a tensor in `add` differ in length, are not whole
    /// rows, or the parameters differ in length.
    #[inline(never)]
    pub fn input_grad_in_place<E: Element>(
        &self,
        isa: Isa,
        x: &[E],
        gradient: &mut [E],
        statistics: Statistics<'_>,
        add: Option<&[E]>,
    ) -> Result<(), ShapeError> {
        self.input_grad_of(
            isa,
            x,
            None,
            statistics,
            gradient,
            add.map_or(Addend::None, Addend::Tensor),
        )
    }

    /// Returns what the statistics add to the gradient of `rows` rows. With `M = rows`, `dx = scale
    /// (dy' - dbeta / M - xhat dgamma / M) = scale dy' + (x - mean) slope + offset`; the result is
    /// `slope` and `offset`, repeated over a period.
    fn through_statistics(
        &self,
        statistics: Statistics<'_>,
        p: &Repeated,
        rows: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), ShapeError> {
        let channels = self.mean.len();
        let Statistics::Batch { dgamma, dbeta } = statistics else {
            return Ok((vec![0.0; p.scale.len()], vec![0.0; p.scale.len()]));
        };
        expect_len("batch norm gamma gradient", dgamma.len(), channels)?;
        expect_len("batch norm beta gradient", dbeta.len(), channels)?;
        let rows = rows.max(1) as f32;
        let slope: Vec<f32> = self
            .inverse_deviation()
            .enumerate()
            .map(|(c, inverse)| -p.scale[c] * inverse * dgamma[c] / rows)
            .collect();
        let offset: Vec<f32> =
            dbeta.iter().enumerate().map(|(c, dbeta)| -p.scale[c] * dbeta / rows).collect();
        Ok((repeat(slope.into_iter()), repeat(offset.into_iter())))
    }

    /// Computes the input gradient; where `dy` is `None`, `dx` holds the output gradient before the
    /// call.
    fn input_grad_of<E: Element>(
        &self,
        isa: Isa,
        x: &[E],
        dy: Option<&[E]>,
        statistics: Statistics<'_>,
        dx: &mut [E],
        add: Addend<'_, E>,
    ) -> Result<(), ShapeError> {
        self.check(x.len())?;
        let channels = self.mean.len();
        expect_len("batch norm input gradient", dx.len(), x.len())?;
        let p = self.repeated();
        let (slope, offset) = self.through_statistics(statistics, &p, x.len() / channels)?;
        let chunk = chunk(channels);
        let (add, accumulate) = match add {
            Addend::Tensor(add) => {
                expect_len("batch norm addend", add.len(), x.len())?;
                (Some(add), false)
            }
            Addend::None => (None, false),
            Addend::Output => (None, true),
        };
        dx.par_chunks_mut(chunk).enumerate().for_each(|(index, dx)| {
            let part = index * chunk..index * chunk + dx.len();
            let (x, dy, add) = (
                &x[part.clone()],
                dy.map(|dy| &dy[part.clone()]),
                add.map(|add| &add[part.clone()]),
            );
            let kernel = InputGrad {
                p: &p,
                slope: &slope,
                offset: &offset,
                relu: self.relu,
                x,
                dy,
                add,
                accumulate,
                dx,
            };
            // SAFETY: `InputGrad::run` needs slices of equal length, which have been checked;
            // `dispatch` checks the features.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }
}

impl Repeated {
    /// Loads the parameters of `lanes` elements from index `i` of a period.
    ///
    /// # Safety
    /// The features of `S` are enabled, and `i + lanes` is at most the period.
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, i: usize, lanes: usize) -> Normalize<S> {
        // SAFETY: the caller enabled the features of `S` and promises that the lanes lie within the
        // period, which is the length of each list.
        unsafe {
            Normalize::load(
                [&self.mean, &self.scale, &self.beta].map(|values| values.as_ptr().add(i)),
                lanes,
            )
        }
    }
}

struct Forward<'a, E> {
    p: &'a Repeated,
    relu: bool,
    x: &'a [E],
    y: &'a mut [E],
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let period = self.p.mean.len();
        for (y, x) in self.y.chunks_mut(period).zip(self.x.chunks(period)) {
            // SAFETY: the caller enabled the features of `S`; `x` and `y` are equally long and at
            // most a period.
            for_each_vector!(y.len(), |i, lanes| unsafe {
                let v =
                    self.p.load::<S>(i, lanes).forward(self.relu, load(x.as_ptr().add(i), lanes));
                store(v, y.as_mut_ptr().add(i), lanes);
            });
        }
    }
}

#[derive(Clone, Copy)]
struct ParameterGrads<'a, E> {
    p: &'a Repeated,
    relu: bool,
    x: &'a [E],
    dy: &'a [E],
}

impl<E: Element> Accumulate for ParameterGrads<'_, E> {
    type Element = E;

    /// Adds `dy'` to the first sum and `dy' (x - mean)` to the second.
    #[inline(always)]
    unsafe fn add<S: Simd>(self, at: usize, first: &mut [f32], second: &mut [f32]) {
        let len = first.len();
        let (x, dy, second) = (&self.x[at..at + len], &self.dy[at..at + len], &mut second[..len]);
        // SAFETY: the caller enabled the features of `S`; the slices are equally long and at most a
        // period.
        for_each_vector!(len, |i, lanes| unsafe {
            let p = self.p.load::<S>(i, lanes);
            let x: S = load(x.as_ptr().add(i), lanes);
            let d = p.masked(self.relu, x, load(dy.as_ptr().add(i), lanes));
            let (first, second) = (first.as_mut_ptr().add(i), second.as_mut_ptr().add(i));
            store(load::<S, f32>(first, lanes).add(d), first, lanes);
            store(load::<S, f32>(second, lanes).add(d.mul(x.sub(p.mean))), second, lanes);
        });
    }
}

struct InputGrad<'a, E> {
    p: &'a Repeated,
    slope: &'a [f32],
    offset: &'a [f32],
    relu: bool,
    x: &'a [E],
    /// The output gradient; `None` means that `dx` holds it.
    dy: Option<&'a [E]>,
    add: Option<&'a [E]>,
    accumulate: bool,
    dx: &'a mut [E],
}

impl<E: Element> Kernel for InputGrad<'_, E> {
    type Element = E;
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let period = self.slope.len();
        for (index, dx) in self.dx.chunks_mut(period).enumerate() {
            let (at, len) = (index * period, dx.len());
            let x = &self.x[at..at + len];
            let dx = dx.as_mut_ptr();
            let dy = self.dy.map_or(dx.cast_const(), |dy| dy[at..at + len].as_ptr());
            let add = match (self.add, self.accumulate) {
                (Some(add), _) => add[at..at + len].as_ptr(),
                (None, true) => dx.cast_const(),
                (None, false) => std::ptr::null(),
            };
            // SAFETY: the caller enabled the features of `S`; the slices are equally long and at
            // most a period; `add` is null or as long.
            for_each_vector!(len, |i, lanes| unsafe {
                let p = self.p.load::<S>(i, lanes);
                let x: S = load(x.as_ptr().add(i), lanes);
                let d = p.masked(self.relu, x, load(dy.add(i), lanes));
                let slope: S = load(self.slope.as_ptr().add(i), lanes);
                let offset: S = load(self.offset.as_ptr().add(i), lanes);
                let mut value = d.mul(p.scale).add(x.sub(p.mean).mul(slope).add(offset));
                if !add.is_null() {
                    value = value.add(load(add.add(i), lanes));
                }
                store(value, dx.add(i), lanes);
            });
        }
    }
}
