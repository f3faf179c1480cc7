//! The fast adaptive boundary attack (Croce and Hein 2020, arXiv 1907.02044). It looks for the
//! nearest adversarial image by projecting repeatedly on the linearised decision boundary. `fab`
//! follows the nearest of all boundaries, `fab-t` the boundaries to the likeliest other classes one
//! by one.
//!
//! The constants are those of the public code: 100 steps, alpha_max 0.1, overshoot eta 1.05,
//! backward step beta 0.9, 9 target classes; the first restart begins at the image, later restarts
//! at random points. Departures: an image whose adversarial example lies in the ball leaves at
//! once; where a point is not expected to be adversarial, the forward pass that checks it also
//! gives the next step's gradient; a random start that is adversarial counts.

mod projection;

use std::{fmt, str::FromStr};

pub use projection::project_on_plane;

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, HALVINGS, Keep, Passes,
    names::{self, Numbers},
    nearest_between,
    plane::Plane,
    registry::EVERY,
    targets,
};
use crate::{
    classifier::{Access, Shape, stands},
    error::{Error, Result},
    rows::{self, Rows},
    threat::{Norm, Threat},
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "fab",
    name: "fab[-K[xR]]",
    summary: "fast adaptive boundary: the nearest adversarial image, 100 steps",
    source: "Croce and Hein 2020, arXiv 1907.02044",
    norms: EVERY,
    needs: Access::Gradients,
    parse: |name, _| Ok(Box::new(name.parse::<Fab>()?)),
};

pub(super) const TARGETED: AttackInfo = AttackInfo {
    base: "fab-t",
    name: "fab-t[-K[xR]]",
    summary: "fast adaptive boundary towards each of the 9 likeliest other classes, 100 steps each",
    ..INFO
};

/// Largest weight of the step towards the image.
const ALPHA_MAX: f64 = 0.1;
/// Factor by which a step overshoots the boundary.
const ETA: f64 = 1.05;
/// Factor of the backward step once a point is adversarial.
const BETA: f32 = 0.9;
/// Steps of a round when the attack's name gives no number.
const STEPS: usize = 100;
/// Most target classes of the targeted form.
const TARGETS: usize = 9;

/// FAB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fab {
    /// Whether each round attacks towards one target class.
    pub targeted: bool,
    /// Steps of a round; 100 in the public code.
    pub steps: usize,
    /// Restarts (of each target class).
    pub restarts: usize,
    /// Whether the attack goes on after an adversarial example within epsilon, to find the nearest;
    /// it then ends with a search on the segment back to the image.
    pub minimise: bool,
}

impl fmt::Display for Fab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell(self.base(), self.steps, Some(STEPS), self.restarts))
    }
}

impl FromStr for Fab {
    type Err = Error;

    /// Reads `fab[-K[xR]]` or `fab-t[-K[xR]]`.
    fn from_str(name: &str) -> Result<Self> {
        let targeted = name.starts_with("fab-t");
        let base = if targeted { "fab-t" } else { "fab" };
        let Numbers { steps, restarts } = Numbers::after(base, name)?;
        Ok(Self { targeted, steps: steps.unwrap_or(STEPS), restarts, minimise: false })
    }
}

impl Fab {
    fn base(&self) -> &'static str {
        if self.targeted { "fab-t" } else { "fab" }
    }

    /// Random starts of later restarts, at half of epsilon from the image.
    fn starts(&self, cx: &AttackContext<'_>, batch: &AttackBatch<'_>) -> Rows {
        let Threat { norm, epsilon } = cx.threat;
        let mut out = Rows::zeros(batch.len(), cx.pixels());
        match norm {
            Norm::Linf => {
                cx.fill_uniform(AttackDraw::Eta, &mut out, batch.keys);
                out.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
            }
            Norm::L2 | Norm::L1 => cx.fill_normal(AttackDraw::Direction, &mut out, batch.keys),
        }
        out.for_each(|i, row| {
            if batch.keys[i].round.is_multiple_of(self.restarts.max(1)) {
                row.copy_from_slice(batch.x.row(i));
                return;
            }
            rows::scale_to(norm, row, epsilon / 2.0);
            row.iter_mut().zip(batch.x.row(i)).for_each(|(v, x)| *v = (*v + x).clamp(0.0, 1.0));
        });
        out
    }
}

impl Attack for Fab {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let classes = cx.classes();
        if classes < 2 {
            return Ok(batch.x.clone());
        }
        let target = if self.targeted {
            let rank = |round: usize| (round / self.restarts.max(1)).min(classes - 2);
            let logits = cx.logits(batch.x)?;
            let rows = logits.each().zip(batch.labels).zip(batch.keys);
            rows.map(|((z, &label), key)| Some(targets(z, label)[rank(key.round)])).collect()
        } else {
            vec![None; batch.len()]
        };
        let start = self.starts(cx, batch);
        let mut search = Search::new(cx.threat, self.minimise, batch, start, target);
        for step in 0..self.steps {
            let Some(plane) = search.plane(cx)? else { break };
            let Search { active, point, threat, .. } = &mut search;
            point.for_each(|i, z| {
                towards(threat.norm, active.x.row(i), z, plane.normal.row(i), plane.offset[i]);
            });
            cx.tick(step + 1, self.steps, search.active.fooled());
        }
        if !search.active.is_empty() {
            let logits = cx.logits(&search.point)?;
            search.look(&positions(vec![true; search.active.len()]), &logits);
        }
        let active = search.active;
        if self.minimise {
            // This is the paper's final search.
            return nearest_between(cx, batch, active.into_candidates());
        }
        Ok(active.into_candidates())
    }

    fn key(&self) -> String {
        // All restarts of one target class come before the next class, so their number shifts the
        // rounds.
        let restarts = if self.targeted { self.restarts } else { 1 };
        let key = names::spell(self.base(), self.steps, Some(STEPS), restarts);
        if self.minimise { key + "-minimise" } else { key }
    }

    fn rounds(&self, classes: usize) -> usize {
        if self.targeted {
            self.restarts * TARGETS.min(classes.saturating_sub(1))
        } else {
            self.restarts
        }
    }

    fn passes(&self, classes: usize) -> Passes {
        // A step whose point turns out adversarial takes its gradient again where the search goes
        // back to, and the step after it begins with a forward pass: that is every other one at most.
        let planes = self.steps + self.steps.div_ceil(2);
        let of_all = self.steps + 1 + usize::from(self.targeted);
        Passes {
            forward: of_all + if self.minimise { HALVINGS } else { 0 },
            gradient: planes * if self.targeted { 1 } else { classes },
        }
    }

    fn note(&self, shape: Shape) -> Option<String> {
        (self.targeted && shape.classes <= TARGETS).then(|| {
            let k = shape.classes;
            format!(
                "fab-t: {} target classes instead of {TARGETS}: the network has {k} classes",
                k.saturating_sub(1)
            )
        })
    }
}

/// The state of an image, besides its point.
#[derive(Clone, Copy, Debug)]
struct Image {
    /// The target class; `None` means the nearest of all.
    target: Option<usize>,
    /// Distance of the nearest adversarial point.
    nearest: f64,
    /// Whether the point of this step was adversarial.
    adversarial: bool,
    /// Whether this step began with a forward pass: so it is where the last point was adversarial.
    asked: bool,
}

/// The images that are left, and the state of each.
#[derive(Debug)]
struct Search {
    threat: Threat,
    minimise: bool,
    active: Active,
    point: Rows,
    images: Vec<Image>,
}

impl Search {
    fn new(
        threat: Threat,
        minimise: bool,
        batch: &AttackBatch<'_>,
        point: Rows,
        target: Vec<Option<usize>>,
    ) -> Self {
        let image =
            |target| Image { target, nearest: f64::INFINITY, adversarial: false, asked: false };
        let images = target.into_iter().map(image).collect();
        Self { threat, minimise, active: Active::new(batch), point, images }
    }

    /// The boundary that each image's point goes to next; `None` when no image is left.
    ///
    /// Once a search has reached the boundary, a point is usually adversarial if the point one step
    /// before was. Such a point is therefore checked by a forward pass alone, and its gradient is
    /// computed only at the point that the search returns to.
    fn plane(&mut self, cx: &AttackContext<'_>) -> Result<Option<Plane>> {
        let likely = self.begin_step();
        if !likely.is_empty() {
            let logits = cx.logits(&self.point.select(&likely))?;
            self.look(&likely, &logits);
            self.leave();
        }
        if self.active.is_empty() {
            return Ok(None);
        }
        let mut plane = Plane::at(cx, &self.point, &self.active.labels, &self.targets())?;
        let others = positions(self.images.iter().map(|image| !image.asked));
        self.look(&others, &plane.logits.select(&others));
        plane.retain(&self.leave().0);
        let moved = positions(self.images.iter().map(|image| image.adversarial && !image.asked));
        if !moved.is_empty() {
            let labels = rows::pick(&self.active.labels, &moved);
            let targets = rows::pick(&self.targets(), &moved);
            plane.replace(&moved, &Plane::at(cx, &self.point.select(&moved), &labels, &targets)?);
        }
        Ok(Some(plane))
    }

    fn targets(&self) -> Vec<Option<usize>> {
        self.images.iter().map(|image| image.target).collect()
    }

    /// Begins a step and returns the images whose points a forward pass checks.
    fn begin_step(&mut self) -> Vec<usize> {
        for image in &mut self.images {
            image.asked = std::mem::take(&mut image.adversarial);
        }
        positions(self.images.iter().map(|image| image.asked))
    }

    /// Checks the images `indices`, which have the logits `logits` at their points. An adversarial
    /// point that is nearer than all before becomes the candidate, and the search continues nearer
    /// to the image.
    fn look(&mut self, indices: &[usize], logits: &Rows) {
        for (z, &i) in logits.each().zip(indices) {
            let image = &mut self.images[i];
            image.adversarial = !stands(z, self.active.labels[i]);
            if !image.adversarial {
                continue;
            }
            let point = self.point.row_mut(i);
            let distance = rows::distance(self.threat.norm, point, self.active.x.row(i));
            if distance < image.nearest {
                image.nearest = distance;
                self.active.propose(i, point);
            }
            let x = self.active.x.row(i);
            point.iter_mut().zip(x).for_each(|(p, x)| *p = x + (*p - x) * BETA);
        }
    }

    /// Removes the images whose adversarial example lies in the ball.
    fn leave(&mut self) -> Keep {
        let within = |image: &Image| image.nearest <= f64::from(self.threat.epsilon);
        let done: Vec<_> =
            self.images.iter().map(|image| !self.minimise && within(image)).collect();
        let keep = self.active.leave(&done);
        self.point.retain(&keep.0);
        rows::keep(&mut self.images, &keep.0);
        keep
    }
}

/// The positions at which `flags` are true.
fn positions(flags: impl IntoIterator<Item = bool>) -> Vec<usize> {
    flags.into_iter().enumerate().filter_map(|(i, flag)| flag.then_some(i)).collect()
}

/// Makes one step of FAB: `z` becomes a mean of its own projection on the boundary and of the
/// image's projection, both with overshoot.
fn towards(norm: Norm, x: &[f32], z: &mut [f32], normal: &[f32], offset: f64) {
    // The plane's value at the image.
    let at_image = offset
        + normal
            .iter()
            .zip(x)
            .zip(&*z)
            .map(|((w, x), z)| f64::from(*w) * (f64::from(*x) - f64::from(*z)))
            .sum::<f64>();
    let (d1, d2) =
        (project_on_plane(norm, z, normal, offset), project_on_plane(norm, x, normal, at_image));
    let length = |d: &[f32]| {
        match norm {
            Norm::Linf => f64::from(d.iter().fold(0f32, |most, v| most.max(v.abs()))),
            Norm::L2 => rows::l2(d),
            Norm::L1 => d.iter().map(|v| f64::from(v.abs())).sum(),
        }
        .max(1e-8)
    };
    let (a1, a2) = (length(&d1), length(&d2));
    let alpha = (a1 / (a1 + a2)).min(ALPHA_MAX);
    for (((z, x), d1), d2) in z.iter_mut().zip(x).zip(d1).zip(d2) {
        let own = f64::from(*z) + ETA * f64::from(d1);
        let image = f64::from(*x) + ETA * f64::from(d2);
        *z = (own * (1.0 - alpha) + image * alpha).clamp(0.0, 1.0) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let fab = "fab".parse::<Fab>().unwrap();
        assert_eq!((fab.targeted, fab.steps, fab.rounds(10)), (false, 100, 1));
        let targeted = "fab-t-50x2".parse::<Fab>().unwrap();
        assert_eq!(
            (targeted.targeted, targeted.steps, targeted.rounds(10), targeted.rounds(3)),
            (true, 50, 18, 4)
        );
        assert!("fab-u".parse::<Fab>().is_err());
    }
}
