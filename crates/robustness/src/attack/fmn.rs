//! The fast minimum-norm attack (Pintor, Roli, Brendel and Biggio 2021, arXiv 2102.12827): steps
//! along the gradient of the margin within a ball whose radius shrinks while the point is
//! adversarial and grows while it is not, so that it settles at the nearest boundary.
//!
//! Constants of the public code: 100 steps; step size from 1 down to 0.01 and change of the radius
//! from 5 % down to 0.1 %, both along a cosine. Departures: an image whose adversarial example lies
//! in the ball of the threat leaves at once; until a first example is found the radius goes beyond
//! the linear estimate of the boundary by its change, for points on the estimate may come nearer and
//! nearer to the boundary and never cross it.

use std::{f64::consts::PI, fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackInfo, Objective, Passes, names,
    registry::BOTH,
};
use crate::{
    classifier::{Access, stands},
    error::{Error, Result},
    rows::{self, Rows},
    threat::{Norm, Threat},
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "fmn",
    name: "fmn[-K]",
    summary: "fast minimum norm: the nearest adversarial image, by a radius that follows the \
         boundary, 100 steps",
    source: "Pintor et al. 2021, arXiv 2102.12827",
    norms: BOTH,
    needs: Access::Gradients,
    parse: |name, _| Ok(Box::new(name.parse::<FastMinimumNorm>()?)),
};

/// Steps where a name gives none.
const STEPS: usize = 100;
/// Size of a step, in l2: at the start and at the end.
const SIZE: [f64; 2] = [1.0, 0.01];
/// Change of the radius: at the start and at the end.
const CHANGE: [f64; 2] = [0.05, 0.001];

/// FMN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastMinimumNorm {
    /// Steps.
    pub steps: usize,
}

impl fmt::Display for FastMinimumNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell("fmn", self.steps, Some(STEPS), 1))
    }
}

impl FromStr for FastMinimumNorm {
    type Err = Error;

    /// Reads `fmn` or `fmn-K`.
    fn from_str(name: &str) -> Result<Self> {
        let steps = names::steps_alone("fmn", name)?;
        Ok(Self { steps: steps.unwrap_or(STEPS) })
    }
}

/// An image's search.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Distance of the nearest adversarial point.
    nearest: f64,
    /// Radius of the ball that the next point lies in.
    radius: f64,
}

impl Search {
    /// The radius after a point `distance` away, where the margin is `margin` and its gradient has
    /// the dual norm `dual`.
    fn look(&mut self, adversarial: bool, distance: f64, margin: f64, dual: f64, change: f64) {
        if adversarial {
            self.nearest = self.nearest.min(distance);
            self.radius = (self.radius * (1.0 - change)).min(self.nearest);
        } else if self.nearest.is_finite() {
            self.radius *= 1.0 + change;
        } else {
            // Beyond where the boundary would be if the network were linear.
            let beyond = (distance + margin.abs() / dual.max(1e-12)) * (1.0 + change);
            // Logits that have overflowed say nothing of it.
            if beyond.is_finite() {
                self.radius = beyond;
            }
        }
    }
}

/// From `first` to `last` along half a cosine.
fn annealed([first, last]: [f64; 2], done: f64) -> f64 {
    last + 0.5 * (first - last) * (1.0 + (PI * done).cos())
}

impl Attack for FastMinimumNorm {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        if cx.classes() < 2 {
            return Ok(batch.x.clone());
        }
        let norm = cx.threat.norm;
        let mut active = Active::new(batch);
        let start = Search { nearest: f64::INFINITY, radius: f64::INFINITY };
        let mut searches = vec![start; batch.len()];
        let mut point = batch.x.clone();
        for step in 0..=self.steps {
            let done = step as f64 / self.steps.max(1) as f64;
            let ascent = cx.ascend(&point, &active.labels, &[], Objective::Margin)?;
            for (i, search) in searches.iter_mut().enumerate() {
                let distance = rows::distance(norm, point.row(i), active.x.row(i));
                let adversarial = !stands(ascent.logits.row(i), active.labels[i]);
                if adversarial && distance < search.nearest {
                    active.propose(i, point.row(i));
                }
                let dual = dual_norm(norm, ascent.grad.row(i));
                search.look(adversarial, distance, ascent.loss[i], dual, annealed(CHANGE, done));
            }
            let within = |search: &Search| search.nearest <= f64::from(cx.threat.epsilon);
            let keep = active.leave(&searches.iter().map(within).collect::<Vec<_>>());
            rows::keep(&mut searches, &keep.0);
            point.retain(&keep.0);
            let grad = keep.apply(ascent.grad);
            cx.tick(step, self.steps, active.fooled());
            if active.is_empty() {
                break;
            }
            let size = annealed(SIZE, done) as f32;
            point.for_each(|i, row| {
                // Steps have a length in l2 in both norms; the projection is the threat's.
                rows::ascend(Norm::L2, row, grad.row(i), size);
                let epsilon = searches[i].radius as f32;
                rows::project(Threat { norm, epsilon }, active.x.row(i), row);
            });
        }
        Ok(active.into_candidates())
    }

    fn key(&self) -> String {
        self.to_string()
    }

    fn passes(&self, _classes: usize) -> Passes {
        Passes { forward: 0, gradient: self.steps + 1 }
    }
}

fn dual_norm(norm: Norm, grad: &[f32]) -> f64 {
    match norm {
        Norm::Linf => grad.iter().map(|g| f64::from(g.abs())).sum(),
        Norm::L2 => rows::l2(grad),
        Norm::L1 => grad.iter().fold(0.0, |most, g| most.max(f64::from(g.abs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radius_follows_the_boundary() {
        let mut search = Search { nearest: f64::INFINITY, radius: f64::INFINITY };
        search.look(false, 0.0, -2.0, 4.0, 0.5);
        assert_eq!(search.radius, 0.75);
        search.look(true, 0.4, 0.1, 4.0, 0.05);
        assert_eq!((search.nearest, search.radius), (0.4, 0.4));
        search.look(false, 0.38, -0.1, 4.0, 0.05);
        assert!((search.radius - 0.42).abs() < 1e-12);
        search.look(true, 0.41, 0.1, 4.0, 0.5);
        assert!((search.radius - 0.21).abs() < 1e-12 && search.nearest == 0.4);
        assert_eq!([0.0, 0.5, 1.0].map(|done| annealed([3.0, 1.0], done)), [3.0, 2.0, 1.0]);
    }
}
