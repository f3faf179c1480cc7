//! NuAT: nuclear-norm adversarial training (Sriramanan et al. 2021, "Towards efficient and
//! effective adversarial training", NeurIPS).
//!
//! With random signs s, `d0 = start s`; g is the gradient by `d0` of
//! `CE(f(x + d0)) + lambda ||f(x) - f(x + d0)||_* / N` with f(x) constant;
//! `delta = box(ball(d0 + eps sign g))`. The loss is
//! `CE(f(x)) + lambda ||f(x) - f(x + delta)||_* / N`, where both logits are differentiated. `||.||_*`
//! is the sum of the singular values of the N x K matrix. f(x) is computed without a graph for the
//! attack, in train mode, and with one for the loss.
//!
//! In the authors' repository (`official`) the attack pass is in eval mode, and its nuclear term is
//! present in every other batch of an epoch, from the second on. lambda grows from 0, by equal
//! steps after each epoch, to its value 10 epochs before the end (in a run of at most 10 epochs: at
//! the end). start is 4/255 at every epsilon. The running statistics see x, x + delta and x again.
//! The SORA reference (`reference`) attacks in train mode with the nuclear term in every batch,
//! lambda 4 throughout and start eps/2; its running statistics see x and x + delta.
//!
//! The subgradient of ||M||_* is `U V^T` of the thin singular value decomposition over the singular
//! values above the rounding error of f32. Where values repeat, U V^T does not depend on the choice
//! of vectors; where they vanish, it is the subgradient of least norm.

use burn::tensor::{Tensor, TensorData};
use nalgebra::{DMatrix, SVD};
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, Passes, Place, StepContext, StepOutput,
    TrainBatch, Variant, options::ranges,
};
use crate::{
    error::{Error, Result},
    loss::cross_entropy,
    nn::{BnMode, to_vec},
    noise::Draw,
    perturbation::Perturb,
    ranks::share,
    threat::Norm,
};

/// The row of `nuat`.
pub static INFO: MethodInfo = MethodInfo {
    name: "nuat",
    summary: "one step from a random corner; the nuclear norm of the change of the logits is \
              attacked and penalised",
    source: "Sriramanan et al. 2021, NeurIPS",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Eval,
    stored_images: 0,
    passes: Passes { forward: 4, backward_input: 1, backward_full: 2 },
    bound: 1.0,
    options: Options::defaults::<NuAt>,
    build: Options::build::<NuAt>,
};

/// NuAT training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NuAt {
    /// Step size in epsilons, 0 to 100.
    pub alpha: f64,
    /// Weight of the nuclear norm, at the end of its growth.
    pub lambda: f64,
    /// Size of the random start in units of 8/255 (official) or epsilon (reference), 0 to 1.
    pub start: f64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

impl Default for NuAt {
    fn default() -> Self {
        Self { alpha: 1.0, lambda: 4.5, start: 0.5, variant: Variant::Official }
    }
}

impl Hyperparameters for NuAt {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("lambda", self.lambda, 0.0, 1e6),
            ("start", self.start, 0.0, 1.0),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }

    fn reference() -> Option<Self> {
        Some(Self { lambda: 4.0, variant: Variant::Reference, ..Self::default() })
    }
}

impl NuAt {
    /// The weight of the nuclear norm in the loss.
    fn weight(&self, Place { epoch, epochs, .. }: Place) -> f64 {
        match self.variant {
            Variant::Official => {
                let growth = if epochs > 10 { epochs - 10 } else { epochs.max(1) };
                self.lambda * (epoch.min(growth) as f64 / growth as f64)
            }
            Variant::Reference => self.lambda,
        }
    }

    /// Whether the attack of a step has the nuclear term.
    fn attacks_the_norm(&self, Place { epoch, epochs, step, steps }: Place) -> bool {
        let first = epoch * (steps / epochs.max(1));
        self.variant == Variant::Reference || step.saturating_sub(first) % 2 == 1
    }
}

/// `U V^T` of the `rows` x `columns` matrix `values` (row-major), over the singular values that
/// differ from 0 in f32's accuracy.
fn polar_factor(values: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>> {
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::unfit(
            "nuat",
            "the logits are not finite: training has diverged; try a smaller `lr_max`",
        ));
    }
    let matrix = DMatrix::from_row_iterator(rows, columns, values.iter().map(|&v| f64::from(v)));
    let svd = SVD::try_new(matrix, true, true, f64::EPSILON, 10_000);
    let Some((Some(u), s, Some(v_t))) = svd.map(|svd| (svd.u, svd.singular_values, svd.v_t)) else {
        return Err(Error::defect("the singular values of a change of logits were not found"));
    };
    let zero = s.max() * f64::from(f32::EPSILON) * rows.max(columns) as f64;
    let mut factor = DMatrix::zeros(rows, columns);
    for (k, _) in s.iter().enumerate().filter(|(_, s)| **s > zero) {
        factor += u.column(k) * v_t.row(k);
    }
    Ok(factor.transpose().iter().map(|&v| v as f32).collect())
}

/// The nuclear norm of `[N, K]`, as `[1]`. It is computed as `<M, U V^T>`, which has the norm's
/// value and gradient.
fn nuclear_norm(matrix: Tensor<2>) -> Result<Tensor<1>> {
    let [n, k] = matrix.dims();
    let values = matrix.clone().inner();
    let (all, place) = share::rows(to_vec(&values)?);
    let factor = polar_factor(&all, all.len() / k.max(1), k)?;
    let factor = factor[place..place + n * k].to_vec();
    let factor = Tensor::<2>::from_data(TensorData::new(factor, [n, k]), &values.device());
    Ok((matrix * factor).sum())
}

impl Method for NuAt {
    fn attack_bn(&self) -> Option<BnMode> {
        Some(match self.variant {
            Variant::Official => BnMode::Eval,
            Variant::Reference => BnMode::Train,
        })
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (n, epsilon) = (batch.x.dims()[0] as f64, cx.threat.epsilon);
        let (official, weight) = (self.variant == Variant::Official, self.weight(cx.place) / n);
        let in_attack = if self.attacks_the_norm(cx.place) { weight } else { 0.0 };
        let clean = if official {
            cx.logits_in(batch.x.clone(), BnMode::Train)
        } else {
            cx.logits(batch.x.clone())
        };
        let size = self.start as f32 * if official { 8.0 / 255.0 } else { epsilon };
        let start = batch.clamp_to_box(cx.noise.sign(Draw::Sign, batch.x.dims()) * size);
        let attack = cx.input_gradient_of(batch.at(&start), |logits| {
            let loss = cross_entropy(logits.clone(), batch.labels.clone());
            if in_attack == 0.0 {
                return Ok(loss);
            }
            Ok(loss + nuclear_norm(logits - clean.clone())? * in_attack)
        })?;
        let alpha = self.alpha as f32 * epsilon;
        let delta =
            batch.clamp_to_box(cx.threat.project(start + attack.grad.clone().sign() * alpha));
        let out = cx.train_with(batch, delta, Some(attack.grad), |pass| {
            // This is the order in which the running statistics see the images.
            let (clean, logits) = if official {
                let logits = pass.at_point();
                (pass.forward(batch.x.clone()), logits)
            } else {
                (pass.forward_again(batch.x.clone()), pass.at_point())
            };
            let loss = pass.cross_entropy(clean.clone(), &batch.labels);
            if weight == 0.0 {
                return Ok((loss, logits));
            }
            let distance = nuclear_norm(logits.clone() - clean)?;
            Ok((loss + distance * weight, logits))
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
        // A matrix of rank one with three rows: u v^T with u = (1, 2, 2)/3, v = (3, 4)/5.
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

    #[test]
    fn the_official_weight_grows_and_the_norm_is_attacked_in_every_other_batch() {
        let place = |epoch, step| Place { epoch, epochs: 30, step, steps: 90 };
        let weights = [0, 10, 20, 29].map(|epoch| NuAt::default().weight(place(epoch, 0)));
        assert_eq!(weights, [0.0, 2.25, 4.5, 4.5]);
        let official = NuAt::default();
        let attacks: Vec<bool> =
            (3..9).map(|step| official.attacks_the_norm(place(step / 3, step))).collect();
        assert_eq!(attacks, [false, true, false, false, true, false]);
        let reference = NuAt::reference().unwrap();
        assert!((0..90).all(|step| reference.attacks_the_norm(place(step / 3, step))));
        assert_eq!(reference.weight(place(0, 0)), 4.0);
    }
}
