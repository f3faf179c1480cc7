//! The interface between attacks and networks: logits, and gradients of functions of logits.

use std::{
    any::Any,
    fmt::{self, Debug},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Sizes of a network's input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Image channels.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Shape {
    /// Number of values of an image, over all channels.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// A function that receives the number of a row and the logits `[n, K]` of the images from that row
/// on, and returns a cotangent of the same shape. It must not call rayon, because threads of
/// rayon's pool wait for it.
pub type Cotangent<'a> = dyn FnMut(usize, &[f32]) -> Vec<f32> + Send + 'a;

/// The answers that a classifier gives, or that an attack asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The predicted class only: its logit is 1, and all other logits are 0.
    Labels,
    /// Logits, but no gradients.
    Scores,
    /// Logits and gradients.
    Gradients,
}

impl Access {
    /// Whether a classifier that answers so can be attacked by `attack`, which asks for `needs`.
    ///
    /// # Errors
    /// [`Error::Access`] where it asks for more.
    pub fn allows(self, attack: &str, needs: Self) -> Result<()> {
        if needs <= self {
            return Ok(());
        }
        Err(Error::Access { attack: attack.to_owned(), needs, access: self })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Labels => "labels",
            Self::Scores => "logits",
            Self::Gradients => "gradients",
        })
    }
}

/// A classifier under attack, in eval mode. Implement it to evaluate a network of your own; images
/// are rows of pixels in [0, 1].
pub trait Classifier: Debug + Send + Sync {
    /// Size of the images, and number of classes.
    fn shape(&self) -> Shape;

    /// Computes the logits, N rows of K, of the images `x`, N rows of channels x height x width
    /// pixels. A row's logits depend on that row alone.
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn logits(&self, x: &[f32]) -> Result<Vec<f32>>;

    /// Computes the logits of `x` and, for each image, the product of its cotangent with the
    /// Jacobian of its logits: the gradient of `sum_k c_k z_k` by the pixels, with c constant.
    /// `cotangent` is called for groups of neighbouring rows, once for each row, in any order.
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack>;

    /// The answers that this classifier gives. A served model that returns only logits or labels
    /// says so here; an attack that asks for more is refused, and [`pull_back`](Self::pull_back) is
    /// never called.
    fn access(&self) -> Access {
        Access::Gradients
    }

    /// Images that it has answered so far, where that is counted: a served model, whose answers
    /// cost.
    fn queries(&self) -> Option<u64> {
        None
    }

    /// Returns a cheaper way to compute [`logits`](Self::logits), up to rounding, for a search that
    /// starts at the images `x` and changes a few pixels of each image at a time. The logits of an
    /// image depend on its own moves alone. `None` where there is no cheaper way.
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn incremental(&self, x: &[f32]) -> Result<Option<Box<dyn Incremental + '_>>> {
        let _ = x;
        Ok(None)
    }

    /// How many batches may be asked about at the same time, each from a thread of its own, where that
    /// is faster than one after another: 2 for a network on a device, which computes one batch while
    /// the host works on the other.
    fn lanes(&self) -> usize {
        1
    }

    /// Returns a value that the evaluator holds during many passes over shrinking batches, such as
    /// a claim on reused memory. `None` where nothing needs to be held.
    fn session(&self) -> Option<Box<dyn Any>> {
        None
    }
}

/// Logits of images that move a few pixels at a time; see [`Classifier::incremental`].
pub trait Incremental {
    /// Moves the images `rows` (in ascending order) to their rows of `points`, which has one row
    /// for every image. Returns the logits there, one row for each of `rows`.
    ///
    /// # Errors
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    fn step(&mut self, points: &[f32], rows: &[usize]) -> Result<Vec<f32>>;

    /// Moves `rows`, a part of the rows of the last step, back to where they were before that step.
    fn back(&mut self, rows: &[usize]);
}

/// Result of [`Classifier::pull_back`].
#[derive(Clone, Debug)]
pub struct PullBack {
    /// N rows of K logits.
    pub logits: Vec<f32>,
    /// N rows of pixels.
    pub grad: Vec<f32>,
}

/// The class of the largest logit, the first of equals.
pub fn predicted(logits: &[f32]) -> usize {
    let mut best = 0;
    for (k, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = k;
        }
    }
    best
}

/// Whether the logits of an image predict `label`. Logits that have overflowed (NaN or +inf among
/// them, or -inf alone) predict no class: no attack could learn from them. A class of logit -inf has
/// the probability 0.
pub fn stands(logits: &[f32], label: usize) -> bool {
    let class = predicted(logits);
    class == label && !is_broken(logits)
}

/// Whether the logits have overflowed.
pub(crate) fn is_broken(logits: &[f32]) -> bool {
    let largest = logits.get(predicted(logits)).copied().unwrap_or(f32::NAN);
    !largest.is_finite() || logits.iter().any(|v| v.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_have_overflowed_predict_no_class() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for (logits, class) in [
            ([2.0, 1.0, 0.5], Some(0)),
            ([-inf, 1.0, -inf], Some(1)),
            ([inf, 1.0, 0.5], None),
            ([inf, -inf, -inf], None),
            ([-inf, -inf, -inf], None),
            ([0.0, nan, 1.0], None),
            ([nan, nan, nan], None),
        ] {
            let found: Vec<_> = (0..3).filter(|&label| stands(&logits, label)).collect();
            assert_eq!(found, class.into_iter().collect::<Vec<_>>(), "{logits:?}");
        }
    }
}
