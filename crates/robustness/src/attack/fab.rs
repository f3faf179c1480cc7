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

use std::{fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, Keep,
    names::{self, Numbers},
    nearest_between,
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
        if cx.round.is_multiple_of(self.restarts.max(1)) {
            return batch.x.clone();
        }
        let mut out = Rows::zeros(batch.len(), cx.pixels());
        match norm {
            Norm::Linf => {
                cx.fill_uniform(AttackDraw::Eta, &mut out, batch.ids);
                out.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
            }
            Norm::L2 | Norm::L1 => cx.fill_normal(AttackDraw::Direction, &mut out, batch.ids),
        }
        out.for_each(|i, row| {
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
            let rank = (cx.round / self.restarts.max(1)).min(classes - 2);
            let logits = cx.logits(batch.x)?;
            let pairs = logits.each().zip(batch.labels);
            pairs.map(|(z, &label)| Some(targets(z, label)[rank])).collect()
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

/// The linearised boundary at some points: `normal . (z - point) + offset = 0` with offset = z_t -
/// z_y, which is negative on the image's side.
#[derive(Debug)]
pub(super) struct Plane {
    pub normal: Rows,
    pub offset: Vec<f64>,
    /// At the points.
    pub logits: Rows,
}

impl Plane {
    /// The boundary to the target of each image, or, where no image has a target, the nearest of
    /// all boundaries.
    fn at(
        cx: &AttackContext<'_>,
        point: &Rows,
        labels: &[usize],
        targets: &[Option<usize>],
    ) -> Result<Self> {
        match targets.iter().copied().collect::<Option<Vec<usize>>>() {
            Some(targets) => Self::to(cx, point, labels, |i| targets[i]),
            None => Self::nearest(cx, point, labels),
        }
    }

    /// The boundary to the class `target` of each image.
    pub fn to(
        cx: &AttackContext<'_>,
        point: &Rows,
        labels: &[usize],
        target: impl Fn(usize) -> usize + Sync,
    ) -> Result<Self> {
        let classes = cx.classes();
        let mut offset = vec![0.0; labels.len()];
        let back = cx.model.pull_back(point, &mut |first, logits| {
            let mut cotangent = vec![0.0; logits.len()];
            for (k, (z, c)) in logits.chunks(classes).zip(cotangent.chunks_mut(classes)).enumerate()
            {
                let i = first + k;
                let (y, t) = (labels[i], target(i));
                (c[t], c[y]) = (1.0, -1.0);
                offset[i] = f64::from(z[t]) - f64::from(z[y]);
            }
            cotangent
        })?;
        let (normal, logits) =
            (Rows::new(back.grad, point.width()), Rows::new(back.logits, classes));
        Ok(Self { normal, offset, logits })
    }

    /// Among the boundaries to all classes, the one that is nearest in first order: |offset|
    /// divided by the dual norm of the normal.
    fn nearest(cx: &AttackContext<'_>, point: &Rows, labels: &[usize]) -> Result<Self> {
        let (classes, norm) = (cx.classes(), cx.threat.norm);
        // One pass computes class k for all images; at an image's own class the next class takes
        // its place.
        let other = |k: usize| move |i: usize| if k == labels[i] { (k + 1) % classes } else { k };
        let mut best = Self::to(cx, point, labels, other(0))?;
        let mut least = best.distances(norm);
        for k in 1..classes {
            let plane = Self::to(cx, point, labels, other(k))?;
            let distance = plane.distances(norm);
            for i in 0..labels.len() {
                if distance[i] >= least[i] {
                    continue;
                }
                least[i] = distance[i];
                best.offset[i] = plane.offset[i];
                best.normal.row_mut(i).copy_from_slice(plane.normal.row(i));
            }
        }
        Ok(best)
    }

    /// The distance of each point from its plane, in first order.
    pub fn distances(&self, norm: Norm) -> Vec<f64> {
        let pairs = self.normal.each().zip(&self.offset);
        pairs
            .map(|(normal, offset)| {
                let dual = match norm {
                    Norm::Linf => normal.iter().map(|v| f64::from(v.abs())).sum(),
                    Norm::L2 => rows::l2(normal),
                    Norm::L1 => f64::from(normal.iter().fold(0f32, |most, v| most.max(v.abs()))),
                };
                offset.abs() / (1e-12 + dual)
            })
            .collect()
    }

    pub fn retain(&mut self, keep: &[bool]) {
        self.normal.retain(keep);
        rows::keep(&mut self.offset, keep);
    }

    fn replace(&mut self, indices: &[usize], with: &Self) {
        for (from, &to) in indices.iter().enumerate() {
            self.offset[to] = with.offset[from];
            self.normal.row_mut(to).copy_from_slice(with.normal.row(from));
        }
    }
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

/// The smallest change d of `point`, in `norm`, with `w . d + value = 0` and `point + d` in [0, 1].
/// Where the box holds no such point, d is the change that comes nearest to the plane.
///
/// Each element moves towards the plane by `min(t, room)` (l-inf) or `min(t |w|, room)` (l2), so
/// the distance covered is an increasing, concave, piecewise linear function of t. Newton's method
/// from 0 finds its inverse exactly, one linear piece after another.
///
/// In l1 an element of large `|w|` covers more for its length: they go all the way, one after the
/// other, the last as far as it takes.
pub fn project_on_plane(norm: Norm, point: &[f32], w: &[f32], value: f64) -> Vec<f32> {
    if norm == Norm::L1 {
        return project_on_plane_l1(point, w, value);
    }
    let goal = value.abs();
    // The sign of the change of element i: w . d must be -value.
    let sign = if value > 0.0 { -1.0 } else { 1.0 };
    let slope = |w: f64| match norm {
        Norm::Linf => w,
        Norm::L2 | Norm::L1 => w * w,
    };
    // The rate of each element and the most it can contribute; zeros, which contribute nothing,
    // fill the last chunk.
    let filled = point.len().next_multiple_of(LANES);
    let (mut slopes, mut mosts) = (vec![0.0; filled], vec![0.0; filled]);
    for (((s, most), &p), &w) in slopes.iter_mut().zip(&mut mosts).zip(point).zip(w) {
        let up = f64::from(w) * sign > 0.0;
        let room = if up { 1.0 - f64::from(p) } else { f64::from(p) }.max(0.0);
        (*s, *most) = (slope(f64::from(w.abs())), f64::from(w.abs()) * room);
    }
    let mut t = 0.0;
    for _ in 0..=point.len() {
        let (covered, rate) = way_and_rate(t, &slopes, &mosts);
        let left = goal - covered;
        // The goal is reached up to rounding, or the box allows no more.
        if left <= goal * 1e-12 || rate <= 0.0 {
            break;
        }
        let next = t + left / rate;
        if next <= t {
            break;
        }
        t = next;
    }
    let change = |(p, w): (&f32, &f32)| {
        let direction = f64::from(*w) * sign;
        if direction == 0.0 {
            return 0.0;
        }
        let room = if direction > 0.0 { 1.0 - f64::from(*p) } else { f64::from(*p) }.max(0.0);
        let way = match norm {
            Norm::Linf => t,
            Norm::L2 | Norm::L1 => t * direction.abs(),
        };
        (way.min(room) * direction.signum()) as f32
    };
    point.iter().zip(w).map(change).collect()
}

/// [`project_on_plane`] in l1.
fn project_on_plane_l1(point: &[f32], w: &[f32], value: f64) -> Vec<f32> {
    let mut left = value.abs();
    let mut change = vec![0.0; point.len()];
    let mut order: Vec<usize> = (0..w.len()).filter(|&i| w[i] != 0.0).collect();
    order.sort_by(|&a, &b| w[b].abs().total_cmp(&w[a].abs()));
    for i in order {
        let (w, p) = (f64::from(w[i]), f64::from(point[i]));
        // w . d must be -value.
        let up = (w > 0.0) != (value > 0.0);
        let room = if up { 1.0 - p } else { p }.max(0.0);
        let way = (left / w.abs()).min(room);
        change[i] = if up { way } else { -way } as f32;
        left -= way * w.abs();
        if left <= 0.0 {
            break;
        }
    }
    change
}

/// Number of sums that are kept side by side, so that the compiler makes vector code.
const LANES: usize = 8;

/// The distance covered at `t`, and its slope: the sum of `min(t slope, most)`, and the sum of the
/// slopes of the elements that can still move.
fn way_and_rate(t: f64, slopes: &[f64], mosts: &[f64]) -> (f64, f64) {
    let (mut covered, mut rate) = ([0.0; LANES], [0.0; LANES]);
    for (slopes, mosts) in slopes.as_chunks::<LANES>().0.iter().zip(mosts.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let way = t * slopes[lane];
            let gives = way < mosts[lane];
            covered[lane] += if gives { way } else { mosts[lane] };
            rate[lane] += if gives { slopes[lane] } else { 0.0 };
        }
    }
    (covered.iter().sum(), rate.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn a_projection_by_hand() {
        // w . d = 1 with w = (1, 2): l-inf both by 1/3; l2 along w.
        let d = project_on_plane(Norm::Linf, &[0.5, 0.5], &[1.0, 2.0], -1.0);
        assert!((d[0] - 1.0 / 3.0).abs() < 1e-6 && (d[1] - 1.0 / 3.0).abs() < 1e-6, "{d:?}");
        let d = project_on_plane(Norm::L2, &[0.5, 0.5], &[1.0, 2.0], -1.0);
        assert!((d[0] - 0.2).abs() < 1e-6 && (d[1] - 0.4).abs() < 1e-6, "{d:?}");
        // The second element meets the box, so the first element does the rest.
        let d = project_on_plane(Norm::Linf, &[0.5, 0.9], &[1.0, 2.0], -0.5);
        assert!((d[0] - 0.3).abs() < 1e-6 && (d[1] - 0.1).abs() < 1e-6, "{d:?}");
        // l1: the second goes first, as far as the box lets it.
        let d = project_on_plane(Norm::L1, &[0.5, 0.9], &[1.0, 2.0], -0.5);
        assert!((d[0] - 0.3).abs() < 1e-6 && (d[1] - 0.1).abs() < 1e-6, "{d:?}");
        assert_eq!(project_on_plane(Norm::L1, &[0.5, 0.5], &[1.0, -2.0], 0.5), [0.0, 0.25]);
        assert_eq!(project_on_plane(Norm::L1, &[0.75, 0.0], &[1.0, -1.0], -5.0), [0.25, 0.0]);
        // The plane is out of reach, so the change goes as far as the box allows. No normal gives
        // no change.
        assert_eq!(project_on_plane(Norm::L2, &[0.75, 0.0], &[1.0, -1.0], -5.0), [0.25, 0.0]);
        assert_eq!(project_on_plane(Norm::L2, &[0.75, 0.0], &[0.0, 0.0], -5.0), [0.0, 0.0]);
    }

    proptest! {
        /// Compares with a solver that does not use slopes: bisection on the threshold (l-inf) or
        /// the multiplier (l2).
        #[test]
        fn projections_are_nearest(
            pairs in proptest::collection::vec((0f32..=1.0, -3f32..3.0), 1..30), value in -4f64..4.0, l2: bool
        ) {
            let norm = if l2 { Norm::L2 } else { Norm::Linf };
            let (point, w): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let d = project_on_plane(norm, &point, &w, value);
            prop_assert!(point.iter().zip(&d).all(|(p, d)| (-1e-6..=1.000_001).contains(&(p + d))));
            let reach = |t: f64| -> f64 {
                point.iter().zip(&w).map(|(&p, &w)| {
                    let (p, w) = (f64::from(p), f64::from(w));
                    let move_to = -value.signum() * if norm == Norm::Linf { t * w.signum() } else { t * w };
                    w * ((p + move_to).clamp(0.0, 1.0) - p)
                }).sum::<f64>().abs()
            };
            let (mut low, mut high) = (0.0, 1e4);
            for _ in 0..200 {
                let middle = (low + high) / 2.0;
                if reach(middle) < value.abs() { low = middle } else { high = middle }
            }
            let feasible = reach(1e4) >= value.abs() - 1e-9;
            let covered = w.iter().zip(&d).map(|(w, d)| f64::from(*w) * f64::from(*d)).sum::<f64>().abs();
            if feasible {
                prop_assert!((covered - value.abs()).abs() < 1e-4, "{covered} of {value}");
                let want = match norm {
                    Norm::Linf => point.iter().zip(&w).fold(0f64, |most, (&p, &w)| {
                        let room = if -value.signum() * f64::from(w) > 0.0 { 1.0 - f64::from(p) } else { f64::from(p) };
                        if w == 0.0 { most } else { most.max(high.min(room)) }
                    }),
                    Norm::L2 | Norm::L1 => point.iter().zip(&w).map(|(&p, &w)| {
                        let (p, w) = (f64::from(p), f64::from(w));
                        ((p - value.signum() * high * w).clamp(0.0, 1.0) - p).powi(2)
                    }).sum::<f64>().sqrt(),
                };
                let have = rows::distance(norm, &d, &vec![0.0; d.len()]);
                prop_assert!((have - want).abs() < 1e-4, "{have} instead of {want}");
            } else {
                prop_assert!(covered <= value.abs() + 1e-5);
            }
        }
    }
}
