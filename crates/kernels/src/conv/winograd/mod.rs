//! Winograd F(4x4, 3x3) and F(2x2, 3x3) for 3x3 kernels with stride 1 and padding 1.
//!
//! An image is cut into output tiles of 4x4 pixels, each computed from an input tile of 6x6 pixels.
//! With the batch next to the channels a *row* is one tile of one sample, and for each of the 36
//! points the rows form a plain matrix product. F(2x2, 3x3) has 16 points, so tolerant of rounding
//! that they may be bf16. Source: A. Lavin and S. Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016.

mod forward;
mod grid;
mod input_transform;
mod pack;
mod transform;
mod weight_grad;
mod weight_kernels;

#[cfg(target_arch = "x86_64")]
pub(super) use forward::pairs;
pub(super) use forward::{run, task_counts};
pub(super) use pack::{pack, packed_len};
pub(super) use weight_grad::weight_grad;
