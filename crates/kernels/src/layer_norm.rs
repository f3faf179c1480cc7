//! Layer normalisation over the features of each row of `[rows][D]`.
//!
//! Source: J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer Normalization", arXiv:1607.06450.

use crate::parallel::block_size;
use crate::parallel::prelude::*;

use crate::channels::expect_rows;
use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::math::sums;

/// Rows that one task normalises.
const ROWS: usize = block_size(64, 2);

/// Parameters of a layer normalisation, each `[D]`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Scale of each feature.
    pub gamma: &'a [f32],
    /// Offset of each feature.
    pub beta: &'a [f32],
    /// Value added to the variance.
    pub epsilon: f32,
}

impl LayerNorm<'_> {
    fn check(&self, len: usize) -> Result<usize, ShapeError> {
        let features = self.gamma.len();
        expect_len("layer norm beta", self.beta.len(), features)?;
        expect_rows("layer norm", len, features)?;
        Ok(features)
    }

    /// Mean and `1 / sqrt(variance + epsilon)` of a row.
    #[inline(always)]
    fn statistics<E: Element>(&self, x: &[E]) -> (f32, f32) {
        let count = x.len() as f32;
        let [total] = sums(x, x, x, |x, _, _| [x.widen()]);
        let mean = total / count;
        let [squares] = sums(x, x, x, |x, _, _| [(x.widen() - mean) * (x.widen() - mean)]);
        let variance = squares / count;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }

    /// Computes `y = (x - mean(x)) / sqrt(var(x) + epsilon) * gamma + beta` for each row of
    /// `[rows][D]`.
    ///
    /// # Errors
    /// [`ShapeError`] when `x` and `y` differ in length or are not whole rows, or `gamma` and
    /// `beta` differ in length.
    #[inline(never)]
    pub fn forward<E: Element>(&self, x: &[E], y: &mut [E]) -> Result<(), ShapeError> {
        let features = self.check(x.len())?;
        expect_len("layer norm output", y.len(), x.len())?;
        y.par_chunks_exact_mut(features)
            .with_min_len(ROWS)
            .zip(x.par_chunks_exact(features))
            .for_each(|(y, x)| self.forward_row(x, y));
        Ok(())
    }

    /// Normalises one row.
    #[inline(always)]
    pub(crate) fn forward_row<A: Element, B: Element>(&self, x: &[A], y: &mut [B]) {
        let (mean, inverse) = self.statistics(x);
        let parameters = self.gamma.iter().zip(self.beta);
        for ((y, x), (gamma, beta)) in y.iter_mut().zip(x).zip(parameters) {
            *y = B::narrow((x.widen() - mean) * inverse * gamma + beta);
        }
    }

    /// Computes `dx`, `dgamma` and `dbeta` from `x` and `dy`. The statistics are computed again
    /// from `x`.
    ///
    /// # Errors
    /// [`ShapeError`] when the tensors differ in length or are not whole rows, or the parameters
    /// and their gradients differ in length.
    #[inline(never)]
    pub fn backward<E: Element>(
        &self,
        x: &[E],
        dy: &[E],
        dx: &mut [E],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) -> Result<(), ShapeError> {
        let features = self.check(x.len())?;
        expect_len("layer norm output gradient", dy.len(), x.len())?;
        expect_len("layer norm input gradient", dx.len(), x.len())?;
        expect_len("layer norm gamma gradient", dgamma.len(), features)?;
        expect_len("layer norm beta gradient", dbeta.len(), features)?;
        let chunk = ROWS * features;
        let partials: Vec<(Vec<f32>, Vec<f32>)> = dx
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .zip(dy.par_chunks(chunk))
            .map(|((dx, x), dy)| {
                let mut sums = (vec![0.0f32; features], vec![0.0f32; features]);
                let rows = dx
                    .chunks_exact_mut(features)
                    .zip(x.chunks_exact(features))
                    .zip(dy.chunks_exact(features));
                for ((dx, x), dy) in rows {
                    self.backward_row(x, dy, dx, &mut sums.0, &mut sums.1);
                }
                sums
            })
            .collect();
        for (i, (dgamma, dbeta)) in dgamma.iter_mut().zip(dbeta).enumerate() {
            *dgamma = partials.iter().map(|p| f64::from(p.0[i])).sum::<f64>() as f32;
            *dbeta = partials.iter().map(|p| f64::from(p.1[i])).sum::<f64>() as f32;
        }
        Ok(())
    }

    /// Computes `dx` of one row and adds the row's part of `dgamma` and `dbeta`.
    #[inline(always)]
    pub(crate) fn backward_row<E: Element>(
        &self,
        x: &[E],
        dy: &[E],
        dx: &mut [E],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) {
        let count = x.len() as f32;
        let (mean, inverse) = self.statistics(x);
        // With g = dy gamma: dx = (g - mean(g) - xhat mean(g xhat)) / deviation.
        let [offset, slope] = sums(x, dy, self.gamma, |x, dy, gamma| {
            let gradient = dy.widen() * gamma;
            [gradient, gradient * ((x.widen() - mean) * inverse)]
        });
        let (offset, slope) = (offset / count, slope / count);
        let (values, sums) = (x.iter().zip(dy).zip(self.gamma), dgamma.iter_mut().zip(dbeta));
        for ((((x, dy), gamma), dx), (dgamma, dbeta)) in values.zip(dx).zip(sums) {
            let hat = (x.widen() - mean) * inverse;
            *dx = E::narrow(inverse * (dy.widen() * gamma - offset - hat * slope));
            *dgamma += dy.widen() * hat;
            *dbeta += dy.widen();
        }
    }
}
