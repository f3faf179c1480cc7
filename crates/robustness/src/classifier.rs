//! What an attack needs from a network: logits, and gradients of functions of them.

use std::{
    any::Any,
    fmt::{self, Debug},
};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a network takes and gives.
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
    /// Values of an image, over all channels.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// A function of the number of a row and the logits `[n, K]` of the images from that row on, which
/// gives a cotangent of their shape. It must not call rayon: threads of its pool wait for it.
pub type Cotangent<'a> = dyn FnMut(usize, &[f32]) -> Vec<f32> + Send + 'a;

/// What can be asked of a classifier, or is asked by an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The class that it names: its logits are 1 for that class and 0 for the others.
    Labels,
    /// Logits, but no gradients.
    Scores,
    /// Logits and gradients.
    Gradients,
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
    /// Size of the images and number of classes.
    fn shape(&self) -> Shape;

    /// Logits, N rows of K, of the images `x`, N rows of channels x height x width pixels. A row's
    /// logits depend on that row alone.
    ///
    /// # Errors
    /// A device that fails.
    fn logits(&self, x: &[f32]) -> Result<Vec<f32>>;

    /// Logits of `x` and, for each image, the product of its cotangent with the Jacobian of its
    /// logits: the gradient of `sum_k c_k z_k` for the pixels, c constant. `cotangent` is called
    /// for groups of neighbouring rows, each row once, in any order.
    ///
    /// # Errors
    /// A device that fails.
    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack>;

    /// What it answers. A served model that gives logits or labels only says so here; attacks that
    /// ask for more are refused, and [`pull_back`](Self::pull_back) is not called.
    fn access(&self) -> Access {
        Access::Gradients
    }

    /// For a search that starts at the images `x` and changes a few pixels of each at a time:
    /// something that gives the logits of [`logits`](Self::logits), up to rounding, for less; an
    /// image's depend on its own moves alone. `None` where there is no cheaper way.
    ///
    /// # Errors
    /// A device that fails.
    fn incremental(&self, x: &[f32]) -> Result<Option<Box<dyn Incremental + '_>>> {
        let _ = x;
        Ok(None)
    }

    /// Something to hold while many passes over batches that shrink follow, such as a claim on
    /// memory that is used again. `None` where there is nothing.
    fn session(&self) -> Option<Box<dyn Any>> {
        None
    }
}

/// Images that move a few pixels at a time, see [`Classifier::incremental`].
pub trait Incremental {
    /// Moves the images `rows` (ascending) to their rows of `points`, which has one for every
    /// image; logits there, a row for each of `rows`.
    ///
    /// # Errors
    /// A device that fails.
    fn step(&mut self, points: &[f32], rows: &[usize]) -> Result<Vec<f32>>;

    /// Moves `rows`, some of those of the last step, back to where they were before it.
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

/// Whether the logits of an image name `label`; logits that are not numbers name nothing.
pub fn stands(logits: &[f32], label: usize) -> bool {
    predicted(logits) == label && logits.iter().all(|v| !v.is_nan())
}
