//! Compiles the generic functions of this crate for both storage types.
//!
//! A generic function is compiled once more in each crate that calls it, unless it is marked
//! `#[inline(never)]` and this crate has compiled it for the same types; then callers share it. The
//! loops of the kernels are so marked, for each instruction set ([`crate::simd`]), and the
//! functions below, too. They are most of what the crates above would have to compile, and here
//! they are one part with what they call.

use half::bf16;

use crate::activation::{add_relu, gelu, gelu_grad, relu, relu_grad, relu_grad_in_place};
use crate::batch_norm::BatchNorm;
use crate::branch::Branch;
use crate::channels::{channel_moments, channel_sums};
use crate::element::Element;
use crate::gate::{add, add_average_grad, gate, gate_factor_grad};
use crate::layer_norm::LayerNorm;
use crate::layout::{hwnc_to_nchw, nchw_to_hwnc};
use crate::pool::{PoolWindow, global_average, global_average_grad};

/// The addresses of the functions: what this function, which is visible outside, refers to is
/// compiled.
#[doc(hidden)]
#[must_use]
pub fn compiled() -> [[*const (); 30]; 2] {
    [functions::<f32>(), functions::<bf16>()]
}

fn functions<E: Element>() -> [*const (); 30] {
    [
        add_relu::<E> as *const (),
        gelu::<E> as *const (),
        gelu_grad::<E> as *const (),
        relu::<E> as *const (),
        relu_grad::<E> as *const (),
        relu_grad_in_place::<E> as *const (),
        BatchNorm::forward::<E> as *const (),
        BatchNorm::parameter_grads::<E> as *const (),
        BatchNorm::input_grad::<E> as *const (),
        BatchNorm::input_grad_in_place::<E> as *const (),
        BatchNorm::tangent::<E> as *const (),
        BatchNorm::tangent_grads::<E> as *const (),
        Branch::<E>::forward as *const (),
        Branch::<E>::backward as *const (),
        channel_moments::<E> as *const (),
        channel_sums::<E> as *const (),
        add::<E> as *const (),
        add_average_grad::<E> as *const (),
        gate::<E> as *const (),
        gate_factor_grad::<E> as *const (),
        LayerNorm::forward::<E> as *const (),
        LayerNorm::backward::<E> as *const (),
        hwnc_to_nchw::<E, f32> as *const (),
        nchw_to_hwnc::<f32, E> as *const (),
        PoolWindow::average::<E> as *const (),
        PoolWindow::average_grad::<E> as *const (),
        PoolWindow::max::<E> as *const (),
        PoolWindow::max_grad::<E> as *const (),
        global_average::<E, f32> as *const (),
        global_average_grad::<f32, E> as *const (),
    ]
}
