//! The options of a network, apart from its width.

use serde::{Deserialize, Serialize};

use crate::{names::named, nn::Activation};

/// The first layers of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// A 3x3 convolution at full resolution.
    Cifar,
    /// A 7x7 convolution of stride 2 and a max pool: a quarter of the resolution.
    Imagenet,
}

named!(Stem, "stem": Cifar = "cifar", Imagenet = "imagenet");

/// The input of PreActResNet's projection shortcut. Names and shapes of the weights are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shortcut {
    /// The block's input: SORA's reference, Fast-AT, N-FGSM, GradAlign.
    Input,
    /// `relu(bn(input))`: ZeroGrad, ELLE, RobustBench's `PreActBlockV2`.
    Activated,
}

named!(Shortcut, "shortcut": Input = "input", Activated = "activated");

/// The options of a network, apart from its width. Each network takes some of them
/// ([`NetworkInfo::options`](super::NetworkInfo::options)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Activation function; `None` for the network's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Rate of dropout in training mode, at least 0 and below 1.
    #[serde(default)]
    pub dropout: f32,
    /// Stem; `None` for the CIFAR stem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// Side of a patch in pixels; `None` lets the size of the images decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// Projection shortcuts; `None` for activated, as in files that were written before this option
    /// existed. New runs store it ([`NetworkInfo::resolve`](super::NetworkInfo::resolve)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<Shortcut>,
}
