//! Loss and gradient over several passes of a network that is random: expectation over
//! transformation (EOT; Athalye, Carlini and Wagner 2018, arXiv 1802.00420).

use super::Plan;
use crate::{
    attack::{Ascent, AttackContext, Objective},
    error::Result,
    rows::Rows,
};

/// What was found at some points.
#[derive(Debug)]
pub(super) struct Measured {
    /// Sums over the passes. Only directions of gradients and the order of logits and losses matter
    /// to an attack: sums serve as well as means.
    pub sum: Ascent,
    /// Logits of the last pass, where there were several.
    pub last: Option<Rows>,
}

/// Loss, gradient and logits at `point`, over [`Plan::eot`] passes.
pub(super) fn measure(
    cx: &AttackContext<'_>,
    point: &Rows,
    labels: &[usize],
    targets: &[usize],
    plan: Plan,
) -> Result<Measured> {
    let mut sum = cx.ascend(point, labels, targets, plan.objective)?;
    if plan.eot <= 1 {
        return Ok(Measured { sum, last: None });
    }
    let mut last = None;
    unscale(&mut sum, plan.objective);
    for _ in 1..plan.eot {
        let mut more = cx.ascend(point, labels, targets, plan.objective)?;
        unscale(&mut more, plan.objective);
        sum.grad.iter_mut().zip(more.grad.iter()).for_each(|(a, b)| *a += b);
        sum.logits.iter_mut().zip(more.logits.iter()).for_each(|(a, b)| *a += b);
        sum.loss.iter_mut().zip(more.loss).for_each(|(a, b)| *a += b);
        last = Some(more.logits);
    }
    Ok(Measured { sum, last })
}

/// Scales the cross-entropy's gradient, which is normalised, back to its true size, so that passes
/// can be averaged.
fn unscale(ascent: &mut Ascent, objective: Objective) {
    if objective == Objective::CrossEntropy {
        let Ascent { loss, grad, .. } = ascent;
        grad.for_each(|i, row| row.iter_mut().for_each(|g| *g *= -(-loss[i]).exp_m1() as f32));
    }
}
