//! Evaluation attacks: algorithms that search for a perturbation. The evaluator, not the attack,
//! decides whether a perturbation succeeds.
//!
//! Attacks work on rows of host pixels and ask a [`Classifier`] for logits and gradients. The
//! result of an image is a function of the image, the threat, the seed and the round alone: every
//! draw is keyed by the image's id, so the batch size changes nothing. An image that is fooled
//! leaves the batch at once.

pub mod apgd;
mod apgd_l1;
pub mod cw;
pub mod deepfool;
mod ensemble;
pub mod fab;
mod fgsm;
pub mod fmn;
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
pub use registry::{ATTACKS, AttackInfo, Entry, Part, allowed, entries, entry};

use crate::{
    classifier::{Access, Classifier, Shape, stands},
    error::Result,
    rows::{self, Rows},
    threat::Threat,
};

/// The purpose of an attack's random draw. The numbers decide the draws: append, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttackDraw {
    /// A random start, one draw for each element.
    Eta,
    /// Direction of an l2 start.
    Direction,
    /// Length of an l2 start.
    Radius,
    /// A sign for each element.
    Sign,
    /// A proposal of a random search, for each sample and query.
    Proposal,
    /// A draw of an attack outside of this crate, numbered from 0 to 127.
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

/// The images that still stand, that is, whose label the network still predicts.
#[derive(Clone, Copy, Debug)]
pub struct AttackBatch<'a> {
    /// N rows of pixels in [0, 1].
    pub x: &'a Rows,
    /// Classes of the N images.
    pub labels: &'a [usize],
    /// Sample ids of the N images, by which the draws are keyed.
    pub ids: &'a [u32],
}

impl AttackBatch<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// An attack. It returns candidate images; the evaluator projects and scores them itself.
pub trait Attack: Debug + Send + Sync {
    /// Candidates, N rows of pixels, for the images of `batch` in round [`AttackContext::round`].
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows>;

    /// Number of independent rounds on a network of `classes` classes: random restarts, target
    /// classes, or both. An image stands only if it survives every round; a round runs on the
    /// images that survived the rounds before it.
    fn rounds(&self, classes: usize) -> usize {
        let _ = classes;
        1
    }

    /// A text that separates the attack's draws and kept results from those of other attacks. It
    /// holds every option except the number of restarts, so that an evaluation with more restarts
    /// continues where one with fewer ended.
    fn key(&self) -> String {
        format!("{self:?}")
    }

    /// The access to the network that the attack needs.
    fn needs(&self) -> Access {
        Access::Gradients
    }

    /// Describes where the attack departs from its definition on a network of `shape`, for the
    /// report.
    fn note(&self, shape: Shape) -> Option<String> {
        let _ = shape;
        None
    }
}

/// The network, the threat and the tools that an attack works with.
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

/// Progress of an attack with its batch in a round.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Finished part of the round, from 0 to 1.
    pub done: f64,
    /// Number of images fooled so far, as counted by the attack.
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
    /// The context of round `round` of the attack called `name`; the name separates its draws from
    /// those of other attacks.
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

    /// Number of values of an image.
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
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    pub fn logits(&self, x: &Rows) -> Result<Rows> {
        Ok(Rows::new(self.model.logits(x)?, self.classes()))
    }

    /// Reports progress: `step` of `steps` steps are done, and `fooled` images are fooled.
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

    /// Fills the rows of `out` with U[0, 1); the id of a row's sample decides its numbers.
    pub fn fill_uniform(&self, draw: AttackDraw, out: &mut [f32], ids: &[u32]) {
        rng::fill_uniform(out, self.key(draw), ids);
    }

    /// Fills the rows of `out` with N(0, 1); the id of a row's sample decides its numbers.
    pub fn fill_normal(&self, draw: AttackDraw, out: &mut [f32], ids: &[u32]) {
        rng::fill_normal(out, self.key(draw), ids);
    }

    /// Does what [`fill_uniform`](Self::fill_uniform) does, for query number `query` of an attack
    /// that draws new numbers at each query.
    pub fn fill_uniform_at(&self, draw: AttackDraw, query: usize, out: &mut [f32], ids: &[u32]) {
        let key = self.key(draw);
        rng::fill_uniform(out, Key { step: key.step << 32 | query as u64, ..key }, ids);
    }

    /// Computes `objective` at the points `x`, and its gradient; `targets` may be empty where the
    /// objective has no target.
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

/// A number that separates attacks in the random streams: FNV-1a of the name.
fn attack_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The images of a batch that an attack still works on.
#[derive(Debug)]
pub(crate) struct Active {
    /// The row of each image in the batch.
    pub index: Vec<usize>,
    /// Clean pixels.
    pub x: Rows,
    pub labels: Vec<usize>,
    /// Candidates of the whole batch; the clean image where there is none yet.
    out: Rows,
    /// Images of the batch whose candidate is more than a clean image.
    hinted: Vec<bool>,
    fooled: usize,
}

/// Which rows stay.
#[derive(Debug)]
pub(crate) struct Keep(pub Vec<bool>);

impl Keep {
    /// `rows` without the rows that do not stay.
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
            hinted: vec![false; batch.len()],
            fooled: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of images that were fooled and have left.
    pub fn fooled(&self) -> usize {
        self.fooled
    }

    /// Removes the images that `logits` misclassify and makes `point` their candidates. The caller
    /// removes the rows of its own state with the result.
    pub fn drop_fooled(&mut self, logits: &Rows, point: &Rows) -> Keep {
        let done: Vec<_> =
            (0..self.len()).map(|i| !stands(logits.row(i), self.labels[i])).collect();
        self.drop_done(&done, point)
    }

    /// Removes the images for which `done` is true and makes `point` their candidates.
    pub fn drop_done(&mut self, done: &[bool], point: &Rows) -> Keep {
        for (i, _) in done.iter().enumerate().filter(|(_, done)| **done) {
            self.propose(i, point.row(i));
        }
        self.leave(done)
    }

    /// Removes the images for which `done` is true; their candidates stay as they are.
    pub fn leave(&mut self, done: &[bool]) -> Keep {
        self.fooled += done.iter().filter(|done| **done).count();
        let keep: Vec<_> = done.iter().map(|done| !done).collect();
        rows::keep(&mut self.index, &keep);
        rows::keep(&mut self.labels, &keep);
        self.x.retain(&keep);
        Keep(keep)
    }

    /// Makes the points that `logits` misclassify candidates, and lets their images stay: they are
    /// what [`finish`](Self::finish) gives of images that do not leave.
    pub fn hint(&mut self, logits: &Rows, point: &Rows) {
        for i in 0..self.len() {
            if !stands(logits.row(i), self.labels[i]) {
                self.propose(i, point.row(i));
                self.hinted[self.index[i]] = true;
            }
        }
    }

    /// Makes `point` the candidate of the active image `i`.
    pub fn propose(&mut self, i: usize, point: &[f32]) {
        self.out.row_mut(self.index[i]).copy_from_slice(point);
    }

    /// The candidates of the whole batch; the images that are left, and have no
    /// [hint](Self::hint), get `point`.
    pub fn finish(mut self, point: &Rows) -> Rows {
        for i in 0..self.len() {
            if !self.hinted[self.index[i]] {
                self.propose(i, point.row(i));
            }
        }
        self.out
    }

    /// The candidates of the whole batch, unchanged.
    pub fn into_candidates(self) -> Rows {
        self.out
    }
}

/// Runs a bisection between each image and its adversarial example, which lies somewhat beyond the
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_the_candidate_of_an_image_that_stands_to_the_end() {
        let rows = |values: [f32; 3]| Rows::new(values.to_vec(), 1);
        let x = rows([0.1, 0.2, 0.3]);
        let batch = AttackBatch { x: &x, labels: &[0, 0, 0], ids: &[7, 8, 9] };
        let mut active = Active::new(&batch);
        // The last pass takes images 0 and 1 for class 1.
        active.hint(&Rows::new(vec![0.0, 1.0, 0.0, 1.0, 1.0, 0.0], 2), &rows([0.5, 0.6, 0.7]));
        assert_eq!((active.len(), active.fooled()), (3, 0));
        // The mean of the passes takes image 1 for class 1, at another point.
        let keep = active
            .drop_fooled(&Rows::new(vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0], 2), &rows([0.0, 0.8, 0.0]));
        assert_eq!(keep.0, [true, false, true]);
        let found = active.finish(&Rows::new(vec![0.9, 0.4], 1));
        assert_eq!(*found, [0.5, 0.8, 0.4]);
    }
}
