//! What an attack works with: the network, its draws, and the loss that it climbs. No paper's: each
//! attack names its own.

use std::fmt::Debug;

use sora_rng::{self as rng, Key, Purpose};

use super::{Objective, RowKey};
use crate::{classifier::Classifier, error::Result, rows::Rows, threat::Threat};

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

/// The network, the threat and the tools that an attack works with.
pub struct AttackContext<'a> {
    /// The network under attack.
    pub model: &'a dyn Classifier,
    /// Norm and epsilon.
    pub threat: Threat,
    seed: u64,
    stream: u64,
    tick: &'a mut (dyn FnMut(Tick) + Send),
}

impl Debug for AttackContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttackContext")
            .field("model", &self.model)
            .field("threat", &self.threat)
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
    /// The context of the attack called `name`; the name separates its draws from those of other
    /// attacks.
    pub fn new(
        model: &'a dyn Classifier,
        threat: Threat,
        seed: u64,
        name: &str,
        tick: &'a mut (dyn FnMut(Tick) + Send),
    ) -> Self {
        Self { model, threat, seed, stream: attack_id(name), tick }
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

    /// Calls `fill` with the rows of each round, the key of their draws, and their samples.
    fn fill(
        &self,
        draw: AttackDraw,
        mut out: &mut [f32],
        keys: &[RowKey],
        fill: impl Fn(&mut [f32], Key, &[u32]),
    ) {
        let width = out.len() / keys.len().max(1);
        for keys in keys.chunk_by(|a, b| a.round == b.round) {
            let (rows, others) = out.split_at_mut(keys.len() * width);
            let key = Key {
                seed: self.seed,
                purpose: Purpose::Attack(draw.number() << 8),
                epoch: self.stream,
                step: keys[0].round as u64,
            };
            fill(rows, key, &keys.iter().map(|key| key.id).collect::<Vec<_>>());
            out = others;
        }
    }

    /// Fills the rows of `out` with U[0, 1); the key of a row decides its numbers.
    pub fn fill_uniform(&self, draw: AttackDraw, out: &mut [f32], keys: &[RowKey]) {
        self.fill(draw, out, keys, rng::fill_uniform);
    }

    /// Fills the rows of `out` with N(0, 1); the key of a row decides its numbers.
    pub fn fill_normal(&self, draw: AttackDraw, out: &mut [f32], keys: &[RowKey]) {
        self.fill(draw, out, keys, rng::fill_normal);
    }

    /// Does what [`fill_uniform`](Self::fill_uniform) does, for query number `query` of an attack
    /// that draws new numbers at each query.
    pub fn fill_uniform_at(
        &self,
        draw: AttackDraw,
        query: usize,
        out: &mut [f32],
        keys: &[RowKey],
    ) {
        self.fill(draw, out, keys, |out, key, ids| {
            rng::fill_uniform(out, Key { step: key.step << 32 | query as u64, ..key }, ids);
        });
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

/// A number that separates attacks in the random streams: FNV-1a (Fowler, Noll and Vo) of the name.
fn attack_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
