//! NuAT: nuclear-norm adversarial training (Sriramanan et al. 2021, "Towards efficient and
//! effective adversarial training", NeurIPS).
//!
//! With random signs s, `d0 = box(eps/2 s)`; g is the gradient for `d0` of
//! `CE(f(x + d0)) + lambda ||f(x) - f(x + d0)||_* / N`, f(x) constant;
//! `delta = box(ball(d0 + eps sign g))`. The loss is
//! `CE(f(x)) + lambda ||f(x) - f(x + delta)||_* / N`, both logits differentiated. `||.||_*` is the
//! sum of the singular values of the N x K matrix. Batch norm in the attack: train mode. f(x) is
//! computed without and with a graph, and moves the running statistics once.
//!
//! The subgradient of ||M||_* taken is `U V^T` of the thin singular value decomposition over the
//! singular values above the rounding error of f32: where values repeat, U V^T does not depend on
//! the choice of vectors; where they vanish, it is the subgradient of least norm.

use burn::tensor::{Tensor, TensorData};
use nalgebra::{DMatrix, SVD};
use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed, options::range};
use crate::{
    error::{Error, Result},
    nn::to_vec,
    noise::Draw,
    perturbation::Perturb,
};

/// NuAT training.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NuAt {
    /// Step size in epsilons.
    alpha: f64,
    /// Weight of the nuclear norm.
    lambda: f64,
    /// Size of the random start in epsilons.
    start: f64,
}

impl NuAt {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { alpha: 1.0, lambda: 4.0, start: 0.5 })
    }

    pub(super) fn check(self) -> Result<Self> {
        range("start", self.start, 0.0, 1.0)?;
        range("lambda", self.lambda, 0.0, 1e6).map(|()| self)
    }
}

/// `U V^T` of the `rows` x `columns` matrix `values` (row-major), over the singular values that are
/// not 0 to f32's accuracy.
fn polar_factor(values: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>> {
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::work(
            "nuat: the logits are not finite: training has diverged; try a smaller --lr-max",
        ));
    }
    let matrix = DMatrix::from_row_iterator(rows, columns, values.iter().map(|&v| f64::from(v)));
    let svd = SVD::try_new(matrix, true, true, f64::EPSILON, 10_000);
    let Some((Some(u), s, Some(v_t))) = svd.map(|svd| (svd.u, svd.singular_values, svd.v_t)) else {
        return Err(Error::work(
            "nuat: the singular values of the change of the logits were not found",
        ));
    };
    let zero = s.max() * f64::from(f32::EPSILON) * rows.max(columns) as f64;
    let mut factor = DMatrix::zeros(rows, columns);
    for (k, _) in s.iter().enumerate().filter(|(_, s)| **s > zero) {
        factor += u.column(k) * v_t.row(k);
    }
    Ok(factor.transpose().iter().map(|&v| v as f32).collect())
}

/// The nuclear norm of `[N, K]`, as `[1]`: `<M, U V^T>` has its value and its gradient.
fn nuclear_norm(matrix: Tensor<2>) -> Result<Tensor<1>> {
    let [n, k] = matrix.dims();
    let values = matrix.clone().inner();
    let factor = polar_factor(&to_vec(&values)?, n, k)?;
    let factor = Tensor::<2>::from_data(TensorData::new(factor, [n, k]), &values.device());
    Ok((matrix * factor).sum())
}

impl Method for NuAt {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let n = batch.x.dims()[0] as f64;
        let epsilon = cx.threat.epsilon;
        let clean = cx.logits(batch.x.clone());
        let start =
            boxed(batch, cx.noise.sign(Draw::Sign, batch.x.dims()) * (self.start as f32 * epsilon));
        let attack = cx.input_gradient_of(batch.x.clone() + start.clone(), |logits| {
            let distance = nuclear_norm(logits.clone() - clean.clone())?;
            Ok(crate::loss::cross_entropy(logits, batch.labels.clone())
                + distance * (self.lambda / n))
        })?;
        let alpha = self.alpha as f32 * epsilon;
        let delta = boxed(batch, cx.threat.project(start + attack.grad.clone().sign() * alpha));
        let out = cx.train_with(batch, delta, Some(attack.grad), |pass| {
            let clean = pass.forward_again(batch.x.clone());
            let logits = pass.at_point();
            let distance = nuclear_norm(logits.clone() - clean.clone())?;
            Ok((pass.cross_entropy(clean, &batch.labels) + distance * (self.lambda / n), logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f32]) {
        assert!(
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}, expected {expected:?}"
        );
    }

    #[test]
    fn repeated_and_zero_singular_values_have_a_definite_subgradient() {
        close(&polar_factor(&[3.0, 0.0, 0.0, 3.0], 2, 2).unwrap(), &[1.0, 0.0, 0.0, 1.0]);
        let (c, s) = (0.6, 0.8);
        close(&polar_factor(&[c, -s, s, c].map(|v| 5.0 * v), 2, 2).unwrap(), &[c, -s, s, c]);
        close(&polar_factor(&[0.0; 6], 3, 2).unwrap(), &[0.0; 6]);
        // Rank one, three rows: u v^T with u = (1, 2, 2)/3, v = (3, 4)/5.
        let (u, v) = ([1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0], [0.6, 0.8]);
        let outer: Vec<f32> = u.iter().flat_map(|u| v.map(|v| u * v)).collect();
        let scaled: Vec<f32> = outer.iter().map(|value| value * 7.0).collect();
        close(&polar_factor(&scaled, 3, 2).unwrap(), &outer);
        let turned: Vec<f32> = v.iter().flat_map(|v| u.map(|u| u * v)).collect();
        close(&polar_factor(&turned, 2, 3).unwrap(), &turned);
    }

    #[test]
    fn the_norm_is_the_sum_of_the_singular_values() {
        let device = burn::tensor::Device::flex();
        let matrix = Tensor::<2>::from_data([[3.0f32, 0.0], [0.0, -4.0], [0.0, 0.0]], &device);
        assert!((to_vec(&nuclear_norm(matrix).unwrap()).unwrap()[0] - 7.0).abs() < 1e-5);
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        assert!(polar_factor(&[f32::NAN, 1.0, 2.0, 3.0], 2, 2).is_err());
    }
}
