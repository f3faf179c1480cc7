//! Auto-PGD in l-inf and l2 (Croce and Hein 2020, arXiv 2003.01690, algorithm 1).

use super::{Maximum, Plan, passes::measure};
use crate::{
    attack::{Active, Ascent, AttackBatch, AttackContext},
    error::Result,
    rows::{self, Rows},
    threat::Threat,
};

/// Weight of the newest step; the step before it has the rest.
const MOMENTUM: f32 = 0.75;
/// A step is halved when the loss rose in at most this share of an interval's steps.
const RHO: f64 = 0.75;

/// As [`super::maximise`].
pub(super) fn maximise(
    cx: &mut AttackContext<'_>,
    batch: &AttackBatch<'_>,
    targets: &[usize],
    start: Rows,
    plan: Plan,
) -> Result<Maximum> {
    let threat = cx.threat;
    let mut active = Active::new(batch);
    let mut state = State::new(start, targets.to_vec());
    let mut checkpoints = Checkpoints::new(plan.steps);
    for step in 0..=plan.steps {
        if active.is_empty() {
            break;
        }
        if step > 0 {
            state.step(&active.x, threat, if step > 1 { MOMENTUM } else { 1.0 });
        }
        state.measure(cx, &active, plan)?;
        if plan.leave_when_fooled {
            if let Some(last) = &state.last {
                active.hint(last, &state.point);
            }
            let keep = active.drop_fooled(&state.logits, &state.point);
            state.retain(&keep.0);
        }
        state.keep_best(step == 0);
        if checkpoints.reached(step) {
            state.checkpoint(checkpoints.interval);
            checkpoints.next(step);
        }
        cx.tick(step, plan.steps, active.fooled());
    }
    let loss = state.images.iter().map(|image| image.best_loss).collect();
    let step = state.images.iter().map(|image| image.size).collect();
    Ok(Maximum { point: active.finish(&state.best), loss, step })
}

/// The steps after which step sizes are checked: 0.22 of all steps, then intervals that shrink by
/// 0.03 of all steps down to 0.06.
#[derive(Clone, Copy, Debug)]
struct Checkpoints {
    interval: usize,
    next: usize,
    shrink: usize,
    shortest: usize,
}

impl Checkpoints {
    fn new(steps: usize) -> Self {
        let share = |of: f64| ((of * steps as f64) as usize).max(1);
        let interval = share(0.22);
        Self { interval, next: interval, shrink: share(0.03), shortest: share(0.06) }
    }

    fn reached(&self, step: usize) -> bool {
        step == self.next
    }

    fn next(&mut self, step: usize) {
        self.interval = self.interval.saturating_sub(self.shrink).max(self.shortest);
        self.next = step + self.interval;
    }
}

/// The state of an image, besides its points.
#[derive(Clone, Copy, Debug)]
struct Image {
    loss: f64,
    best_loss: f64,
    previous_loss: f64,
    /// Step size in units of epsilon.
    size: f32,
    /// Steps of this interval in which the loss rose.
    rises: usize,
    /// The values at the last checkpoint: the best loss, and whether the step was halved.
    checked_loss: f64,
    halved: bool,
}

impl Image {
    const START: Self = Self {
        loss: 0.0,
        best_loss: 0.0,
        previous_loss: 0.0,
        size: 2.0,
        rises: 0,
        checked_loss: 0.0,
        halved: true,
    };
}

/// The images that are left, one row each.
#[derive(Debug)]
struct State {
    images: Vec<Image>,
    /// Target classes; empty for losses without one.
    targets: Vec<usize>,
    point: Rows,
    before: Rows,
    grad: Rows,
    logits: Rows,
    /// Logits of the last of several passes.
    last: Option<Rows>,
    best: Rows,
    best_grad: Rows,
}

impl State {
    fn new(start: Rows, targets: Vec<usize>) -> Self {
        Self {
            images: vec![Image::START; start.count()],
            targets,
            before: start.clone(),
            grad: start.clone(),
            best: start.clone(),
            best_grad: start.clone(),
            logits: Rows::default(),
            last: None,
            point: start,
        }
    }

    /// Gradient step, projection, momentum, projection.
    fn step(&mut self, x: &Rows, threat: Threat, momentum: f32) {
        let Self { point, before, grad, images, .. } = self;
        let here = point.clone();
        point.for_each(|i, z| {
            let (x, old, here) = (x.row(i), before.row(i), here.row(i));
            rows::ascend(threat.norm, z, grad.row(i), images[i].size * threat.epsilon);
            rows::project(threat, x, z);
            for ((z, here), old) in z.iter_mut().zip(here).zip(old) {
                *z = here + (*z - here) * momentum + (here - old) * (1.0 - momentum);
            }
            rows::project(threat, x, z);
        });
        *before = here;
    }

    /// Computes loss, gradient and logits at the points.
    fn measure(&mut self, cx: &AttackContext<'_>, active: &Active, plan: Plan) -> Result<()> {
        let found = measure(cx, &self.point, &active.labels, &self.targets, plan)?;
        let Ascent { loss, grad, logits } = found.sum;
        (self.grad, self.logits, self.last) = (grad, logits, found.last);
        self.images.iter_mut().zip(loss).for_each(|(image, loss)| image.loss = loss);
        Ok(())
    }

    /// Updates the best points with the loss just measured.
    fn keep_best(&mut self, first: bool) {
        for (i, image) in self.images.iter_mut().enumerate() {
            image.rises += usize::from(!first && image.loss > image.previous_loss);
            if first || image.loss > image.best_loss {
                image.best_loss = image.loss;
                self.best.row_mut(i).copy_from_slice(self.point.row(i));
                self.best_grad.row_mut(i).copy_from_slice(self.grad.row(i));
            }
            if first {
                image.checked_loss = image.loss;
            }
            image.previous_loss = image.loss;
        }
    }

    /// Halves the steps that no longer help and returns their images to their best points.
    fn checkpoint(&mut self, interval: usize) {
        for (i, image) in self.images.iter_mut().enumerate() {
            let rarely = image.rises as f64 <= RHO * interval as f64;
            let stuck = !image.halved && image.checked_loss >= image.best_loss;
            image.halved = rarely || stuck;
            if image.halved {
                image.size /= 2.0;
                self.point.row_mut(i).copy_from_slice(self.best.row(i));
                self.grad.row_mut(i).copy_from_slice(self.best_grad.row(i));
            }
            image.checked_loss = image.best_loss;
            image.rises = 0;
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        let Self { images, targets, point, before, grad, logits, best, best_grad, last: _ } = self;
        for rows in [point, before, grad, logits, best, best_grad] {
            rows.retain(keep);
        }
        rows::keep(images, keep);
        if !targets.is_empty() {
            rows::keep(targets, keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_a_hundred_steps_are_the_papers() {
        let mut checkpoints = Checkpoints::new(100);
        let mut found = Vec::new();
        for step in 0..=100 {
            if checkpoints.reached(step) {
                found.push(step);
                checkpoints.next(step);
            }
        }
        assert_eq!(found, [22, 41, 57, 70, 80, 87, 93, 99]);
    }
}
