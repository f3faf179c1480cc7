//! Direct convolution of bf16 with the processor's products of bf16 pairs, summed in `f32`: AMX
//! tiles, or `vdpbf16ps` on a register tile.

mod blocks;
mod forward;
mod operands;
mod pack;
mod plan;
mod strips;
mod weight_grad;

use super::epilogue::Output;
use super::geometry::{ConvGeometry, Direction};
use super::pass::Pass;
use crate::element::Element;
use crate::isa::Isa;

pub(super) use blocks::apply as blocks_apply;
pub(super) use strips::apply as strips_apply;
pub(super) use weight_grad::{pays_for_weights, weight_grad};

/// Number of outputs per channel of each task.
pub(super) fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    if blocks::apply(pass.geometry, pass.direction, pass.isa) {
        blocks::task_counts(pass.geometry, pass.n)
    } else {
        forward::task_counts(pass)
    }
}

/// Computes `pass`, whose activations are bf16.
pub(super) fn run<E: Element>(pass: &Pass<'_, E>, out: Output<'_, E>) {
    if blocks::apply(pass.geometry, pass.direction, pass.isa) {
        blocks::run(pass, out);
    } else {
        forward::run(pass, out);
    }
}

/// Number of pairs of the packed weights; a pair takes the space of an `f32`.
pub(super) fn packed_len(geometry: &ConvGeometry, direction: Direction, isa: Isa) -> usize {
    if blocks::apply(geometry, direction, isa) {
        blocks::packed_len(geometry)
    } else {
        pack::packed_len(geometry, direction, isa)
    }
}

/// Packs `weights`, which have PyTorch's order.
pub(super) fn pack(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    weights: &[f32],
    packed: &mut [f32],
) {
    if blocks::apply(geometry, direction, isa) {
        blocks::pack(geometry, weights, packed);
    } else {
        pack::pack(geometry, direction, isa, weights, packed);
    }
}
