//! Burn's own operations as a [`Compute`]: any device.

use burn::tensor::{Int, Tensor, activation::log_softmax};
use sora_kernels::sgd::Sgd;

use super::{Compute, Figures, SignStep, Trained};
use crate::{
    error::{Error, Result},
    loss,
    nn::{Backend, TensorSet, to_vec},
    perturbation::{l2_norm, sum_per_sample},
    threat::Norm,
};

/// Whatever device Burn has.
#[derive(Debug)]
pub(super) struct BurnOps;

impl Compute for BurnOps {
    fn layers(&self) -> Backend {
        Backend::Burn
    }

    fn sign_step(&self, step: SignStep<'_>) -> Tensor<4> {
        sign_step(self, step)
    }

    fn clamp_to_box(&self, x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
        clamp_to_box(x, delta)
    }

    fn cross_entropy(
        &self,
        logits: Tensor<2>,
        labels: Tensor<1, Int>,
        smoothing: f32,
    ) -> Tensor<1> {
        let n = logits.dims()[0];
        let log = log_softmax(logits, 1);
        let hard = log.clone().gather(1, labels.reshape([n, 1])).reshape([n]).neg();
        if smoothing == 0.0 {
            return hard;
        }
        hard * (1.0 - smoothing) - log.mean_dim(1).reshape([n]) * smoothing
    }

    fn figures(&self, step: &Trained<'_>) -> Result<Figures> {
        let Trained { norm, attack, train, delta, .. } = *step;
        let parts = vec![
            step.loss.clone(),
            loss::correct(step.logits.clone(), step.labels.clone()).mean(),
            pert_align(attack.clone(), train.clone()),
            linearity(norm, attack.clone(), train.clone()),
            delta.clone().abs().mean(),
        ];
        named(&to_vec(&Tensor::cat(parts, 0))?)
    }

    fn sgd_update(
        &self,
        rule: &Sgd,
        params: &mut TensorSet,
        momenta: &mut TensorSet,
        gradients: Vec<Tensor<1>>,
    ) {
        for (index, gradient) in gradients.into_iter().enumerate() {
            let value = params.take(index);
            let gradient = gradient + value.clone() * rule.weight_decay;
            let momentum = momenta.take(index) * rule.momentum + gradient.clone();
            let step = if rule.nesterov {
                gradient + momentum.clone() * rule.momentum
            } else {
                momentum.clone()
            };
            params.set(index, value - step * rule.learning_rate);
            momenta.set(index, momentum);
        }
    }
}

pub(super) fn sign_step(compute: &dyn Compute, step: SignStep<'_>) -> Tensor<4> {
    let SignStep { x, start, grad, factor, alpha, radius } = step;
    let mut delta = grad.sign() * alpha;
    if let Some(factor) = factor {
        delta = delta * factor;
    }
    if let Some(start) = start {
        delta = start + delta;
    }
    if let Some(radius) = radius {
        delta = delta.clamp(-radius, radius);
    }
    compute.clamp_to_box(x, delta)
}

pub(super) fn clamp_to_box(x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
    let high = x.clone().neg().add_scalar(1.0);
    delta.min_pair(high).max_pair(x.clone().neg())
}

/// The figures by their names, from loss, accuracy, PertAlign, linearity and mean perturbation.
pub(super) fn named(scalars: &[f32]) -> Result<Figures> {
    let &[loss, accuracy, pert_align, linearity, delta_mean] = scalars else {
        return Err(Error::work(format!("a step yielded {} figures instead of 5", scalars.len())));
    };
    Ok(Figures { loss, accuracy, pert_align, linearity, delta_mean })
}

/// Mean over samples of the cosine between the attack pass's gradient and the training pass's:
/// PertAlign, `[1]`.
///
/// Near 1 the loss is locally linear; a sharp fall foretells catastrophic overfitting (SORA, arXiv
/// 2606.00738).
pub fn pert_align(attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let tiny = f32::MIN_POSITIVE;
    let attack = attack.clone() / l2_norm(attack).clamp_min(tiny);
    let train = train.clone() / l2_norm(train).clamp_min(tiny);
    let n = attack.dims()[0];
    sum_per_sample(attack * train).reshape([n]).mean()
}

/// The free second-order estimate, `[1]`: mean over samples of `<p, g'> / <p, g>` with p = sign(g)
/// (l-inf) or p = g (l2), the ratio of the loss's slopes along the step at its end and at its
/// start; not clipped (SORA, arXiv 2606.00738).
pub fn linearity(norm: Norm, attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let n = attack.dims()[0];
    let step = match norm {
        Norm::Linf => attack.clone().sign(),
        Norm::L2 => attack.clone(),
    };
    let top = sum_per_sample(step.clone() * train);
    let bottom = sum_per_sample(step * attack).clamp_min(1e-12);
    (top / bottom).reshape([n]).mean()
}
