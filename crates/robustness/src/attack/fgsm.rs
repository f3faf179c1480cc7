//! The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572); in l2 the step follows
//! the normalised gradient.

use super::{Attack, AttackContext, Batch, Objective, rows};
use crate::error::Result;

/// One step of size epsilon from the clean image.
#[derive(Clone, Copy, Debug)]
pub struct Fgsm;

impl Attack for Fgsm {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let ascent = cx.ascend(batch.x, batch.labels, &[], Objective::CrossEntropy)?;
        let (threat, width) = (cx.threat, cx.pixels());
        let mut out = batch.x.to_vec();
        rows::for_each(&mut out, width, |i, point| {
            rows::ascend(threat.norm, point, rows::row(&ascent.grad, width, i), threat.epsilon);
            rows::project(threat, rows::row(batch.x, width, i), point);
        });
        Ok(out)
    }
}
