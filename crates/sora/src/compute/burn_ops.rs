//! Operations of a step made of Burn's own, for every device.

use burn::tensor::Tensor;

use super::{Agreement, Compute, FigureInputs, Figures, SignStep};
use crate::{
    error::{Error, Result},
    loss,
    perturbation::{l2_norm, sum_per_sample},
    threat::Norm,
};

pub(super) fn sign_step(compute: &dyn Compute, step: SignStep<'_>) -> Tensor<4> {
    let SignStep { x, start, grad, factor, alpha, radius } = step;
    let mut delta = alpha.times(grad.sign());
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

/// Loss, accuracy and, after an attack pass, the share of examples whose loss has fallen since the
/// attack pass, each `[1]`.
pub(super) fn of_logits(compute: &dyn Compute, step: &FigureInputs<'_>) -> Vec<Tensor<1>> {
    let accuracy = loss::correct(step.logits.clone(), step.labels.clone()).mean();
    let losses =
        |logits: &Tensor<2>| compute.cross_entropy(logits.clone(), step.labels.clone(), 0.0);
    let fallen = |attacked| losses(step.logits).lower(losses(attacked)).float().mean();
    [step.loss.clone(), accuracy].into_iter().chain(step.attacked.map(fallen)).collect()
}

/// The figures, from the result of [`of_logits`] and the gradients' agreement.
pub(super) fn named(scalars: &[f32], agreement: Agreement) -> Result<Figures> {
    let &[loss, accuracy, ref abnormal @ ..] = scalars else {
        return Err(Error::defect("a step yielded no figures"));
    };
    Ok(Figures { loss, accuracy, abnormal: abnormal.first().copied(), agreement })
}

/// PertAlign, `[1]`: the mean over samples of the cosine between the gradients `[N, C, H, W]` of
/// the attack pass and of the training pass.
///
/// Near 1 the loss is locally linear; a sharp fall predicts catastrophic overfitting (SORA, arXiv
/// 2606.00738).
pub fn pert_align(attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let tiny = f32::MIN_POSITIVE;
    let attack = attack.clone() / l2_norm(attack).clamp_min(tiny);
    let train = train.clone() / l2_norm(train).clamp_min(tiny);
    let n = attack.dims()[0];
    sum_per_sample(attack * train).reshape([n]).mean()
}

/// The free second-order estimate, `[1]`: the mean over samples of `<p, g'> / <p, g>` with p =
/// sign(g) (l-inf) or p = g (l2). This is the ratio of the loss's slopes along the step at its end
/// and at its start, not clipped (SORA, arXiv 2606.00738).
pub fn linearity(norm: Norm, attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let n = attack.dims()[0];
    let step = along(norm, attack.clone());
    let top = sum_per_sample(step.clone() * train);
    let bottom = sum_per_sample(step * attack).clamp_min(1e-12);
    (top / bottom).reshape([n]).mean()
}

/// The direction along which linearity is measured: the gradient's sign (l-inf) or the gradient
/// (l2).
fn along(norm: Norm, attack: Tensor<4>) -> Tensor<4> {
    match norm {
        Norm::Linf => attack.sign(),
        Norm::L2 | Norm::L1 => attack,
    }
}
