//! A fully connected layer: a 1x1 convolution of one pixel.

use sora_kernels::{
    channels,
    conv::{Conv2d, ConvGeometry, Direction, Epilogue},
};

use super::{
    buffers::Output,
    extension::*,
    flex::{by_type, dims, floats, isa, ok, values},
    packed::packed,
};
use crate::{
    profile::{self, Stage},
    ranks::scope,
};

/// The kernels of a fully connected layer, forward and backward; `version` identifies the content
/// of the weight.
pub trait LinearKernels: Backend {
    /// `x w^T + bias`: `[N, in]` and `[out, in]` to `[N, out]`.
    fn linear_forward(
        x: &FloatTensor<Self>,
        w: &FloatTensor<Self>,
        bias: &FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self>;

    /// Computes the gradient by `x`.
    fn linear_input_grad(
        dy: &FloatTensor<Self>,
        w: &FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self>;

    /// Computes the gradient by `w`.
    fn linear_weight_grad(
        x: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
        w: &FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self>;

    /// Computes the gradient by the bias.
    fn linear_bias_grad(dy: &FloatTensor<Self>) -> FloatTensor<Self>;
}

fn kernel(w: &FlexTensor) -> Conv2d<f32> {
    let [out, inputs] = dims(w);
    ok(Conv2d::new(ConvGeometry::square(inputs, out, [1, 1], 1, 1), isa()))
}

/// Sums each channel, the last dimension, for the gradient of a bias.
pub(super) fn channel_sums(dy: &FlexTensor) -> FlexTensor {
    let dy = dy.to_contiguous();
    let channels = dy.layout().shape().as_slice().last().copied().unwrap_or(0);
    let mut sums = Output::new([channels]);
    by_type!(dy, E => ok(profile::time(Stage::Linear, || {
        channels::channel_sums(isa(), values::<E>(&dy), sums.as_mut())
    })));
    sums.finish()
}

impl LinearKernels for Flex {
    fn linear_forward(
        x: &FlexTensor,
        w: &FlexTensor,
        bias: &FlexTensor,
        version: u64,
    ) -> FlexTensor {
        let (x, w, bias) = (x.to_contiguous(), w.to_contiguous(), bias.to_contiguous());
        let ([n, _], [out, _]) = (dims(&x), dims::<2>(&w));
        let kernel = kernel(&w);
        let weights = ok(packed(&kernel, floats(&w), Direction::Forward, version));
        let mut y = Output::new([n, out]);
        let epilogue = Epilogue { bias: Some(floats(&bias)), ..Epilogue::default() };
        ok(profile::time(Stage::Linear, || {
            kernel.forward(n, floats(&x), &weights, y.as_mut(), epilogue)
        }));
        y.finish()
    }

    fn linear_input_grad(dy: &FlexTensor, w: &FlexTensor, version: u64) -> FlexTensor {
        let (dy, w) = (dy.to_contiguous(), w.to_contiguous());
        let ([n, _], [_, inputs]) = (dims(&dy), dims::<2>(&w));
        let kernel = kernel(&w);
        let weights = ok(packed(&kernel, floats(&w), Direction::InputGrad, version));
        let mut dx = Output::new([n, inputs]);
        ok(profile::time(Stage::Linear, || {
            kernel.input_grad(n, floats(&dy), &weights, dx.as_mut(), Epilogue::default())
        }));
        dx.finish()
    }

    fn linear_weight_grad(
        x: &FlexTensor,
        dy: &FlexTensor,
        w: &FlexTensor,
        version: u64,
    ) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let [n, _] = dims(&x);
        let mut dw = Output::new(dims::<2>(w));
        ok(profile::time(Stage::Linear, || {
            kernel(w).weight_grad(n, floats(&x), floats(&dy), dw.as_mut())
        }));
        scope::offer(version, dw.as_mut());
        dw.finish()
    }

    fn linear_bias_grad(dy: &FlexTensor) -> FlexTensor {
        channel_sums(dy)
    }
}

/// A fully connected layer, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait LinearOp: Backend {
    /// `x w^T + bias`: `[N, in]` and `[out, in]` to `[N, out]`; `version` identifies the content of
    /// `w`.
    fn linear_op(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self>;
}

impl LinearOp for Flex {
    fn linear_op(x: FlexTensor, w: FlexTensor, bias: FlexTensor, version: u64) -> FlexTensor {
        Self::linear_forward(&x, &w, &bias, version)
    }
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Clone, Debug)]
struct LinearState<T> {
    /// The input, kept only where the weight gradient is needed.
    x: Option<T>,
    w: T,
    version: u64,
}

/// Parents: x, w, bias.
impl<B: LinearKernels> Backward<B, 3> for LinearBackward {
    type State = LinearState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let LinearState { x, w, version } = ops.state;
        let [of_x, of_w, of_bias] = ops.parents;
        if let (Some(node), Some(x)) = (of_w, x) {
            grads.register::<B>(node.id, B::linear_weight_grad(&x, &dy, &w, version));
        }
        if let Some(node) = of_x {
            grads.register::<B>(node.id, B::linear_input_grad(&dy, &w, version));
        }
        if let Some(node) = of_bias {
            grads.register::<B>(node.id, B::linear_bias_grad(&dy));
        }
    }
}

impl<B: LinearKernels, C: CheckpointStrategy> LinearOp for Autodiff<B, C> {
    fn linear_op(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self> {
        let weight_grad = w.is_tracked();
        let ((x, of_x), (w, of_w), (bias, of_bias)) =
            (x.into_parts(), w.into_parts(), bias.into_parts());
        let y = B::linear_forward(&x, &w, &bias, version);
        let state = || LinearState { x: weight_grad.then_some(x), w, version };
        record!(B, C, LinearBackward, [of_x, of_w, of_bias], y, state())
    }
}

pub(in crate::nn) fn linear(
    x: Tensor<2>,
    w: Tensor<2>,
    bias: Tensor<1>,
    version: u64,
) -> Tensor<2> {
    let (x, w, bias) = (x.into_dispatch(), w.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::linear_op(x, w, bias, version))
}
