//! Auto-PGD in l1 (Croce and Hein 2021, arXiv 2103.01208, algorithm 1): steps along the signs of the
//! largest gradients alone, as many as the best point so far suggests, and three radii, from three
//! times epsilon down to epsilon.
//!
//! Constants of the paper and of the public code: 0.3, 0.3 and 0.4 of the steps at 3, 2 and 1
//! epsilon; after every 0.04 of a radius' steps the sparsity is set to two thirds of the best point's
//! changes; where that falls by less than a twentieth the step is divided by 1.5 (down to a tenth of
//! the radius), else it is the radius again and the search goes back to the best point. Departure:
//! changes are counted where the point differs from the image at all, and the projection leaves no
//! rounding errors behind that would count.

use super::{Maximum, Plan, passes::measure};
use crate::{
    attack::{Active, AttackBatch, AttackContext, AttackDraw},
    error::Result,
    rows::{self, Rows},
    threat::Threat,
};

/// Radii in units of epsilon, and their shares of the steps.
pub(super) const RADII: [(f32, f64); 3] = [(3.0, 0.3), (2.0, 0.3), (1.0, 0.4)];
/// Share of a radius' steps between two looks.
const INTERVAL: f64 = 0.04;
/// The step is divided by this where the sparsity no longer falls, down to [`LEAST`] of the radius.
const REDUCTION: f32 = 1.5;
const LEAST: f32 = 0.1;
/// The sparsity falls where it is below this part of the last.
const FALLS: f64 = 0.95;

/// Random starts: normal noise, to be projected.
pub(super) fn starts(cx: &AttackContext<'_>, batch: &AttackBatch<'_>) -> Rows {
    let mut out = Rows::zeros(batch.len(), cx.pixels());
    cx.fill_normal(AttackDraw::Direction, &mut out, batch.keys);
    out.iter_mut().zip(batch.x.iter()).for_each(|(v, x)| *v += x);
    out
}

/// As [`super::maximise`].
pub(super) fn maximise(
    cx: &mut AttackContext<'_>,
    batch: &AttackBatch<'_>,
    targets: &[usize],
    start: Rows,
    plan: Plan,
) -> Result<Maximum> {
    let mut search =
        Search { active: Active::new(batch), targets: targets.to_vec(), plan, done: 0 };
    let mut best = start;
    let mut images = Vec::new();
    let mut left = plan.steps;
    for (k, (radius, share)) in RADII.into_iter().enumerate() {
        let last = k + 1 == RADII.len();
        let steps = if last { left } else { (share * plan.steps as f64).ceil() as usize };
        let steps = steps.min(left);
        left -= steps;
        (best, images) = search.within(cx, best, Radius { value: radius, steps, last })?;
    }
    let loss = images.iter().map(|image| image.best_loss).collect();
    let step = images.iter().map(|image| image.size).collect();
    Ok(Maximum { point: search.active.finish(&best), loss, step })
}

/// A stage of the search.
#[derive(Clone, Copy, Debug)]
struct Radius {
    /// In units of epsilon.
    value: f32,
    steps: usize,
    /// Whether it is epsilon itself, so that what is fooled may leave.
    last: bool,
}

/// What is known of an image, besides its points.
#[derive(Clone, Copy, Debug)]
struct Image {
    best_loss: f64,
    /// Step in units of the radius.
    size: f32,
    /// Changes of the best point at the last look: a step follows two thirds as many gradients.
    changes: usize,
}

/// The images that are left.
#[derive(Debug)]
struct Search {
    active: Active,
    targets: Vec<usize>,
    plan: Plan,
    /// Steps made so far.
    done: usize,
}

/// Points and gradients of one stage.
#[derive(Debug)]
struct Points {
    point: Rows,
    grad: Rows,
    best: Rows,
    best_grad: Rows,
    images: Vec<Image>,
}

impl Search {
    /// Searches within one radius from `start`; the best points of the images that are left.
    fn within(
        &mut self,
        cx: &mut AttackContext<'_>,
        start: Rows,
        radius: Radius,
    ) -> Result<(Rows, Vec<Image>)> {
        let threat = Threat { epsilon: radius.value * cx.threat.epsilon, ..cx.threat };
        let mut points = Points::new(start);
        points.point.for_each(|i, z| rows::project(threat, self.active.x.row(i), z));
        let interval = ((INTERVAL * radius.steps as f64) as usize).max(1);
        for step in 0..=radius.steps {
            if self.active.is_empty() {
                break;
            }
            if step > 0 {
                points.step(&self.active.x, threat);
            }
            self.measure(cx, &mut points, radius.last, step == 0)?;
            if step == 0 {
                points.begin(&self.active.x);
            } else if step.is_multiple_of(interval) {
                points.look(&self.active.x);
            }
            self.done += usize::from(step > 0);
            cx.tick(self.done, self.plan.steps, self.active.fooled());
        }
        let Points { best, images, .. } = points;
        Ok((best, images))
    }

    /// Measures at the points; what is fooled leaves, if it may.
    fn measure(
        &mut self,
        cx: &AttackContext<'_>,
        points: &mut Points,
        last: bool,
        first: bool,
    ) -> Result<()> {
        let found = measure(cx, &points.point, &self.active.labels, &self.targets, self.plan)?;
        let mut loss = found.sum.loss;
        points.grad = found.sum.grad;
        if last && self.plan.leave_when_fooled {
            if let Some(last) = &found.last {
                self.active.hint(last, &points.point);
            }
            let keep = self.active.drop_fooled(&found.sum.logits, &points.point);
            points.retain(&keep.0);
            rows::keep(&mut loss, &keep.0);
            if !self.targets.is_empty() {
                rows::keep(&mut self.targets, &keep.0);
            }
        }
        points.keep_best(&loss, first);
        Ok(())
    }
}

impl Points {
    fn new(point: Rows) -> Self {
        let start = Image { best_loss: 0.0, size: 1.0, changes: 0 };
        Self {
            images: vec![start; point.count()],
            grad: Rows::default(),
            best: Rows::zeros(point.count(), point.width()),
            best_grad: Rows::zeros(point.count(), point.width()),
            point,
        }
    }

    /// The sparsity of a stage's first step is that of its start.
    fn begin(&mut self, x: &Rows) {
        for (i, image) in self.images.iter_mut().enumerate() {
            image.changes = changes(self.point.row(i), x.row(i));
        }
    }

    /// A step along the signs of the largest gradients, and the projection.
    fn step(&mut self, x: &Rows, threat: Threat) {
        let Self { point, grad, images, .. } = self;
        point.for_each(|i, z| {
            let (g, image) = (grad.row(i), images[i]);
            let least = least_followed(g, (2 * image.changes).div_ceil(3));
            let follows = |g: f32| g.abs() >= least && g != 0.0;
            let count = g.iter().filter(|g| follows(**g)).count();
            let way = image.size * threat.epsilon / count.max(1) as f32;
            for (z, &g) in z.iter_mut().zip(g).filter(|(_, g)| follows(**g)) {
                *z += way.copysign(g);
            }
            rows::project(threat, x.row(i), z);
        });
    }

    fn keep_best(&mut self, loss: &[f64], first: bool) {
        for (i, (image, &loss)) in self.images.iter_mut().zip(loss).enumerate() {
            if first || loss > image.best_loss {
                image.best_loss = loss;
                self.best.row_mut(i).copy_from_slice(self.point.row(i));
                self.best_grad.row_mut(i).copy_from_slice(self.grad.row(i));
            }
        }
    }

    /// Sets sparsities and steps by the best points; where the sparsity falls, the search goes back
    /// to the best point.
    fn look(&mut self, x: &Rows) {
        for (i, image) in self.images.iter_mut().enumerate() {
            let now = changes(self.best.row(i), x.row(i));
            if (now as f64) < FALLS * image.changes as f64 {
                image.size = 1.0;
                self.point.row_mut(i).copy_from_slice(self.best.row(i));
                self.grad.row_mut(i).copy_from_slice(self.best_grad.row(i));
            } else {
                image.size = (image.size / REDUCTION).max(LEAST);
            }
            image.changes = now;
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        let Self { point, grad, best, best_grad, images } = self;
        for rows in [point, grad, best, best_grad] {
            rows.retain(keep);
        }
        rows::keep(images, keep);
    }
}

/// Values in which a point differs from its image.
fn changes(point: &[f32], x: &[f32]) -> usize {
    point.iter().zip(x).filter(|(p, x)| p != x).count()
}

/// The smallest absolute value among the `followed` largest of `grad`, at least one.
fn least_followed(grad: &[f32], followed: usize) -> f32 {
    let place = grad.len() - followed.clamp(1, grad.len());
    let mut sizes: Vec<f32> = grad.iter().map(|g| g.abs()).collect();
    *sizes.select_nth_unstable_by(place, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_of_the_gradients_is_followed() {
        let grad = [0.1, -0.5, 0.3, 0.0, -0.2];
        let least = [1, 2, 5, 0, 9].map(|followed| least_followed(&grad, followed));
        assert_eq!(least, [0.5, 0.3, 0.0, 0.5, 0.0]);
        assert_eq!(changes(&[0.5, 0.25, 0.0], &[0.5, 0.5, 0.0]), 1);
    }
}
