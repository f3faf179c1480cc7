//! GELU, `x Phi(x)`.

use burn::tensor::DType;
use sora_kernels::activation;

use super::{
    buffers::Output,
    extension::*,
    flex::{floats, isa, ok},
};
use crate::profile::{self, Stage};

/// The kernels of GELU, forward and backward.
pub trait GeluKernels: Backend {
    /// `x Phi(x)`, element by element.
    fn gelu_forward(x: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Its gradient at `x`.
    fn gelu_grad(x: &FloatTensor<Self>, dy: &FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GeluKernels for Flex {
    fn gelu_forward(x: &FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let mut y = Output::of(x.layout().shape().clone(), DType::F32);
        ok(profile::time(Stage::Pointwise, || activation::gelu(isa(), floats(&x), y.as_mut())));
        y.finish()
    }

    fn gelu_grad(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let mut dx = Output::of(x.layout().shape().clone(), DType::F32);
        ok(profile::time(Stage::Pointwise, || {
            activation::gelu_grad(isa(), floats(&x), floats(&dy), dx.as_mut())
        }));
        dx.finish()
    }
}

/// GELU, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait GeluOp: Backend {
    /// `x Phi(x)`, element by element.
    fn gelu_op(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GeluOp for Flex {
    fn gelu_op(x: FlexTensor) -> FlexTensor {
        Self::gelu_forward(&x)
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: GeluKernels> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::gelu_grad(&ops.state, &dy));
        }
    }
}

impl<B: GeluKernels, C: CheckpointStrategy> GeluOp for Autodiff<B, C> {
    fn gelu_op(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, of_x) = x.into_parts();
        let y = B::gelu_forward(&x);
        record!(B, C, GeluBackward, [of_x], y, x)
    }
}

pub(in crate::nn) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gelu_op(x.into_dispatch()))
}
