//! Auto-PGD (Croce and Hein 2020, arXiv 2003.01690, algorithm 1): PGD with momentum that halves its
//! step at checkpoints and returns to the best point. The names are `apgd-ce`, `apgd-dlr`, and
//! `apgd-t`, which attacks the likeliest other classes one by one on the targeted DLR loss.
//!
//! The constants are those of the paper and of the public code: first step 2 epsilon, momentum
//! 0.75, first checkpoint after 0.22 of the steps, intervals that shrink by 0.03 down to 0.06 of
//! the steps, rho 0.75, starts on the surface of the ball. Departures: an image that is fooled
//! leaves at once; at the first checkpoint the public code compares the first loss with a row not
//! yet written, whereas this code compares it with the loss at the start.
//! In l1 it is another algorithm (`apgd/l1.rs`).
//!
//! When a forward pass is random (`eot`), an image counts as fooled when the mean of its passes is.
//! A point that fools the last single pass alone, which is the public code's criterion, becomes the
//! candidate of an image for which nothing better is found.

mod l1;
mod passes;
mod search;

use std::{fmt, str::FromStr};

use super::{
    Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, Objective, Passes, RowKey,
    names::{self, Numbers},
    registry::EVERY,
    targets,
};
use crate::{
    classifier::{Access, Shape},
    error::{Error, Result},
    rows::{self, Rows},
    threat::Norm,
};

const SOURCE: &str = "Croce and Hein 2020, arXiv 2003.01690";

pub(super) const CROSS_ENTROPY: AttackInfo = AttackInfo {
    base: "apgd-ce",
    name: "apgd-ce[-K[xR]]",
    summary: "Auto-PGD on the cross-entropy, 100 steps",
    source: SOURCE,
    norms: EVERY,
    needs: Access::Gradients,
    parse: |name, norm| {
        let targets = if norm == Norm::L1 { L1_TARGETS } else { TARGETS };
        Ok(Box::new(Apgd { targets, ..name.parse::<Apgd>()? }))
    },
};

pub(super) const DLR: AttackInfo = AttackInfo {
    base: "apgd-dlr",
    name: "apgd-dlr[-K[xR]]",
    summary: "Auto-PGD on the difference of logits ratio, 100 steps",
    ..CROSS_ENTROPY
};

pub(super) const TARGETED: AttackInfo = AttackInfo {
    base: "apgd-t",
    name: "apgd-t[-K[xR]]",
    summary: "Auto-PGD on the targeted difference of logits ratio, 100 steps for each of the 9 \
         likeliest other classes",
    ..CROSS_ENTROPY
};

/// Steps of a round when the attack's name gives no number.
const STEPS: usize = 100;
/// Most target classes of the targeted form.
const TARGETS: usize = 9;
/// The same in l1, as in the public code.
const L1_TARGETS: usize = 5;

/// Auto-PGD on one loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apgd {
    /// The loss that is maximised.
    pub objective: Objective,
    /// Steps of a round; the paper takes 100.
    pub steps: usize,
    /// Random restarts (of each target class).
    pub restarts: usize,
    /// Most target classes of the targeted form.
    pub targets: usize,
    /// Gradients averaged at each point (EOT), for networks whose forward pass is random; 1
    /// otherwise.
    pub eot: usize,
}

impl fmt::Display for Apgd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell(&self.base(), self.steps, Some(STEPS), self.restarts))
    }
}

impl FromStr for Apgd {
    type Err = Error;

    /// Reads `BASE[-K[xR]]` for the bases apgd-ce, apgd-dlr and apgd-t.
    fn from_str(name: &str) -> Result<Self> {
        let bases = [
            ("apgd-dlr", Objective::Dlr),
            ("apgd-t", Objective::TargetedDlr),
            ("apgd-ce", Objective::CrossEntropy),
        ];
        let found = bases.into_iter().find(|(base, _)| name.starts_with(base));
        let (base, objective) = found.unwrap_or(bases[2]);
        let Numbers { steps, restarts } = Numbers::after(base, name)?;
        Ok(Self { steps: steps.unwrap_or(STEPS), restarts, ..Self::on(objective) })
    }
}

impl Apgd {
    /// The usual attack on `objective`: 100 steps, one start.
    pub const fn on(objective: Objective) -> Self {
        Self { objective, steps: STEPS, restarts: 1, targets: TARGETS, eot: 1 }
    }

    fn base(&self) -> String {
        let base = match self.objective {
            Objective::CrossEntropy => "apgd-ce",
            Objective::Margin => "apgd-margin",
            Objective::Dlr => "apgd-dlr",
            Objective::TargetedMargin => "apgd-tm",
            Objective::TargetedDlr => "apgd-t",
        };
        if self.eot == 1 { base.into() } else { format!("{base}-eot{}", self.eot) }
    }

    fn targeted(&self) -> bool {
        matches!(self.objective, Objective::TargetedDlr | Objective::TargetedMargin)
    }
}

impl Attack for Apgd {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let classes = cx.classes();
        let targets = if self.targeted() {
            let logits = cx.logits(batch.x)?;
            let rows = logits.each().zip(batch.labels).zip(batch.keys);
            let rank = |key: &RowKey| self.round_target(key.round, classes);
            rows.map(|((z, &label), key)| targets(z, label)[rank(key)]).collect()
        } else {
            Vec::new()
        };
        let start = starts(cx, batch);
        let plan = Plan {
            objective: self.objective.defined_for(classes),
            steps: self.steps,
            eot: self.eot,
            leave_when_fooled: true,
        };
        Ok(maximise(cx, batch, &targets, start, plan)?.point)
    }

    fn key(&self) -> String {
        // All restarts of one target class come before the next class, so their number shifts the
        // rounds. The number of target classes only says how many rounds there are.
        let restarts = if self.targeted() { self.restarts } else { 1 };
        names::spell(&self.base(), self.steps, Some(STEPS), restarts)
    }

    fn rounds(&self, classes: usize) -> usize {
        if self.targeted() {
            self.restarts * self.targets.min(classes.saturating_sub(1))
        } else {
            self.restarts
        }
    }

    fn passes(&self, _classes: usize) -> Passes {
        // Besides the steps the start is measured, in l1 that of each radius.
        let points = self.steps + l1::RADII.len();
        Passes { forward: usize::from(self.targeted()), gradient: points * self.eot.max(1) }
    }

    fn note(&self, shape: Shape) -> Option<String> {
        let k = shape.classes;
        match self.objective {
            Objective::Dlr if k < 3 => Some(format!(
                "apgd-dlr: the DLR loss needs 3 classes, the network has {k}: the margin was used"
            )),
            Objective::TargetedDlr if k < 4 => Some(format!(
                "apgd-t: the targeted DLR loss needs 4 classes, the network has {k}: the \
                 targeted margin was used, on {} target class(es)",
                k.saturating_sub(1)
            )),
            Objective::TargetedDlr if k <= self.targets => Some(format!(
                "apgd-t: {} target classes instead of {}: the network has {k} classes",
                k.saturating_sub(1),
                self.targets
            )),
            _ => None,
        }
    }
}

impl Apgd {
    /// Rank of the target class in round `round`: all restarts of the likeliest class come first.
    fn round_target(&self, round: usize, classes: usize) -> usize {
        (round / self.restarts.max(1)).min(classes.saturating_sub(2))
    }
}

/// Random starts at the distance epsilon from the image, before the clip to [0, 1].
fn starts(cx: &AttackContext<'_>, batch: &AttackBatch<'_>) -> Rows {
    let threat = cx.threat;
    let mut out = Rows::zeros(batch.len(), cx.pixels());
    match threat.norm {
        Norm::Linf => {
            cx.fill_uniform(AttackDraw::Eta, &mut out, batch.keys);
            out.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
        }
        Norm::L2 => cx.fill_normal(AttackDraw::Direction, &mut out, batch.keys),
        Norm::L1 => return l1::starts(cx, batch),
    }
    out.for_each(|i, row| {
        rows::scale_to(threat.norm, row, threat.epsilon);
        let x = batch.x.row(i);
        row.iter_mut().zip(x).for_each(|(v, x)| *v = (*v + x).clamp(0.0, 1.0));
        rows::project(threat, x, row);
    });
    out
}

/// Options of [`maximise`].
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The loss that is maximised.
    pub objective: Objective,
    /// Number of steps.
    pub steps: usize,
    /// Gradients averaged at each point.
    pub eot: usize,
    /// Whether an image leaves as soon as it is misclassified; otherwise every image goes through
    /// all steps.
    pub leave_when_fooled: bool,
}

/// The result of [`maximise`], one row for each image.
#[derive(Clone, Debug)]
pub struct Maximum {
    /// The misclassified point if one was found, else the point of the largest loss.
    pub point: Rows,
    /// The largest loss of images that went through every step, in the order of the batch.
    pub loss: Vec<f64>,
    /// Final step size of the same images, in units of epsilon.
    pub step: Vec<f32>,
}

/// Runs Auto-PGD from `start`, N rows of pixels in ball and box; in l1 any N rows,
/// which are projected. `targets` is empty for losses without a target class.
///
/// # Errors
/// [`Error::Classifier`] when the classifier fails.
pub fn maximise(
    cx: &mut AttackContext<'_>,
    batch: &AttackBatch<'_>,
    targets: &[usize],
    start: Rows,
    plan: Plan,
) -> Result<Maximum> {
    if cx.threat.norm == Norm::L1 {
        return l1::maximise(cx, batch, targets, start, plan);
    }
    search::maximise(cx, batch, targets, start, plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_targets_times_restarts() {
        let apgd = "apgd-t".parse::<Apgd>().unwrap();
        assert_eq!((apgd.rounds(10), apgd.rounds(4), apgd.rounds(2), apgd.rounds(1)), (9, 3, 1, 0));
        let twice = "apgd-t-20x2".parse::<Apgd>().unwrap();
        assert_eq!((twice.steps, twice.rounds(10), twice.round_target(3, 10)), (20, 18, 1));
        assert_eq!("apgd-ce-100x5".parse::<Apgd>().unwrap().rounds(10), 5);
        assert!("apgd-cex5".parse::<Apgd>().is_err());
    }
}
