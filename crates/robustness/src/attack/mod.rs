//! Evaluation attacks: how a perturbation is searched for. Whether it succeeded is the evaluator's
//! to say.
//!
//! Attacks work on rows of host pixels and ask a [`Classifier`] for logits and gradients. What
//! happens to an image is a function of the image, the threat, the seed and the round alone: every
//! draw is keyed by the image's id, so the batch size changes nothing. An image that is fooled
//! leaves the batch at once.

pub mod apgd;
pub mod cw;
mod ensemble;
pub mod fab;
mod fgsm;
mod names;
mod objective;
pub mod pgd;
pub mod rays;
mod registry;
pub mod square;

use std::fmt::Debug;

use sora_rng::{self as rng, Key, Purpose};

pub use fgsm::Fgsm;
pub use objective::{Objective, largest_other, targets};
pub use registry::{ATTACKS, AttackInfo, Entry, Part, entries, entry};

use crate::{
    classifier::{Access, Classifier, Shape, stands},
    error::Result,
    rows::{self, Rows},
    threat::Threat,
};

/// What a random draw of an attack is for. The numbers decide the draws: append, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttackDraw {
    /// A start, per element.
    Eta,
    /// Direction of an l2 start.
    Direction,
    /// Length of an l2 start.
    Radius,
    /// A sign, per element.
    Sign,
    /// A proposal of a random search, per sample and query.
    Proposal,
    /// A draw of an attack from outside of the crate, from 0 to 127.
    Own(u8),
}

impl AttackDraw {
    fn number(self) -> u16 {
        match self {
            Self::Eta => 0,
            Self::Direction => 3,
            Self::Radius => 4,
            Self::Sign => 6,
            Self::Proposal => 10,
            Self::Own(number) => 128 | u16::from(number),
        }
    }
}

/// Images that still stand.
#[derive(Clone, Copy, Debug)]
pub struct AttackBatch<'a> {
    /// N rows of pixels in [0, 1].
    pub x: &'a Rows,
    /// N classes.
    pub labels: &'a [usize],
    /// N sample ids, which the draws are keyed by.
    pub ids: &'a [u32],
}

impl AttackBatch<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// An attack. It returns candidate images; the evaluator projects and scores them itself.
pub trait Attack: Debug + Send + Sync {
    /// Candidates, N rows of pixels, for the images of `batch` in round [`AttackContext::round`].
    ///
    /// # Errors
    /// A device that fails.
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows>;

    /// Independent rounds on a network of `classes` classes: random restarts, target classes, or
    /// both. An image stands only if it survives every one; a round runs on what survived those
    /// before.
    fn rounds(&self, classes: usize) -> usize {
        let _ = classes;
        1
    }

    /// What tells its draws, and its kept results, from those of other attacks: everything but the
    /// number of restarts, so that more of them go on where fewer ended.
    fn key(&self) -> String {
        format!("{self:?}")
    }

    /// What it asks of a network.
    fn needs(&self) -> Access {
        Access::Gradients
    }

    /// What is done differently on a network of `shape` than the attack's definition says, for the
    /// report.
    fn note(&self, shape: Shape) -> Option<String> {
        let _ = shape;
        None
    }
}

/// What an attack works with.
pub struct AttackContext<'a> {
    /// The network under attack.
    pub model: &'a dyn Classifier,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Number of the round, from 0.
    pub round: usize,
    seed: u64,
    stream: u64,
    tick: &'a mut (dyn FnMut(Tick) + Send),
}

impl Debug for AttackContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttackContext")
            .field("model", &self.model)
            .field("threat", &self.threat)
            .field("round", &self.round)
            .finish_non_exhaustive()
    }
}

/// How far an attack is with its batch in a round.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Part of the round that is done, from 0 to 1.
    pub done: f64,
    /// Images fooled so far, by the attack's own account.
    pub fooled: usize,
}

/// Loss, gradient and logits of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Ascent {
    pub loss: Vec<f64>,
    pub grad: Rows,
    pub logits: Rows,
}

impl<'a> AttackContext<'a> {
    /// The context of round `round` of the attack called `name`, which tells its draws from those
    /// of other attacks.
    pub fn new(
        model: &'a dyn Classifier,
        threat: Threat,
        seed: u64,
        name: &str,
        round: usize,
        tick: &'a mut (dyn FnMut(Tick) + Send),
    ) -> Self {
        Self { model, threat, round, seed, stream: attack_id(name), tick }
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.model.shape().pixels()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.model.shape().classes
    }

    /// Logits at the points `x`.
    ///
    /// # Errors
    /// A device that fails.
    pub fn logits(&self, x: &Rows) -> Result<Rows> {
        Ok(Rows::new(self.model.logits(x)?, self.classes()))
    }

    /// Says how far the round is: `step` of `steps`, and how many images are fooled.
    pub fn tick(&mut self, step: usize, steps: usize, fooled: usize) {
        (self.tick)(Tick { done: step as f64 / steps.max(1) as f64, fooled });
    }

    fn key(&self, draw: AttackDraw) -> Key {
        Key {
            seed: self.seed,
            purpose: Purpose::Attack(draw.number() << 8),
            epoch: self.stream,
            step: self.round as u64,
        }
    }

    /// Fills the rows of `out` with U[0, 1), a row by the id of its sample.
    pub fn fill_uniform(&self, draw: AttackDraw, out: &mut [f32], ids: &[u32]) {
        rng::fill_uniform(out, self.key(draw), ids);
    }

    /// Fills the rows of `out` with N(0, 1), a row by the id of its sample.
    pub fn fill_normal(&self, draw: AttackDraw, out: &mut [f32], ids: &[u32]) {
        rng::fill_normal(out, self.key(draw), ids);
    }

    /// As [`fill_uniform`](Self::fill_uniform), for the query `query` of an attack that draws anew
    /// at each.
    pub fn fill_uniform_at(&self, draw: AttackDraw, query: usize, out: &mut [f32], ids: &[u32]) {
        let key = self.key(draw);
        rng::fill_uniform(out, Key { step: key.step << 32 | query as u64, ..key }, ids);
    }

    /// `objective` at the points `x`, with its gradient; `targets` may be empty where no target is
    /// needed.
    pub(crate) fn ascend(
        &self,
        x: &Rows,
        labels: &[usize],
        targets: &[usize],
        objective: Objective,
    ) -> Result<Ascent> {
        let classes = self.classes();
        let mut loss = vec![0.0; labels.len()];
        let back = self.model.pull_back(x, &mut |first, logits| {
            let mut cotangent = vec![0.0; logits.len()];
            for (k, (z, c)) in logits.chunks(classes).zip(cotangent.chunks_mut(classes)).enumerate()
            {
                let i = first + k;
                let target = targets.get(i).copied().unwrap_or(labels[i]);
                loss[i] = objective.evaluate(z, labels[i], target, c);
            }
            cotangent
        })?;
        let (grad, logits) = (Rows::new(back.grad, x.width()), Rows::new(back.logits, classes));
        Ok(Ascent { loss, grad, logits })
    }
}

/// A number that tells attacks apart in the random streams: FNV-1a of the name.
fn attack_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The images of a batch that an attack still works on.
#[derive(Debug)]
pub(crate) struct Active {
    /// Row of the batch.
    pub index: Vec<usize>,
    /// Clean pixels.
    pub x: Rows,
    pub labels: Vec<usize>,
    /// Candidates of the whole batch; clean where there is none yet.
    out: Rows,
    fooled: usize,
}

/// Which rows stay.
#[derive(Debug)]
pub(crate) struct Keep(pub Vec<bool>);

impl Keep {
    /// `rows` without those that do not stay.
    pub fn apply(&self, mut rows: Rows) -> Rows {
        rows.retain(&self.0);
        rows
    }
}

impl Active {
    pub fn new(batch: &AttackBatch<'_>) -> Self {
        Self {
            index: (0..batch.len()).collect(),
            x: batch.x.clone(),
            labels: batch.labels.to_vec(),
            out: batch.x.clone(),
            fooled: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Images that were fooled and have left.
    pub fn fooled(&self) -> usize {
        self.fooled
    }

    /// Lets the images go that `logits` misclassify, with `point` as their candidates. The caller
    /// drops the rows of its own state that do not stay.
    pub fn drop_fooled(&mut self, logits: &Rows, point: &Rows) -> Keep {
        let done: Vec<_> =
            (0..self.len()).map(|i| !stands(logits.row(i), self.labels[i])).collect();
        self.drop_done(&done, point)
    }

    /// Lets the images go for which `done` is true, with `point` as their candidates.
    pub fn drop_done(&mut self, done: &[bool], point: &Rows) -> Keep {
        for (i, _) in done.iter().enumerate().filter(|(_, done)| **done) {
            self.propose(i, point.row(i));
        }
        self.leave(done)
    }

    /// Lets the images go for which `done` is true; their candidates are what they are.
    pub fn leave(&mut self, done: &[bool]) -> Keep {
        self.fooled += done.iter().filter(|done| **done).count();
        let keep: Vec<_> = done.iter().map(|done| !done).collect();
        rows::keep(&mut self.index, &keep);
        rows::keep(&mut self.labels, &keep);
        self.x.retain(&keep);
        Keep(keep)
    }

    /// Makes `point` the candidate of the active image `i`.
    pub fn propose(&mut self, i: usize, point: &[f32]) {
        self.out.row_mut(self.index[i]).copy_from_slice(point);
    }

    /// The candidates of the whole batch; those that are left get `point`.
    pub fn finish(mut self, point: &Rows) -> Rows {
        for i in 0..self.len() {
            self.propose(i, point.row(i));
        }
        self.out
    }

    /// The candidates of the whole batch as they are.
    pub fn into_candidates(self) -> Rows {
        self.out
    }
}

/// Bisection between each image and its adversarial example, which lies some way behind the
/// boundary; images without one stay.
pub(crate) fn nearest_between(
    cx: &AttackContext<'_>,
    batch: &AttackBatch<'_>,
    mut found: Rows,
) -> Result<Rows> {
    const HALVINGS: usize = 16;
    let far = found.clone();
    let (mut low, mut high) = (vec![0f32; batch.len()], vec![1f32; batch.len()]);
    for _ in 0..HALVINGS {
        let mut middle = batch.x.clone();
        middle.for_each(|i, row| {
            let share = f32::midpoint(low[i], high[i]);
            row.iter_mut().zip(far.row(i)).for_each(|(x, far)| *x += share * (far - *x));
        });
        let logits = cx.logits(&middle)?;
        for i in 0..batch.len() {
            let share = f32::midpoint(low[i], high[i]);
            if stands(logits.row(i), batch.labels[i]) {
                low[i] = share;
            } else {
                high[i] = share;
                found.row_mut(i).copy_from_slice(middle.row(i));
            }
        }
    }
    Ok(found)
}
