//! CPU kernels for training convolutional networks, on activations in `f32` or `bf16`.
//!
//! The kernels are plain functions over slices, parallel with rayon; the crate has no tensor type.
//! Activations are `[H][W][N][C]`: the batch lies next to the channels, so each pixel is a matrix
//! `[N x C]` and a convolution is a sum of plain matrix products, whatever the image size. Weights
//! have PyTorch's order and are packed once per update ([`conv::PackedWeights`]).
//!
//! Activations and their gradients are stored as an [`Element`], `f32` or [`bf16`]. Weights,
//! statistics, reductions and sums are `f32` in both, and a result is rounded once, to nearest
//! even, when it is stored. Where pairs of bf16 are multiplied, the packed weights and Winograd's
//! transformed values are bf16, too.
//!
//! On one instruction set ([`Isa`]), every result is bit-identical between runs and for every
//! number of threads (see `parallel`). The thread pool is rayon's current one. A [`Buffer`] is
//! aligned to cache lines and large pages; the kernels accept any slice but are fastest on such
//! buffers.

pub mod activation;
mod addend;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod batch_norm;
pub mod bench;
pub mod branch;
pub mod buffer;
pub mod channels;
mod compiled;
pub mod conv;
mod element;
mod error;
pub mod gate;
pub mod isa;
pub mod layer_norm;
pub mod layout;
pub mod linear;
pub mod loss;
mod math;
mod normalize;
#[cfg(target_arch = "x86_64")]
mod pair_tile;
mod parallel;
pub mod pool;
pub mod sgd;
mod simd;
mod tile;

pub use addend::Addend;
pub use buffer::Buffer;
#[doc(hidden)]
pub use compiled::compiled;
pub use element::{Element, ElementType, UnknownPrecision};
pub use error::ShapeError;
pub use half::bf16;
pub use isa::Isa;
