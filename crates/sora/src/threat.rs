//! The threat model, see [`robustness`], and the conventions of its radius in training. See
//! [`perturbation`](crate::perturbation) for the operations on tensors.

pub use robustness::{Epsilon, Norm, Threat};
use serde::{Deserialize, Serialize};

/// The convention of the radius in l2 training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpsilonConvention {
    /// The radius bounds the length of the perturbation of the pixels.
    #[default]
    Pixel,
    /// The radius is multiplied by sqrt(channels), as in the SORA reference, which bounds the
    /// normalised perturbation by the norm over the channels of epsilon / std.
    Reference,
}
