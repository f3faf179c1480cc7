//! Linearised decision boundaries, to which DeepFool (Moosavi-Dezfooli, Fawzi and Frossard 2016,
//! arXiv 1511.04599) and FAB (Croce and Hein 2020, arXiv 1907.02044) go.

use crate::{
    attack::AttackContext,
    error::Result,
    rows::{self, Rows},
    threat::Norm,
};

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
    pub fn at(
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

    pub fn replace(&mut self, indices: &[usize], with: &Self) {
        for (from, &to) in indices.iter().enumerate() {
            self.offset[to] = with.offset[from];
            self.normal.row_mut(to).copy_from_slice(with.normal.row(from));
        }
    }
}
