//! Projected gradient descent (Madry et al. 2018, arXiv 1706.06083) with restarts (the 50x10
//! protocol of Wong et al. 2020, arXiv 2001.03994), on the cross-entropy or, as `cw` in l-inf, on
//! the margin (Carlini and Wagner 2017, arXiv 1608.04644, with the optimiser of Madry et al.).
//!
//! An image counts as fooled if any iterate fools the network (as in Wong et al.'s evaluation), and
//! leaves the attack from then on.

use std::{fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, Objective, Passes,
    names::{self, Numbers},
    registry::BOTH,
};
use crate::{
    classifier::{Access, stands},
    error::{Error, Result},
    rows::{self, Rows},
    threat::{Epsilon, Norm, Threat},
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "pgd",
    name: "pgd-K[xR]",
    summary: "K steps of epsilon/4 from a random start (50x10: steps of 2/255; pgd-20@2/255 \
         names a size), R restarts; for example pgd-10 or pgd-50x10",
    source: "Madry et al. 2018, arXiv 1706.06083; Wong et al. 2020, arXiv 2001.03994",
    norms: BOTH,
    needs: Access::Gradients,
    parse: |name, _| Ok(Box::new(name.parse::<Pgd>()?)),
};

/// Steps on the margin when the attack's name gives no number.
const MARGIN_STEPS: usize = 50;
/// Steps and restarts of the protocol of Wong et al.
const PROTOCOL: (usize, usize) = (50, 10);
/// The text of a step of a quarter of epsilon.
const QUARTER: &str = "eps/4";

/// Steps along the gradient from a random start in the ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pgd {
    /// Steps of a restart.
    pub steps: usize,
    /// Random restarts.
    pub restarts: usize,
    /// Size of a step.
    pub size: StepSize,
    /// The loss that is maximised.
    pub objective: Objective,
}

/// Size of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepSize {
    /// A quarter of epsilon.
    Quarter,
    /// 2/255 in l-inf, a quarter of epsilon in l2: the 50x10 protocol.
    Protocol,
    /// This size, in pixel units.
    Pixels(f32),
}

impl StepSize {
    fn under(self, Threat { norm, epsilon }: Threat) -> f32 {
        match self {
            Self::Protocol if norm == Norm::Linf => 2.0 / 255.0,
            Self::Quarter | Self::Protocol => epsilon / 4.0,
            Self::Pixels(size) => size,
        }
    }
}

impl fmt::Display for Pgd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelled(self.restarts))
    }
}

impl FromStr for Pgd {
    type Err = Error;

    /// Reads `pgd-K[xR][@STEP]` with STEP in pixel units; `pgd-50x10` has steps of 2/255 in l-inf.
    fn from_str(name: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::AttackForm {
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        let (numbers, size) = name.split_once('@').map_or((name, None), |(n, s)| (n, Some(s)));
        let Numbers { steps, restarts } = Numbers::after("pgd", numbers)?;
        let steps = steps.ok_or_else(|| wrong("how many steps? for example pgd-10"))?;
        let size = match size {
            None if PROTOCOL == (steps, restarts) => StepSize::Protocol,
            None | Some(QUARTER) => StepSize::Quarter,
            Some(size) => match size.parse::<Epsilon>().map(|size| size.value()) {
                Ok(size) if size > 0.0 => StepSize::Pixels(size),
                _ => return Err(wrong("a step is a fraction such as 2/255, or a number")),
            },
        };
        Ok(Self { steps, restarts, size, objective: Objective::CrossEntropy })
    }
}

impl Pgd {
    /// Reads `cw`, `cw-K` or `cw-KxR`: PGD on the margin with 50 steps unless K says otherwise.
    pub(super) fn on_margin(name: &str) -> Result<Self> {
        let Numbers { steps, restarts } = Numbers::after("cw", name)?;
        let (steps, objective) = (steps.unwrap_or(MARGIN_STEPS), Objective::Margin);
        Ok(Self { steps, restarts, size: StepSize::Quarter, objective })
    }

    /// The name with this number of restarts. Losses and sizes of steps that no name stands for are
    /// appended.
    fn spelled(&self, restarts: usize) -> String {
        let (base, usual, loss) = match self.objective {
            Objective::CrossEntropy => ("pgd", None, ""),
            Objective::Margin => ("cw", Some(MARGIN_STEPS), ""),
            Objective::Dlr => ("pgd", None, "-dlr"),
            Objective::TargetedMargin => ("pgd", None, "-tm"),
            Objective::TargetedDlr => ("pgd", None, "-t"),
        };
        let name = names::spell(base, self.steps, usual, restarts) + loss;
        let protocol = PROTOCOL == (self.steps, restarts);
        match self.size {
            StepSize::Pixels(size) => format!("{name}@{size}"),
            StepSize::Quarter if base == "pgd" && protocol => format!("{name}@{QUARTER}"),
            StepSize::Protocol if !protocol => format!("{name}@protocol"),
            StepSize::Quarter | StepSize::Protocol => name,
        }
    }

    /// The number of steps after which each image is misclassified for the first time (0 at its
    /// random start), `None` if it never is. This is the result of PGD for every smaller number of
    /// steps at once.
    ///
    /// # Errors
    /// [`Error::Classifier`] when the classifier fails.
    pub fn trace(
        &self,
        cx: &mut AttackContext<'_>,
        batch: &AttackBatch<'_>,
    ) -> Result<Vec<Option<usize>>> {
        let mut left: Vec<usize> = (0..batch.len()).collect();
        let mut fooled = vec![None; batch.len()];
        let mut point = Self::starts(cx, batch);
        for taken in 0..=self.steps {
            let labels = rows::pick(batch.labels, &left);
            let x = batch.x.select(&left);
            // The gradient of the last point is not needed, but its logits are.
            let ascent = cx.ascend(&point, &labels, &[], self.objective)?;
            let keep: Vec<bool> =
                (0..left.len()).map(|i| stands(ascent.logits.row(i), labels[i])).collect();
            self.step(cx.threat, &x, &mut point, &ascent.grad);
            for (&i, _) in left.iter().zip(&keep).filter(|(_, keep)| !**keep) {
                fooled[i] = Some(taken);
            }
            rows::keep(&mut left, &keep);
            point.retain(&keep);
            cx.tick(taken, self.steps, batch.len() - left.len());
            if left.is_empty() {
                break;
            }
        }
        Ok(fooled)
    }

    /// Makes one step along `grad` from the points, then projects on ball and box.
    fn step(&self, threat: Threat, x: &Rows, point: &mut Rows, grad: &Rows) {
        let alpha = self.size.under(threat);
        point.for_each(|i, row| {
            rows::ascend(threat.norm, row, grad.row(i), alpha);
            rows::project(threat, x.row(i), row);
        });
    }

    /// Random starts, uniform in the ball (in l2, a uniform direction and a uniform length),
    /// clipped to the box.
    fn starts(cx: &AttackContext<'_>, batch: &AttackBatch<'_>) -> Rows {
        let threat = cx.threat;
        let Threat { norm, epsilon } = threat;
        let mut out = Rows::zeros(batch.len(), cx.pixels());
        match norm {
            Norm::Linf => {
                cx.fill_uniform(AttackDraw::Eta, &mut out, batch.keys);
                out.iter_mut().for_each(|v| *v = *v * 2.0 * epsilon - epsilon);
            }
            Norm::L2 | Norm::L1 => {
                cx.fill_normal(AttackDraw::Direction, &mut out, batch.keys);
                let mut radius = vec![0.0; batch.len()];
                cx.fill_uniform(AttackDraw::Radius, &mut radius, batch.keys);
                out.for_each(|i, row| rows::scale_to(norm, row, epsilon * radius[i]));
            }
        }
        out.for_each(|i, row| {
            let x = batch.x.row(i);
            row.iter_mut().zip(x).for_each(|(v, x)| *v += x);
            rows::project(threat, x, row);
        });
        out
    }
}

impl Attack for Pgd {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let mut active = Active::new(batch);
        let mut point = Self::starts(cx, batch);
        for step in 0..self.steps {
            if active.is_empty() {
                break;
            }
            let ascent = cx.ascend(&point, &active.labels, &[], self.objective)?;
            let keep = active.drop_fooled(&ascent.logits, &point);
            let grad = keep.apply(ascent.grad);
            point.retain(&keep.0);
            self.step(cx.threat, &active.x, &mut point, &grad);
            cx.tick(step + 1, self.steps, active.fooled());
        }
        Ok(active.finish(&point))
    }

    fn key(&self) -> String {
        // The protocol has a step size of its own and therefore a name of its own.
        let protocol = self.size == StepSize::Protocol && PROTOCOL == (self.steps, self.restarts);
        self.spelled(if protocol { self.restarts } else { 1 })
    }

    fn rounds(&self, _classes: usize) -> usize {
        self.restarts
    }

    fn passes(&self, _classes: usize) -> Passes {
        Passes { forward: 0, gradient: self.steps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let pgd = |steps, restarts, size| Pgd {
            steps,
            restarts,
            size,
            objective: Objective::CrossEntropy,
        };
        for (name, attack, key) in [
            ("pgd-10", pgd(10, 1, StepSize::Quarter), "pgd-10"),
            ("pgd-10x3", pgd(10, 3, StepSize::Quarter), "pgd-10"),
            ("pgd-50x10", pgd(50, 10, StepSize::Protocol), "pgd-50x10"),
            ("pgd-50x10@eps/4", pgd(50, 10, StepSize::Quarter), "pgd-50"),
            ("pgd-20@0.25", pgd(20, 1, StepSize::Pixels(0.25)), "pgd-20@0.25"),
        ] {
            let found: Pgd = name.parse().unwrap();
            assert_eq!((found, found.to_string(), found.key()), (attack, name.into(), key.into()));
        }
        assert_eq!("pgd-20@2/255".parse::<Pgd>().unwrap().size, StepSize::Pixels(2.0 / 255.0));
        for wrong in ["pgd", "pgd-", "pgd-0", "pgd-5x0", "pgd10", "cw-5", "pgd-5@", "pgd-5@-1"] {
            assert!(wrong.parse::<Pgd>().is_err(), "{wrong}");
        }
        for (name, steps, restarts) in [("cw", 50, 1), ("cw-20x3", 20, 3)] {
            let margin = Pgd::on_margin(name).unwrap();
            assert_eq!(
                (margin.steps, margin.restarts, margin.to_string()),
                (steps, restarts, name.into())
            );
        }
        let of = |threat| StepSize::Protocol.under(threat);
        assert_eq!(of(Threat { norm: Norm::Linf, epsilon: 0.1 }), 2.0 / 255.0);
        assert_eq!(of(Threat { norm: Norm::L2, epsilon: 0.5 }), 0.125);
    }

    #[test]
    fn another_loss_or_size_of_steps_has_another_key_and_more_restarts_have_not() {
        let mut keys = Vec::new();
        for objective in [
            Objective::CrossEntropy,
            Objective::Margin,
            Objective::Dlr,
            Objective::TargetedMargin,
            Objective::TargetedDlr,
        ] {
            for size in [StepSize::Quarter, StepSize::Protocol, StepSize::Pixels(0.25)] {
                for steps in [20, 50] {
                    let key = |restarts| Pgd { steps, restarts, size, objective }.key();
                    assert_eq!(key(1), key(3), "{objective:?} {size:?}");
                    keys.push(key(1));
                }
            }
        }
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{keys:?}");
    }
}
