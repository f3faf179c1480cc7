//! A map times a factor of each sample and channel: the gate of squeeze-and-excitation.

use sora_kernels::gate;

use super::{
    buffers::Output,
    extension::*,
    flex::{by_type, dims, floats, isa, ok, output_like, values},
};
use crate::profile::{self, Stage};

/// The kernels of a gate, forward and backward.
pub trait GateKernels: Backend {
    /// Each pixel of `x` `[H, W, N, C]` times `factor` `[N, C]`. It is also the rule for the
    /// gradient of `x`, which the gradient of the result takes the place of.
    fn gate(x: &FloatTensor<Self>, factor: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of `factor`.
    fn gate_factor_grad(x: &FloatTensor<Self>, dy: &FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GateKernels for Flex {
    fn gate(x: &FlexTensor, factor: &FlexTensor) -> FlexTensor {
        let (x, factor) = (x.to_contiguous(), factor.to_contiguous());
        let mut y = output_like(dims::<4>(&x), &x);
        by_type!(x, E => ok(profile::time(Stage::Pointwise, || {
            gate::gate(isa(), values::<E>(&x), floats(&factor), y.elements())
        })));
        y.finish()
    }

    fn gate_factor_grad(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let [_, _, n, c] = dims(&x);
        let mut gradient = Output::new([n, c]);
        by_type!(x, E => ok(profile::time(Stage::Pointwise, || {
            gate::gate_factor_grad(isa(), values::<E>(&x), values(&dy), gradient.as_mut())
        })));
        gradient.finish()
    }
}

/// A gate, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait GateOp: Backend {
    /// `x` `[H, W, N, C]` times `factor` `[N, C]`.
    fn gate_op(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GateOp for Flex {
    fn gate_op(x: FlexTensor, factor: FlexTensor) -> FlexTensor {
        Self::gate(&x, &factor)
    }
}

#[derive(Debug)]
struct GateBackward;

/// Parents: x and the factor.
impl<B: GateKernels> Backward<B, 2> for GateBackward {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, factor] = ops.state;
        let [of_x, of_factor] = ops.parents;
        if let Some(node) = of_x {
            grads.register::<B>(node.id, B::gate(&dy, &factor));
        }
        if let Some(node) = of_factor {
            grads.register::<B>(node.id, B::gate_factor_grad(&x, &dy));
        }
    }
}

impl<B: GateKernels, C: CheckpointStrategy> GateOp for Autodiff<B, C> {
    fn gate_op(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, of_x), (factor, of_factor)) = (x.into_parts(), factor.into_parts());
        let y = B::gate(&x, &factor);
        record!(B, C, GateBackward, [of_x, of_factor], y, [x, factor])
    }
}

pub(in crate::nn) fn gate(x: Tensor<4>, factor: Tensor<2>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::gate_op(x.into_dispatch(), factor.into_dispatch()))
}
