//! The operations of which networks are made.
//!
//! Each operation takes and returns Burn tensors and chooses between the CPU engine, where feature
//! maps are `[H, W, N, C]`, and Burn's own operations, where they are `[N, C, H, W]`. A network is
//! written once and does not know which one runs.

mod activation;
mod burn_layers;
mod conv_layers;
mod dropout;
mod engine;
mod jvp;
mod layers;
mod onnx_graph;
mod params;
mod products;
mod train_norm;
#[cfg(feature = "gpu")]
pub(crate) mod updates;

pub use activation::Activation;
pub use burn_layers::{
    BranchMiddle, Dense, LayerNorm, TokenBranch, attention, first, pool_tokens, prepend,
};
pub use conv_layers::{BatchNorm, Conv2d, Keep, NormBehind, NormInput};
pub use dropout::{BatchPart, Dropout, DropoutSource};
pub(crate) use engine::{
    Area, ImageMaps, ImageMove, IncrementalConv, NormValues, agreement, clamp_to_box,
    cross_entropy, moved, sgd_step, sign_step, sum_over_ranks,
};
pub use engine::{PoolCounts, Shrinking, pool_counts, shrinking};
pub use engine::{PoolInput, PoolOf};
pub use jvp::Jvp;
pub use layers::{
    Feature, Flat, Linear, enter, gelu, global_avg_pool, layer_norm, normalize, pool,
};
pub(crate) use onnx_graph::OnnxLayer;
pub(crate) use params::flat;
pub use params::{
    BufferId, HostTensor, Init, ParamId, Spec, SpecBuilder, TensorSet, Weights, to_vec,
};

pub use products::Products;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::names::named;

/// The statistics with which batch norm normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BnMode {
    /// The batch's statistics, which also update the running statistics.
    Train,
    /// The running statistics.
    Eval,
}

named!(BnMode, "batch-norm mode": Train = "train", Eval = "eval");

/// Statistics that one batch norm saw in a training-mode pass.
#[derive(Clone, Debug)]
pub struct BatchStats {
    pub(crate) mean: BufferId,
    pub(crate) variance: BufferId,
    pub(crate) batch_mean: Tensor<1>,
    /// Unbiased variance, as in PyTorch's running variance.
    pub(crate) batch_variance: Tensor<1>,
}

/// The implementation that computes a network's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The CPU engine (CPU device only).
    Engine,
    /// Burn's own operations (any device).
    Burn,
}

named!(Backend, "backend": Engine = "engine", Burn = "burn");

impl Backend {
    /// The backend that computes the layers on `device`, with autodiff or without, unless a model
    /// sets another. No other code asks whether a device is the CPU.
    pub fn of(device: &Device) -> Self {
        if device.clone().inner() == Device::flex() { Self::Engine } else { Self::Burn }
    }
}

/// How activations and their gradients are stored, and what convolutions and matrix products
/// multiply. Weights, statistics, logits, the loss and the gradient for the images are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout. A device whose tensor cores multiply f32 in tf32 makes each
    /// product of three, of about 18 bits together.
    #[default]
    F32,
    /// Stored in f32; convolutions and matrix products multiply in tf32 (11 significant bits). CUDA
    /// only.
    Tf32,
    /// bfloat16, rounded to nearest even where a layer's result is stored; sums are f32. Devices
    /// other than the CPU also multiply bf16.
    Bf16,
}

named!(Precision, "precision": F32 = "f32", Tf32 = "tf32", Bf16 = "bf16");

/// One forward pass: its mode, the running statistics that it reads, and the batch statistics that
/// it computes.
#[derive(Debug)]
pub struct Pass {
    /// The backend that computes the layers.
    pub backend: Backend,
    /// The statistics that batch norm uses.
    pub mode: BnMode,
    /// The storage type of feature maps.
    pub precision: Precision,
    /// How Burn's operations multiply.
    pub products: Products,
    /// Running statistics.
    pub buffers: Weights,
    /// Batch statistics, in the order of the layers (training mode only).
    pub stats: Vec<BatchStats>,
    /// Direction in normalised image space, `[N, C, H, W]`, along which the pass also computes the
    /// derivative of its output.
    pub tangent: Option<Tensor<4>>,
    /// Masks of the dropout layers in training mode; `None` drops nothing.
    pub dropout: Option<Dropout>,
}

impl Pass {
    /// A pass in `mode` on `backend` that reads `buffers`, in f32.
    pub fn new(backend: Backend, mode: BnMode, buffers: Weights) -> Self {
        Self {
            backend,
            mode,
            precision: Precision::F32,
            products: Products::Whole,
            buffers,
            stats: Vec::new(),
            tangent: None,
            dropout: None,
        }
    }
}
