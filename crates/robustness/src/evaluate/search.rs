//! One attack on one batch: where it searches, and what its candidates are worth.

use std::fmt::Display;

use super::{EvalConfig, Evaluator, Pixels};
use crate::{
    attack::{AttackBatch, AttackContext, Part, RowKey, Tick},
    classifier::{Classifier, stands},
    error::{Error, Result},
    rows::{self, Rows},
};

/// A rougher and faster form of the network.
#[derive(Debug)]
pub(super) struct Near<'a> {
    pub model: &'a dyn Classifier,
    pub note: String,
}

impl<'a> Evaluator<'a> {
    /// Lets attacks search on `near`: the same network, computed more roughly and faster, such as in
    /// bf16. Candidates are scored by the network itself, and an image that only `near` takes for
    /// fooled is attacked again on the network. So no rounding makes an image fall or ends its
    /// attack; what remains is that the gradients of the search are rough. `form` says what `near`
    /// is, for a note with the results.
    ///
    /// # Errors
    /// [`Error::Shape`] for a network of other sizes, [`Error::Access`] for one that answers less.
    pub fn search_on(self, near: &'a dyn Classifier, form: impl Display) -> Result<Self> {
        let (network, images) = (near.shape(), self.model.shape());
        if network != images {
            return Err(Error::Shape { network, images });
        }
        near.access().allows("on the network itself", self.model.access())?;
        let note =
            format!("attacks searched in {form}; what they found was scored in full precision");
        Ok(Self { near: Some(Near { model: near, note }), ..self })
    }

    /// Where this evaluation searches.
    pub(super) fn search(&self) -> Search<'a> {
        let near = self.near.as_ref().map(|near| near.model);
        Search { model: self.model, near, config: self.config }
    }

    /// Whether the network classifies each image as its label.
    pub(super) fn score(&self, x: &Rows, labels: &[usize]) -> Result<Vec<bool>> {
        scored(self.model, x, labels)
    }
}

/// The network, and the form of it that attacks search on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    model: &'a dyn Classifier,
    near: Option<&'a dyn Classifier>,
    config: EvalConfig,
}

impl Search<'_> {
    /// How many batches are attacked at the same time.
    pub fn lanes(&self) -> usize {
        let lanes = self.near.map_or(usize::MAX, Classifier::lanes).min(self.model.lanes());
        // Which of two batches a network answered for, its count does not say.
        if self.model.queries().is_some() { 1 } else { lanes.max(1) }
    }

    /// The candidates of `part` for `images`, within the ball, and whether each image stands.
    pub fn attacked(
        &self,
        part: &Part,
        images: &AttackBatch<'_>,
        tick: &mut (dyn FnMut(Tick) + Send),
    ) -> Result<(Rows, Vec<bool>)> {
        let Some(near) = self.near else {
            return self.attacked_on(self.model, part, images, tick);
        };
        let (mut candidates, mut stands) = self.attacked_on(near, part, images, tick)?;
        let standing: Vec<usize> = (0..images.len()).filter(|&i| stands[i]).collect();
        let labels: Vec<usize> = standing.iter().map(|&i| images.labels[i]).collect();
        let near_stands = scored(near, &candidates.select(&standing), &labels)?;
        let fooled = standing.iter().zip(near_stands).filter(|(_, stands)| !stands);
        let again: Vec<usize> = fooled.map(|(&i, _)| i).collect();
        if again.is_empty() {
            return Ok((candidates, stands));
        }
        let labels: Vec<usize> = again.iter().map(|&i| images.labels[i]).collect();
        let keys: Vec<RowKey> = again.iter().map(|&i| images.keys[i]).collect();
        let some = AttackBatch { x: &images.x.select(&again), labels: &labels, keys: &keys };
        let (found, stand) = self.attacked_on(self.model, part, &some, &mut |_| ())?;
        for ((&i, found), stand) in again.iter().zip(found.each()).zip(stand) {
            candidates.row_mut(i).copy_from_slice(found);
            stands[i] = stand;
        }
        Ok((candidates, stands))
    }

    /// As [`attacked`](Self::attacked), with a search on `searched`.
    fn attacked_on(
        &self,
        searched: &dyn Classifier,
        part: &Part,
        images: &AttackBatch<'_>,
        tick: &mut (dyn FnMut(Tick) + Send),
    ) -> Result<(Rows, Vec<bool>)> {
        let EvalConfig { threat, pixels, seed, .. } = self.config;
        let mut cx = AttackContext::new(searched, threat, seed, &part.key, tick);
        // The attack runs inside the thread pool, like a training step, because a call from outside
        // would wake a thread of the pool for each of its parallel parts.
        let mut candidates = rayon::scope(|_| part.attack.run(&mut cx, images))?;
        if candidates.len() != images.x.len() {
            return Err(Error::Length {
                what: format!("candidates of attack {}", part.name),
                found: candidates.len(),
                expected: images.x.len(),
            });
        }
        candidates.for_each(|i, row| {
            rows::project(threat, images.x.row(i), row);
            if pixels == Pixels::EightBit {
                rows::round_to_eight_bits(threat, images.x.row(i), row);
            }
        });
        let stands = scored(self.model, &candidates, images.labels)?;
        Ok((candidates, stands))
    }
}

/// Whether `model` classifies each image as its label.
fn scored(model: &dyn Classifier, x: &Rows, labels: &[usize]) -> Result<Vec<bool>> {
    let logits = Rows::new(model.logits(x)?, model.shape().classes);
    Ok(logits.each().zip(labels).map(|(z, &label)| stands(z, label)).collect())
}
