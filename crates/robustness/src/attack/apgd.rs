//! Auto-PGD (Croce and Hein 2020, arXiv 2003.01690, algorithm 1): PGD with momentum that halves its
//! step at checkpoints and goes back to the best point. `apgd-ce`, `apgd-dlr`, and `apgd-t`, which
//! attacks the likeliest other classes one by one on the targeted DLR loss.
//!
//! Constants of the paper and of the public code: first step 2 epsilon, momentum 0.75, first
//! checkpoint after 0.22 of the steps, intervals that shrink by 0.03 down to 0.06 of the steps, rho
//! 0.75, starts on the surface of the ball. Departures: an image that is fooled leaves at once; at
//! the first checkpoint the public code compares the first loss with a row not yet written, here it
//! is compared with the loss at the start.

use super::{
    Active, Ascent, Attack, AttackContext, AttackDraw, Batch, Numbers, Objective, rows, targets,
};
use crate::{
    classifier::Shape,
    error::Result,
    threat::{Norm, Threat},
};

/// Weight of the newest step against the one before.
const MOMENTUM: f32 = 0.75;
/// A step is halved when the loss rose in at most this share of an interval's steps.
const RHO: f64 = 0.75;
/// Target classes of the targeted form at most.
const TARGETS: usize = 9;

/// Auto-PGD on one loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apgd {
    /// What is maximised.
    pub objective: Objective,
    /// Steps of a round; 100 in the paper.
    pub steps: usize,
    /// Random restarts (of each target class).
    pub restarts: usize,
    /// Gradients averaged at each point, for networks whose forward pass is random; 1 otherwise.
    pub eot: usize,
}

impl Apgd {
    /// Reads `BASE[-K[xR]]` for the bases apgd-ce, apgd-dlr and apgd-t.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [
            ("apgd-ce", Objective::CrossEntropy),
            ("apgd-dlr", Objective::Dlr),
            ("apgd-t", Objective::TargetedDlr),
        ]
        .into_iter()
        .find_map(|(base, objective)| {
            let Numbers { steps, restarts } = Numbers::after(base, name)?;
            Some(Self { objective, steps: steps.unwrap_or(100), restarts, eot: 1 })
        })
    }

    fn targeted(&self) -> bool {
        matches!(self.objective, Objective::TargetedDlr | Objective::TargetedMargin)
    }
}

impl Attack for Apgd {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let classes = cx.classes();
        let targets = if self.targeted() {
            let rank = self.round_target(cx.round, classes);
            let logits = cx.model.logits(batch.x)?;
            batch
                .labels
                .iter()
                .enumerate()
                .map(|(i, &label)| targets(rows::row(&logits, classes, i), label)[rank])
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

    fn rounds(&self, classes: usize) -> usize {
        if self.targeted() {
            self.restarts * TARGETS.min(classes.saturating_sub(1))
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
            Objective::TargetedDlr if k <= TARGETS => Some(format!(
                "apgd-t: {} target classes instead of {TARGETS}: the network has {k} classes",
                k.saturating_sub(1)
            )),
            _ => None,
        }
    }
}

impl Apgd {
    /// Rank of the target class in round `round`: all restarts of the likeliest first.
    fn round_target(&self, round: usize, classes: usize) -> usize {
        (round / self.restarts.max(1)).min(classes.saturating_sub(2))
    }
}

/// Random starts whose distance from the image is epsilon, before the box.
fn starts(cx: &AttackContext<'_>, batch: &Batch<'_>) -> Vec<f32> {
    let (threat, width) = (cx.threat, cx.pixels());
    let mut out = vec![0.0; batch.x.len()];
    match threat.norm {
        Norm::Linf => {
            cx.fill_uniform(AttackDraw::Eta, &mut out, batch.ids);
            out.iter_mut().for_each(|v| *v = *v * 2.0 - 1.0);
        }
        Norm::L2 => cx.fill_normal(AttackDraw::Direction, &mut out, batch.ids),
    }
    rows::for_each(&mut out, width, |i, row| {
        rows::scale_to(threat.norm, row, threat.epsilon);
        let x = rows::row(batch.x, width, i);
        row.iter_mut().zip(x).for_each(|(v, x)| *v = (*v + x).clamp(0.0, 1.0));
        rows::project(threat, x, row);
    });
    out
}

/// How [`maximise`] runs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What is maximised.
    pub objective: Objective,
    /// Steps.
    pub steps: usize,
    /// Gradients averaged at each point.
    pub eot: usize,
    /// Whether an image leaves as soon as it is misclassified; else all go through every step.
    pub leave_when_fooled: bool,
}

/// What [`maximise`] found, row by row.
#[derive(Clone, Debug)]
pub struct Maximum {
    /// The misclassified point, else the point of the largest loss.
    pub point: Vec<f32>,
    /// The largest loss of images that went through every step, in the order of the batch.
    pub loss: Vec<f64>,
    /// Step size of the same images at the end, in units of epsilon.
    pub step: Vec<f32>,
}

/// Auto-PGD from `start`: N rows of pixels in ball and box. `targets` is empty for losses without a
/// target class.
///
/// # Errors
/// A device that fails.
pub fn maximise(
    cx: &mut AttackContext<'_>,
    batch: &Batch<'_>,
    targets: &[usize],
    start: Vec<f32>,
    plan: Plan,
) -> Result<Maximum> {
    let (threat, width) = (cx.threat, cx.pixels());
    let mut active = Active::new(batch);
    let mut state = State::new(start, targets.to_vec());
    let mut checkpoints = Checkpoints::new(plan.steps);
    for step in 0..=plan.steps {
        if active.is_empty() {
            break;
        }
        if step > 0 {
            state.step(&active.x, threat, width, if step > 1 { MOMENTUM } else { 1.0 });
        }
        state.measure(cx, &active, plan)?;
        if plan.leave_when_fooled {
            let keep = active.drop_fooled(&state.logits, &state.point, width);
            state.retain(&keep.0, width);
        }
        state.keep_best(width, step == 0);
        if checkpoints.reached(step) {
            state.checkpoint(width, checkpoints.interval);
            checkpoints.next(step);
        }
        cx.tick(step, plan.steps, active.fooled());
    }
    let (loss, step) = (state.best_loss, state.size);
    Ok(Maximum { point: active.finish(&state.best, width), loss, step })
}

/// The steps after which step sizes are looked at: 0.22 of all, then intervals that shrink by 0.03
/// of all down to 0.06.
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

/// State of the images that are left, a row each.
#[derive(Debug)]
struct State {
    point: Vec<f32>,
    before: Vec<f32>,
    grad: Vec<f32>,
    logits: Vec<f32>,
    loss: Vec<f64>,
    best: Vec<f32>,
    best_grad: Vec<f32>,
    best_loss: Vec<f64>,
    /// Step size in units of epsilon.
    size: Vec<f32>,
    /// Steps of this interval in which the loss rose.
    rises: Vec<usize>,
    previous_loss: Vec<f64>,
    /// At the last checkpoint: the best loss, and whether the step was halved.
    checked_loss: Vec<f64>,
    halved: Vec<bool>,
    targets: Vec<usize>,
}

impl State {
    fn new(start: Vec<f32>, targets: Vec<usize>) -> Self {
        Self {
            before: start.clone(),
            best: start.clone(),
            point: start,
            grad: Vec::new(),
            logits: Vec::new(),
            loss: Vec::new(),
            best_grad: Vec::new(),
            best_loss: Vec::new(),
            size: Vec::new(),
            rises: Vec::new(),
            previous_loss: Vec::new(),
            checked_loss: Vec::new(),
            halved: Vec::new(),
            targets,
        }
    }

    /// Gradient step, projection, momentum, projection.
    fn step(&mut self, x: &[f32], threat: Threat, width: usize, momentum: f32) {
        let Self { point, before, grad, size, .. } = self;
        let old = std::mem::take(before);
        let here = point.clone();
        rows::for_each(point, width, |i, z| {
            let (x, old, here) =
                (rows::row(x, width, i), rows::row(&old, width, i), rows::row(&here, width, i));
            rows::ascend(threat.norm, z, rows::row(grad, width, i), size[i] * threat.epsilon);
            rows::project(threat, x, z);
            for ((z, here), old) in z.iter_mut().zip(here).zip(old) {
                *z = here + (*z - here) * momentum + (here - old) * (1.0 - momentum);
            }
            rows::project(threat, x, z);
        });
        *before = here;
    }

    /// Loss, gradient and logits at the points: means over `eot` passes.
    fn measure(&mut self, cx: &AttackContext<'_>, active: &Active, plan: Plan) -> Result<()> {
        let mut sum = cx.ascend(&self.point, &active.labels, &self.targets, plan.objective)?;
        if plan.eot > 1 {
            let width = cx.pixels();
            // The objective's gradient of the cross-entropy is scaled; passes are averaged at their
            // true sizes.
            let unscale = |ascent: &mut Ascent| {
                if plan.objective == Objective::CrossEntropy {
                    let Ascent { loss, grad, .. } = ascent;
                    rows::for_each(grad, width, |i, row| {
                        row.iter_mut().for_each(|g| *g *= -(-loss[i]).exp_m1() as f32)
                    });
                }
            };
            unscale(&mut sum);
            for _ in 1..plan.eot {
                let mut more =
                    cx.ascend(&self.point, &active.labels, &self.targets, plan.objective)?;
                unscale(&mut more);
                sum.grad.iter_mut().zip(more.grad).for_each(|(a, b)| *a += b);
                sum.logits.iter_mut().zip(more.logits).for_each(|(a, b)| *a += b);
                sum.loss.iter_mut().zip(more.loss).for_each(|(a, b)| *a += b);
            }
        }
        // Only the directions of gradients and the order of logits and losses matter: sums serve as
        // well as means.
        (self.grad, self.logits, self.loss) = (sum.grad, sum.logits, sum.loss);
        Ok(())
    }

    /// Takes the loss just measured into account.
    fn keep_best(&mut self, width: usize, first: bool) {
        if first {
            let n = self.loss.len();
            self.best_grad = self.grad.clone();
            self.best = self.point.clone();
            (self.best_loss, self.checked_loss) = (self.loss.clone(), self.loss.clone());
            (self.size, self.rises, self.halved) = (vec![2.0; n], vec![0; n], vec![true; n]);
        } else {
            for i in 0..self.loss.len() {
                self.rises[i] += usize::from(self.loss[i] > self.previous_loss[i]);
                if self.loss[i] > self.best_loss[i] {
                    self.best_loss[i] = self.loss[i];
                    rows::row_mut(&mut self.best, width, i).copy_from_slice(rows::row(
                        &self.point,
                        width,
                        i,
                    ));
                    rows::row_mut(&mut self.best_grad, width, i)
                        .copy_from_slice(rows::row(&self.grad, width, i));
                }
            }
        }
        self.previous_loss.clone_from(&self.loss);
    }

    /// Halves the steps that no longer help and takes their images back to their best points.
    fn checkpoint(&mut self, width: usize, interval: usize) {
        for i in 0..self.loss.len() {
            let rarely = self.rises[i] as f64 <= RHO * interval as f64;
            let stuck = !self.halved[i] && self.checked_loss[i] >= self.best_loss[i];
            self.halved[i] = rarely || stuck;
            if self.halved[i] {
                self.size[i] /= 2.0;
                rows::row_mut(&mut self.point, width, i)
                    .copy_from_slice(rows::row(&self.best, width, i));
                rows::row_mut(&mut self.grad, width, i).copy_from_slice(rows::row(
                    &self.best_grad,
                    width,
                    i,
                ));
            }
            self.checked_loss[i] = self.best_loss[i];
            self.rises[i] = 0;
        }
    }

    fn retain(&mut self, keep: &[bool], width: usize) {
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let classes = self.logits.len() / keep.len();
        for rows in [&mut self.point, &mut self.before, &mut self.grad, &mut self.best] {
            rows::retain(rows, width, keep);
        }
        rows::retain(&mut self.logits, classes, keep);
        rows::retain(&mut self.loss, 1, keep);
        if !self.targets.is_empty() {
            rows::retain(&mut self.targets, 1, keep);
        }
        // The rest is there from the second measurement on.
        if !self.best_grad.is_empty() {
            rows::retain(&mut self.best_grad, width, keep);
            rows::retain(&mut self.best_loss, 1, keep);
            rows::retain(&mut self.size, 1, keep);
            rows::retain(&mut self.rises, 1, keep);
            rows::retain(&mut self.previous_loss, 1, keep);
            rows::retain(&mut self.checked_loss, 1, keep);
            rows::retain(&mut self.halved, 1, keep);
        }
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
        let apgd = Apgd::parse("apgd-t").unwrap();
        assert_eq!((apgd.rounds(10), apgd.rounds(4), apgd.rounds(2), apgd.rounds(1)), (9, 3, 1, 0));
        let twice = Apgd::parse("apgd-t-20x2").unwrap();
        assert_eq!((twice.steps, twice.rounds(10), twice.round_target(3, 10)), (20, 18, 1));
        assert_eq!(Apgd::parse("apgd-ce-100x5").unwrap().rounds(10), 5);
        assert_eq!(Apgd::parse("apgd-cex5"), None);
    }
}
