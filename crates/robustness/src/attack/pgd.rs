//! Projected gradient descent (Madry et al. 2018, arXiv 1706.06083) with restarts (the 50x10
//! protocol of Wong et al. 2020, arXiv 2001.03994), on the cross-entropy or, as `cw` in l-inf, on
//! the margin (Carlini and Wagner 2017, arXiv 1608.04644, with the optimiser of Madry et al.).
//!
//! An image counts as fooled at whichever iterate it is (as in Wong et al.'s evaluation), and is
//! left out from then on.

use super::{Active, Attack, AttackContext, AttackDraw, Batch, Numbers, Objective, rows, stands};
use crate::{
    error::Result,
    threat::{Norm, Threat},
};

/// Steps along the gradient from a random start in the ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pgd {
    /// Steps of a restart.
    pub steps: usize,
    /// Random restarts.
    pub restarts: usize,
    /// Step size in pixel units; `None` is epsilon / 4.
    pub alpha: Option<f32>,
    /// What is maximised.
    pub objective: Objective,
}

impl Pgd {
    /// Reads `pgd-K` or `pgd-KxR`; `pgd-50x10` has steps of 2/255 in l-inf.
    pub(super) fn parse(name: &str, norm: Norm) -> Option<Self> {
        let Numbers { steps, restarts } = Numbers::after("pgd", name)?;
        let alpha =
            (norm == Norm::Linf && steps == Some(50) && restarts == 10).then_some(2.0 / 255.0);
        Some(Self { steps: steps?, restarts, alpha, objective: Objective::CrossEntropy })
    }

    /// Reads `cw`, `cw-K` or `cw-KxR`: PGD on the margin, 50 steps unless K says otherwise.
    pub(super) fn parse_margin(name: &str) -> Option<Self> {
        let Numbers { steps, restarts } = Numbers::after("cw", name)?;
        Some(Self {
            steps: steps.unwrap_or(50),
            restarts,
            alpha: None,
            objective: Objective::Margin,
        })
    }

    /// The number of steps after which each image is misclassified for the first time (0: at its
    /// random start), `None` if it never is: what PGD with fewer steps would find, for every number
    /// of steps at once.
    ///
    /// # Errors
    /// A device that fails.
    pub fn trace(
        &self,
        cx: &mut AttackContext<'_>,
        batch: &Batch<'_>,
    ) -> Result<Vec<Option<usize>>> {
        let (width, mut left, mut fooled) =
            (cx.pixels(), (0..batch.len()).collect::<Vec<_>>(), vec![None; batch.len()]);
        let mut point = Self::starts(cx, batch);
        for taken in 0..=self.steps {
            let labels = rows::select(batch.labels, 1, &left);
            let x = rows::select(batch.x, width, &left);
            // The gradient of the last point is not needed, but its logits are.
            let ascent = cx.ascend(&point, &labels, &[], self.objective)?;
            let keep: Vec<bool> = (0..left.len())
                .map(|i| stands(rows::row(&ascent.logits, cx.classes(), i), labels[i]))
                .collect();
            self.step(cx.threat, &x, &mut point, &ascent.grad, width);
            for (&i, _) in left.iter().zip(&keep).filter(|(_, keep)| !**keep) {
                fooled[i] = Some(taken);
            }
            rows::retain(&mut left, 1, &keep);
            rows::retain(&mut point, width, &keep);
            cx.tick(taken, self.steps, batch.len() - left.len());
            if left.is_empty() {
                break;
            }
        }
        Ok(fooled)
    }

    /// A step along `grad` from the points, back into ball and box.
    fn step(&self, threat: Threat, x: &[f32], point: &mut [f32], grad: &[f32], width: usize) {
        let alpha = self.alpha.unwrap_or(threat.epsilon / 4.0);
        rows::for_each(point, width, |i, row| {
            rows::ascend(threat.norm, row, rows::row(grad, width, i), alpha);
            rows::project(threat, rows::row(x, width, i), row);
        });
    }

    /// Random starts, uniform in the ball (l2: a uniform direction and a uniform length), in the
    /// box.
    fn starts(cx: &AttackContext<'_>, batch: &Batch<'_>) -> Vec<f32> {
        let (threat, width) = (cx.threat, cx.pixels());
        let Threat { norm, epsilon } = threat;
        let mut out = vec![0.0; batch.x.len()];
        match norm {
            Norm::Linf => {
                cx.fill_uniform(AttackDraw::Eta, &mut out, batch.ids);
                out.iter_mut().for_each(|v| *v = *v * 2.0 * epsilon - epsilon);
            }
            Norm::L2 => {
                cx.fill_normal(AttackDraw::Direction, &mut out, batch.ids);
                let mut radius = vec![0.0; batch.len()];
                cx.fill_uniform(AttackDraw::Radius, &mut radius, batch.ids);
                rows::for_each(&mut out, width, |i, row| {
                    rows::scale_to(norm, row, epsilon * radius[i])
                });
            }
        }
        rows::for_each(&mut out, width, |i, row| {
            let x = rows::row(batch.x, width, i);
            row.iter_mut().zip(x).for_each(|(v, x)| *v += x);
            rows::project(threat, x, row);
        });
        out
    }
}

impl Attack for Pgd {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let width = cx.pixels();
        let mut active = Active::new(batch);
        let mut point = Self::starts(cx, batch);
        for step in 0..self.steps {
            if active.is_empty() {
                break;
            }
            let ascent = cx.ascend(&point, &active.labels, &[], self.objective)?;
            let keep = active.drop_fooled(&ascent.logits, &point, width);
            let grad = keep.apply(ascent.grad, width);
            rows::retain(&mut point, width, &keep.0);
            self.step(cx.threat, &active.x, &mut point, &grad, width);
            cx.tick(step + 1, self.steps, active.fooled());
        }
        Ok(active.finish(&point, width))
    }

    fn rounds(&self, _classes: usize) -> usize {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let plain = Pgd { steps: 10, restarts: 1, alpha: None, objective: Objective::CrossEntropy };
        assert_eq!(Pgd::parse("pgd-10", Norm::Linf), Some(plain));
        assert_eq!(
            Pgd::parse("pgd-50x10", Norm::Linf),
            Some(Pgd { steps: 50, restarts: 10, alpha: Some(2.0 / 255.0), ..plain })
        );
        assert_eq!(
            Pgd::parse("pgd-50x10", Norm::L2),
            Some(Pgd { steps: 50, restarts: 10, ..plain })
        );
        for wrong in [
            "pgd",
            "pgd-",
            "pgd-0",
            "pgd-5x",
            "pgd-5x0",
            "pgd-x5",
            "pgd--1",
            "pgd-99999",
            "pgd10",
            "cw-5",
        ] {
            assert_eq!(Pgd::parse(wrong, Norm::Linf), None, "{wrong}");
        }
        assert_eq!(Pgd::parse_margin("cw").map(|cw| (cw.steps, cw.restarts)), Some((50, 1)));
        assert_eq!(Pgd::parse_margin("cw-20x3").map(|cw| (cw.steps, cw.restarts)), Some((20, 3)));
    }
}
