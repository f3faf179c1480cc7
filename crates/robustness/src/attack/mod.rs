//! Evaluation attacks: algorithms that search for a perturbation. The evaluator, not the attack,
//! decides whether a perturbation succeeds.
//!
//! Attacks work on rows of host pixels and ask a [`Classifier`](crate::Classifier) for logits and
//! gradients. The result of a row is a function of the image, the threat, the seed and the round
//! alone: every draw is keyed by the image's id, so the batch size changes nothing. An image that is
//! fooled leaves the batch at once.

mod active;
pub mod apgd;
mod context;
pub mod cw;
pub mod deepfool;
mod ensemble;
pub mod fab;
mod fgsm;
pub mod fmn;
mod names;
mod objective;
pub mod pgd;
mod plane;
pub mod rays;
mod registry;
pub mod square;

use std::fmt::Debug;

pub(crate) use active::{Active, Keep};
pub(crate) use context::Ascent;
pub use context::{AttackContext, AttackDraw, Tick};
pub use fgsm::Fgsm;
pub use objective::{Objective, largest_other, targets};
pub use registry::{ATTACKS, AttackInfo, Entry, Part, allowed, entries, entry};

use crate::{
    classifier::{Access, Shape, stands},
    error::Result,
    rows::Rows,
};

/// What decides the draws of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The id of its sample.
    pub id: u32,
    /// Number of the round, from 0.
    pub round: usize,
}

impl RowKey {
    /// The samples `ids` in round `round`.
    pub fn of(ids: &[u32], round: usize) -> Vec<Self> {
        ids.iter().map(|&id| Self { id, round }).collect()
    }
}

/// The images that still stand, that is, whose label the network still predicts. An image may have
/// several rows, each in a round of its own.
#[derive(Clone, Copy, Debug)]
pub struct AttackBatch<'a> {
    /// N rows of pixels in [0, 1].
    pub x: &'a Rows,
    /// Classes of the N rows.
    pub labels: &'a [usize],
    /// Samples and rounds of the N rows.
    pub keys: &'a [RowKey],
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

/// Passes of an image through a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// For logits alone.
    pub forward: usize,
    /// For logits and a gradient by the image.
    pub gradient: usize,
}

/// An attack. It returns candidate images; the evaluator projects and scores them itself.
pub trait Attack: Debug + Send + Sync {
    /// Candidates, N rows of pixels, for the images of `batch` in the rounds of its
    /// [`keys`](AttackBatch::keys).
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows>;

    /// Number of independent rounds on a network of `classes` classes: random restarts, target
    /// classes, or both. An image stands only if it survives every round; what comes after the round
    /// in which it fell is not asked for, or not looked at.
    fn rounds(&self, classes: usize) -> usize {
        let _ = classes;
        1
    }

    /// The most passes, one after the other, that an image takes in one round on a network of
    /// `classes` classes: as many as if it stands to the end. The one by which the evaluator scores
    /// the candidate is not among them. The default, none at all, is that of an attack that does not
    /// say; a plan leaves its time out.
    fn passes(&self, classes: usize) -> Passes {
        let _ = classes;
        Passes::default()
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

/// Forward passes of [`nearest_between`].
pub(crate) const HALVINGS: usize = 16;

/// Runs a bisection between each image and its adversarial example, which lies somewhat beyond the
/// boundary; images without one stay.
pub(crate) fn nearest_between(
    cx: &AttackContext<'_>,
    batch: &AttackBatch<'_>,
    mut found: Rows,
) -> Result<Rows> {
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
