//! The CPU engine: the kernels crate as operations of Burn's CPU backend, with hand-written
//! backward passes.
//!
//! Feature maps inside the engine are `[H, W, N, C]`: with the batch next to the channels, every
//! pixel is a plain matrix. A convolution also computes the moments of its output, which the batch
//! norm behind it needs, so that they take no pass over memory of their own.
//!
//! Each file holds one operation. It has a trait of kernels, forward and backward, which a backend
//! implements (`ConvKernels` for [`Flex`](burn_flex::Flex)); an operation whose backend Burn's
//! dispatch chooses (`ConvOp`); and its record on autodiff, over the kernels of any backend. A
//! parent that records no gradient appears in a backward pass as `None`. The attack pass does not
//! track the weights, so it computes no weight gradient and keeps nothing for one.
//!
//! The pool of buffers, the packed weights and the counters of the profile belong to the process,
//! not to an engine value, because the operations of a Burn backend are functions of types and
//! receive no handle. A handle in every plan would not be enough: each tensor would have to carry
//! one too, because dropping a tensor, on any thread, returns its memory. Two models on one machine
//! (a network and its running average, an evaluation between two epochs) also gain from sharing
//! buffers. One lock, taken a few hundred times a step, or an atomic protects each of the three.

mod attention;
mod batch_norm;
mod branch;
mod buffers;
mod conv;
mod cross_entropy;
pub(super) mod extension;
mod flex;
mod gate;
mod gelu;
mod incremental;
mod layer_norm;
mod layout;
mod linear;
mod norm_tangent;
mod onnx;
mod over_ranks;
mod packed;
mod pool;
mod pooling;
mod recompute;
mod residual;
mod step;

pub(super) use attention::attention;
pub(super) use batch_norm::{NormPlan, NormStatistics, batch_norm, moments};
pub(super) use branch::{BranchPlan, Middle, branch};
pub(super) use conv::{ConvPlan, MapAndMoments, Plus, conv, conv_norm};
pub(crate) use cross_entropy::cross_entropy;
pub(super) use gate::gate;
pub(super) use gelu::gelu;
pub(crate) use incremental::{Area, ImageMaps, ImageMove, IncrementalConv, NormValues};
pub(super) use layer_norm::layer_norm;
pub(super) use layout::{enter, normalize};
pub(super) use linear::linear;
pub(super) use norm_tangent::norm_tangent;
pub(super) use onnx::{OnnxPlan, onnx};
pub(super) use over_ranks::moments as moments_over_ranks;
pub(crate) use over_ranks::sum_over_ranks;
pub(super) use packed::{forget, replaced};
pub use pool::{PoolCounts, Shrinking, pool_counts, shrinking};
pub use pooling::{PoolInput, PoolOf};
pub(super) use pooling::{PoolPlan, global_pool, pool};
pub(super) use recompute::Recompute;
pub(super) use residual::{ResidualPlan, residual};
pub(crate) use step::{agreement, clamp_to_box, moved, sgd_step, sign_step};
