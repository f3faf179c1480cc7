//! The threat model, see [`robustness`], and how training reads its radius. On tensors, see
//! [`perturbation`](crate::perturbation).

pub use robustness::{Epsilon, Norm, Threat};
use serde::{Deserialize, Serialize};

/// How the radius of l2 training counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpsilonConvention {
    /// The length of the perturbation of the pixels.
    #[default]
    Pixel,
    /// As the SORA reference trains: sqrt(channels) times that, because it bounds the normalised
    /// perturbation by the norm over the channels of epsilon / std.
    Reference,
}
