//! Two-dimensional convolution: forward, input gradient and weight gradient.
//!
//! Two algorithms share one register tile (`tile.rs`). *Direct*: with the batch next to the
//! channels, an output pixel is a sum over kernel taps of plain products `[N x C_in] * [C_in x
//! C_out]`; a tap outside the image is skipped. *Winograd* F(4x4, 3x3), for 3x3 kernels of stride
//! 1, needs four times fewer multiplications. Both compute in `f32`, whatever the storage type of
//! the activations. For bf16 activations a second form of each uses the processor's own products of
//! bf16 pairs, which are summed in `f32`: `direct_bf16`, and Winograd F(2x2, 3x3), whose points
//! bear to be rounded.

mod algorithm;
mod conv2d;
mod direct;
#[cfg(target_arch = "x86_64")]
mod direct_bf16;
mod epilogue;
mod geometry;
mod moments;
mod packed;
mod partial;
mod pass;
mod reduce;
mod tasks;
mod winograd;

pub use crate::addend::Addend;
pub use algorithm::{Algorithms, ConvAlgorithm, UnknownAlgorithm};
pub use conv2d::Conv2d;
pub use epilogue::{Epilogue, Moments, Normed};
pub use geometry::{ConvGeometry, Direction};
pub use packed::PackedWeights;
pub(crate) use packed::Panels;
pub use partial::{Overlay, Partial, TILE_SIDE, TileIndex};
