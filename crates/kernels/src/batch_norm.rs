//! Batch normalisation with an optional ReLU, over `[rows][C]` (rows = height x width x batch).
//!
//! Source: S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015. The ReLU mask is recomputed from the input in
//! the backward pass, with the arithmetic of the forward pass, so nothing but the input has to be kept.

use rayon::prelude::*;

use crate::channels::{Accumulate, chunk, chunk_sums, expect_rows, repeat};
use crate::conv::Addend;
use crate::error::{ShapeError, expect_len};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

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
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// How the statistics depend on the input in the backward pass.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// Computed from this batch: gradients flow through them. Holds the results of [`BatchNorm::parameter_grads`].
    Batch {
        /// Gradient of `gamma`, `[C]`.
        dgamma: &'a [f32],
        /// Gradient of `beta`, `[C]`.
        dbeta: &'a [f32],
    },
    /// Constants, as in evaluation.
    Constant,
}

/// Parameters repeated over a period.
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

    fn inverse_deviation(&self) -> impl ExactSizeIterator<Item = f32> + Clone + '_ {
        let epsilon = f64::from(self.epsilon);
        self.variance.iter().map(move |&v| (1.0 / (f64::from(v) + epsilon).sqrt()) as f32)
    }

    fn repeated(&self) -> Repeated {
        let scale: Vec<f32> = self.inverse_deviation().zip(self.gamma).map(|(inverse, gamma)| inverse * gamma).collect();
        Repeated { mean: repeat(self.mean.iter().copied()), scale: repeat(scale.iter().copied()), beta: repeat(self.beta.iter().copied()) }
    }

    /// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`, then ReLU if set. NaN stays NaN.
    ///
    /// # Errors
    /// [`ShapeError`] when the parameters differ in length, or `x` and `y` are not equally many whole rows.
    pub fn forward(&self, isa: Isa, x: &[f32], y: &mut [f32]) -> Result<(), ShapeError> {
        self.check(x.len())?;
        expect_len("batch norm output", y.len(), x.len())?;
        let p = self.repeated();
        let chunk = chunk(self.mean.len());
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| {
            let kernel = Forward { p: &p, relu: self.relu, x, y };
            // SAFETY: the kernel has no conditions of its own.
            unsafe { dispatch(isa, kernel) };
        });
        Ok(())
    }

    /// `dgamma = sum(dy' xhat)`, `dbeta = sum(dy')`, where `dy'` is `dy` behind the ReLU mask and `xhat` the normalised
    /// input.
    ///
    /// # Errors
    /// [`ShapeError`] when the parameters differ in length, or `x` and `dy` are not equally many whole rows.
    pub fn parameter_grads(&self, isa: Isa, x: &[f32], dy: &[f32], dgamma: &mut [f32], dbeta: &mut [f32]) -> Result<(), ShapeError> {
        self.check(x.len())?;
        let channels = self.mean.len();
        expect_len("batch norm output gradient", dy.len(), x.len())?;
        expect_len("batch norm gamma gradient", dgamma.len(), channels)?;
        expect_len("batch norm beta gradient", dbeta.len(), channels)?;
        let p = self.repeated();
        let chunks = chunk_sums(isa, x.len(), channels, |_| ParameterGrads { p: &p, relu: self.relu, x, dy });
        for (c, inverse) in self.inverse_deviation().enumerate() {
            dbeta[c] = chunks.iter().map(|(sum, _)| sum[c]).sum::<f64>() as f32;
            let product: f64 = chunks.iter().map(|(_, product)| product[c]).sum();
            dgamma[c] = (product * f64::from(inverse)) as f32;
        }
        Ok(())
    }

    /// `dx` of the normalisation (and ReLU), plus `add`.
    ///
    /// # Errors
    /// [`ShapeError`] when lengths do not fit.
    pub fn input_grad(
        &self,
        isa: Isa,
        x: &[f32],
        dy: &[f32],
        statistics: Statistics<'_>,
        dx: &mut [f32],
        add: Addend<'_>,
    ) -> Result<(), ShapeError> {
        self.check(x.len())?;
        let channels = self.mean.len();
        expect_len("batch norm output gradient", dy.len(), x.len())?;
        expect_len("batch norm input gradient", dx.len(), x.len())?;
        let p = self.repeated();
        // dx = scale (dy' - dbeta / M - xhat dgamma / M) = scale dy' + (x - mean) slope + offset
        let (slope, offset) = match statistics {
            Statistics::Constant => (repeat(vec![0.0; channels].into_iter()), repeat(vec![0.0; channels].into_iter())),
            Statistics::Batch { dgamma, dbeta } => {
                expect_len("batch norm gamma gradient", dgamma.len(), channels)?;
                expect_len("batch norm beta gradient", dbeta.len(), channels)?;
                let rows = (x.len() / channels).max(1) as f32;
                let slope: Vec<f32> =
                    self.inverse_deviation().enumerate().map(|(c, inverse)| -p.scale[c] * inverse * dgamma[c] / rows).collect();
                let offset: Vec<f32> = dbeta.iter().enumerate().map(|(c, dbeta)| -p.scale[c] * dbeta / rows).collect();
                (repeat(slope.into_iter()), repeat(offset.into_iter()))
            }
        };
        let chunk = chunk(channels);
        let run = |x: &[f32], dy: &[f32], add: Option<&[f32]>, accumulate: bool, dx: &mut [f32]| {
            let kernel = InputGrad { p: &p, slope: &slope, offset: &offset, relu: self.relu, x, dy, add, accumulate, dx };
            // SAFETY: the kernel has no conditions of its own.
            unsafe { dispatch(isa, kernel) };
        };
        let chunks = dx.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).zip(dy.par_chunks(chunk));
        match add {
            Addend::Tensor(add) => {
                expect_len("batch norm addend", add.len(), x.len())?;
                chunks.zip(add.par_chunks(chunk)).for_each(|(((dx, x), dy), add)| run(x, dy, Some(add), false, dx));
            }
            Addend::None => chunks.for_each(|((dx, x), dy)| run(x, dy, None, false, dx)),
            Addend::Output => chunks.for_each(|((dx, x), dy)| run(x, dy, None, true, dx)),
        }
        Ok(())
    }
}

/// The value before the ReLU; forward and backward share it so that the mask is the same to the bit.
#[inline(always)]
fn affine(x: f32, mean: f32, scale: f32, beta: f32) -> f32 {
    (x - mean) * scale + beta
}

struct Forward<'a> {
    p: &'a Repeated,
    relu: bool,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (mean, scale, beta) = (&self.p.mean, &self.p.scale, &self.p.beta);
        let periods = self.y.chunks_mut(mean.len()).zip(self.x.chunks(mean.len()));
        for (y, x) in periods {
            let values = y.iter_mut().zip(x).zip(mean).zip(scale).zip(beta);
            if self.relu {
                for ((((y, &x), &mean), &scale), &beta) in values {
                    let v = affine(x, mean, scale, beta);
                    *y = if v <= 0.0 { 0.0 } else { v };
                }
            } else {
                for ((((y, &x), &mean), &scale), &beta) in values {
                    *y = affine(x, mean, scale, beta);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct ParameterGrads<'a> {
    p: &'a Repeated,
    relu: bool,
    x: &'a [f32],
    dy: &'a [f32],
}

impl Accumulate for ParameterGrads<'_> {
    /// Sums of `dy'` and of `dy' (x - mean)`.
    #[inline(always)]
    fn add(self, at: usize, first: &mut [f32], second: &mut [f32]) {
        let len = first.len();
        let (x, dy) = (&self.x[at..at + len], &self.dy[at..at + len]);
        let (mean, scale, beta) = (&self.p.mean[..len], &self.p.scale[..len], &self.p.beta[..len]);
        let second = &mut second[..len];
        for i in 0..len {
            let v = affine(x[i], mean[i], scale[i], beta[i]);
            let d = if self.relu && v <= 0.0 { 0.0 } else { dy[i] };
            first[i] += d;
            second[i] += d * (x[i] - mean[i]);
        }
    }
}

struct InputGrad<'a> {
    p: &'a Repeated,
    slope: &'a [f32],
    offset: &'a [f32],
    relu: bool,
    x: &'a [f32],
    dy: &'a [f32],
    add: Option<&'a [f32]>,
    accumulate: bool,
    dx: &'a mut [f32],
}

impl Kernel for InputGrad<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let period = self.slope.len();
        for (index, dx) in self.dx.chunks_mut(period).enumerate() {
            let (at, len) = (index * period, dx.len());
            let (x, dy) = (&self.x[at..at + len], &self.dy[at..at + len]);
            let (mean, scale, beta) = (&self.p.mean[..len], &self.p.scale[..len], &self.p.beta[..len]);
            let (slope, offset) = (&self.slope[..len], &self.offset[..len]);
            let value = |i: usize| {
                let v = affine(x[i], mean[i], scale[i], beta[i]);
                let d = if self.relu && v <= 0.0 { 0.0 } else { dy[i] };
                d * scale[i] + ((x[i] - mean[i]) * slope[i] + offset[i])
            };
            match (self.add, self.accumulate) {
                (Some(add), _) => {
                    let add = &add[at..at + len];
                    for i in 0..len {
                        dx[i] = value(i) + add[i];
                    }
                }
                (None, true) => {
                    for (i, dx) in dx.iter_mut().enumerate() {
                        *dx += value(i);
                    }
                }
                (None, false) => {
                    for (i, dx) in dx.iter_mut().enumerate() {
                        *dx = value(i);
                    }
                }
            }
        }
    }
}
