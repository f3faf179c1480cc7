//! Auto-PGD (Croce and Hein 2020, arXiv 2003.01690, algorithm 1): PGD with momentum that halves its
//! step at checkpoints and returns to the best point. The names are `apgd-ce`, `apgd-dlr`, and
//! `apgd-t`, which attacks the likeliest other classes one by one on the targeted DLR loss.
//!
//! The constants are those of the paper and of the public code: first step 2 epsilon, momentum
//! 0.75, first checkpoint after 0.22 of the steps, intervals that shrink by 0.03 down to 0.06 of
//! the steps, rho 0.75, starts on the surface of the ball. Departures: an image that is fooled
//! leaves at once; at the first checkpoint the public code compares the first loss with a row not
//! yet written, whereas this code compares it with the loss at the start.
//! In l1 it is another algorithm (`apgd_l1.rs`).
//!
//! When a forward pass is random (`eot`), an image counts as fooled when the mean of its passes is.
//! A point that fools the last single pass alone, which is the public code's criterion, becomes the
//! candidate of an image for which nothing better is found.

use std::{fmt, str::FromStr};

use super::{
    Active, Ascent, Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, Objective,
    apgd_l1 as l1,
    names::{self, Numbers},
    registry::EVERY,
    targets,
};
use crate::{
    classifier::{Access, Shape},
    error::{Error, Result},
    rows::{self, Rows},
    threat::{Norm, Threat},
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
    summary: "Auto-PGD on the targeted difference of logits ratio, 100 steps for each of the 9 likeliest other classes",
    ..CROSS_ENTROPY
};

/// Weight of the newest step; the step before it has the rest.
const MOMENTUM: f32 = 0.75;
/// A step is halved when the loss rose in at most this share of an interval's steps.
const RHO: f64 = 0.75;
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
            let rank = self.round_target(cx.round, classes);
            let logits = cx.logits(batch.x)?;
            batch
                .labels
                .iter()
                .enumerate()
                .map(|(i, &label)| targets(logits.row(i), label)[rank])
                .collect()
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
        // rounds.
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

    fn note(&self, shape: Shape) -> Option<String> {
        let k = shape.classes;
        match self.objective {
            Objective::Dlr if k < 3 => Some(format!(
                "apgd-dlr: the DLR loss needs 3 classes, the network has {k}: the margin was used"
            )),
            Objective::TargetedDlr if k < 4 => Some(format!(
                "apgd-t: the targeted DLR loss needs 4 classes, the network has {k}: the targeted margin was used, on {} target class(es)",
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
            cx.fill_uniform(AttackDraw::Eta, &mut out, batch.ids);
            out.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
        }
        Norm::L2 => cx.fill_normal(AttackDraw::Direction, &mut out, batch.ids),
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
/// which are projected.
/// `targets` is empty for losses without a target class.
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
    let threat = cx.threat;
    if threat.norm == Norm::L1 {
        return l1::maximise(cx, batch, targets, start, plan);
    }
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

/// What was found at some points.
#[derive(Debug)]
pub(super) struct Measured {
    /// Sums over the passes. Only directions of gradients and the order of logits and losses matter
    /// to an attack: sums serve as well as means.
    pub sum: Ascent,
    /// Logits of the last pass, where there were several.
    pub last: Option<Rows>,
}

/// Loss, gradient and logits at `point`, over [`Plan::eot`] passes.
pub(super) fn measure(
    cx: &AttackContext<'_>,
    point: &Rows,
    labels: &[usize],
    targets: &[usize],
    plan: Plan,
) -> Result<Measured> {
    let mut sum = cx.ascend(point, labels, targets, plan.objective)?;
    if plan.eot <= 1 {
        return Ok(Measured { sum, last: None });
    }
    let mut last = None;
    unscale(&mut sum, plan.objective);
    for _ in 1..plan.eot {
        let mut more = cx.ascend(point, labels, targets, plan.objective)?;
        unscale(&mut more, plan.objective);
        sum.grad.iter_mut().zip(more.grad.iter()).for_each(|(a, b)| *a += b);
        sum.logits.iter_mut().zip(more.logits.iter()).for_each(|(a, b)| *a += b);
        sum.loss.iter_mut().zip(more.loss).for_each(|(a, b)| *a += b);
        last = Some(more.logits);
    }
    Ok(Measured { sum, last })
}

/// Scales the cross-entropy's gradient, which is normalised, back to its true size, so that passes
/// can be averaged.
fn unscale(ascent: &mut Ascent, objective: Objective) {
    if objective == Objective::CrossEntropy {
        let Ascent { loss, grad, .. } = ascent;
        grad.for_each(|i, row| row.iter_mut().for_each(|g| *g *= -(-loss[i]).exp_m1() as f32));
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
