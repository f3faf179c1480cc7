//! DeepFool (Moosavi-Dezfooli, Fawzi and Frossard 2016, arXiv 1511.04599): steps to the nearest
//! linearised boundary, one after another, until the image is misclassified.
//!
//! Constants of the public code: at most 50 steps, the 10 likeliest classes (of the image itself,
//! so that 9 boundaries are looked at), each point 0.02 beyond the sum of the steps. Departure:
//! points are clipped to [0, 1].

use std::{fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackInfo, Passes, names, plane::Plane,
    registry::BOTH, targets,
};
use crate::{
    classifier::Access,
    error::{Error, Result},
    rows::{self, Rows},
    threat::Norm,
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "deepfool",
    name: "deepfool[-K]",
    summary: "DeepFool: steps to the nearest linearised boundary until the image is \
         misclassified, 50 at most",
    source: "Moosavi-Dezfooli et al. 2016, arXiv 1511.04599",
    norms: BOTH,
    needs: Access::Gradients,
    parse: |name, _| Ok(Box::new(name.parse::<DeepFool>()?)),
};

/// Steps where a name gives none.
const STEPS: usize = 50;
/// Boundaries that are looked at, at most.
const BOUNDARIES: usize = 9;
/// How far beyond the sum of its steps a point lies, relative to it.
const OVERSHOOT: f32 = 0.02;

/// DeepFool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeepFool {
    /// Steps at most.
    pub steps: usize,
}

impl fmt::Display for DeepFool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell("deepfool", self.steps, Some(STEPS), 1))
    }
}

impl FromStr for DeepFool {
    type Err = Error;

    /// Reads `deepfool` or `deepfool-K`.
    fn from_str(name: &str) -> Result<Self> {
        let steps = names::steps_alone("deepfool", name)?;
        Ok(Self { steps: steps.unwrap_or(STEPS) })
    }
}

impl Attack for DeepFool {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        if cx.classes() < 2 {
            return Ok(batch.x.clone());
        }
        let norm = cx.threat.norm;
        let mut active = Active::new(batch);
        let clean = cx.logits(batch.x)?;
        let mut others: Vec<Vec<usize>> =
            clean.each().zip(batch.labels).map(|(z, &y)| targets(z, y)).collect();
        let mut way = Rows::zeros(batch.len(), cx.pixels());
        let mut point = batch.x.clone();
        for step in 0..self.steps {
            let plane = nearest(cx, &point, &active.labels, &others)?;
            let keep = active.drop_fooled(&plane.logits, &point);
            rows::keep(&mut others, &keep.0);
            let (mut plane, mut kept_way) = (plane, keep.apply(way));
            plane.retain(&keep.0);
            kept_way.for_each(|i, way| step_to(norm, way, plane.normal.row(i), plane.offset[i]));
            way = kept_way;
            point = active.x.clone();
            point.for_each(|i, point| {
                let beyond = |(p, w): (&mut f32, &f32)| {
                    *p = (*p + (1.0 + OVERSHOOT) * w).clamp(0.0, 1.0);
                };
                point.iter_mut().zip(way.row(i)).for_each(beyond);
            });
            cx.tick(step + 1, self.steps, active.fooled());
            if active.is_empty() {
                break;
            }
        }
        Ok(active.finish(&point))
    }

    fn key(&self) -> String {
        self.to_string()
    }

    fn passes(&self, classes: usize) -> Passes {
        let boundaries = BOUNDARIES.min(classes.saturating_sub(1));
        Passes { forward: 1, gradient: self.steps * boundaries }
    }
}

/// Of the boundaries to each image's likeliest other classes the nearest.
fn nearest(
    cx: &AttackContext<'_>,
    point: &Rows,
    labels: &[usize],
    others: &[Vec<usize>],
) -> Result<Plane> {
    let norm = cx.threat.norm;
    let mut best = Plane::to(cx, point, labels, |i| others[i][0])?;
    let mut least = best.distances(norm);
    let further = (1..BOUNDARIES.min(cx.classes() - 1))
        .map(|rank| Plane::to(cx, point, labels, |i| others[i][rank]));
    for plane in further {
        let plane = plane?;
        for (i, distance) in plane.distances(norm).into_iter().enumerate() {
            if distance < least[i] {
                least[i] = distance;
                best.offset[i] = plane.offset[i];
                best.normal.row_mut(i).copy_from_slice(plane.normal.row(i));
            }
        }
    }
    Ok(best)
}

/// Adds to `way` the shortest step onto the plane with this normal, `offset` away.
fn step_to(norm: Norm, way: &mut [f32], normal: &[f32], offset: f64) {
    let size = offset.abs();
    match norm {
        Norm::Linf | Norm::L1 => {
            let sizes = normal.iter().map(|w| f64::from(w.abs()));
            let dual = if norm == Norm::Linf { sizes.sum() } else { sizes.fold(0.0, f64::max) };
            rows::ascend(norm, way, normal, (size / dual.max(1e-12)) as f32);
        }
        Norm::L2 => {
            let scale = size / rows::l2(normal).powi(2).max(1e-24);
            let add = |(way, w): (&mut f32, &f32)| *way += (scale * f64::from(*w)) as f32;
            way.iter_mut().zip(normal).for_each(add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_on_the_plane() {
        let normal = [3.0, -4.0];
        for (norm, expected) in [(Norm::L2, [0.3, -0.4]), (Norm::Linf, [2.5 / 7.0, -2.5 / 7.0])] {
            let mut way = [0.0; 2];
            step_to(norm, &mut way, &normal, -2.5);
            let value: f32 = way.iter().zip(normal).map(|(d, w)| d * w).sum();
            assert!((value - 2.5).abs() < 1e-6);
            assert!(way.iter().zip(expected).all(|(d, e)| (d - e).abs() < 1e-6), "{norm}");
        }
    }
}
