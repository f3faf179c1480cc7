//! Direct convolution: an output pixel is a sum over kernel taps of `[N x C_in] * [C_in x C_out]`.

mod forward;
mod pack;
mod partial;
mod weight_grad;

pub(super) use forward::{run, task_counts};
pub(super) use pack::{pack, packed_len};
pub(super) use weight_grad::weight_grad;
