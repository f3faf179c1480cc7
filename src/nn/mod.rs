//! The operations that networks are made of.
//!
//! Each takes and returns Burn tensors and chooses, by device, between the CPU kernels and Burn's own operations.
//! Feature maps are `[N, C, H, W]`.

mod layers;
mod params;

pub use layers::{BatchNorm, Conv2d, Linear, global_avg_pool, normalize};
pub use params::{BufferId, HostTensor, Init, ParamId, Spec, SpecBuilder, TensorSet, Weights, to_vec};
pub(crate) use params::flat;

use burn::tensor::Tensor;

/// Which statistics batch norm normalises with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BnMode {
    /// Those of the batch, which also update the running statistics.
    Train,
    /// The running statistics.
    Eval,
}

/// Statistics that one batch norm saw in a training-mode pass.
#[derive(Clone, Debug)]
pub struct BatchStats {
    pub(crate) mean: BufferId,
    pub(crate) variance: BufferId,
    pub(crate) batch_mean: Tensor<1>,
    /// Unbiased, as PyTorch's running variance has it.
    pub(crate) batch_variance: Tensor<1>,
}

/// One forward pass: its mode, the running statistics it reads and the batch statistics it leaves behind.
#[derive(Debug)]
pub struct Pass {
    /// Which statistics batch norm uses.
    pub mode: BnMode,
    /// Running statistics.
    pub buffers: Weights,
    /// Batch statistics, in the order of the layers (training mode only).
    pub stats: Vec<BatchStats>,
}

impl Pass {
    /// A pass in `mode` that reads `buffers`.
    pub fn new(mode: BnMode, buffers: Weights) -> Self {
        Self { mode, buffers, stats: Vec::new() }
    }
}
