//! Direct convolution of bf16 with the processor's products of bf16 pairs, summed in `f32`: AMX
//! tiles, or `vdpbf16ps` on a register tile.

mod forward;
mod operands;
mod pack;
mod plan;
mod weight_grad;

pub(super) use forward::{run, task_counts};
pub(super) use pack::{pack, packed_len};
pub(super) use weight_grad::{pays_for_weights, weight_grad};
