//! Layer norm.

use sora_kernels::layer_norm::LayerNorm;

use super::{
    buffers::Output,
    extension::*,
    flex::{dims, floats, ok},
};
use crate::profile::{self, Stage};

/// The kernels of a layer norm over the last dimension of `x` `[rows, D]`, forward and backward.
pub trait LayerNormKernels: Backend {
    /// Layer norm with scale and shift.
    fn layer_norm_forward(
        x: &FloatTensor<Self>,
        gamma: &FloatTensor<Self>,
        beta: &FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// Computes the gradients by x, gamma and beta.
    fn layer_norm_grad(
        values: &[FloatTensor<Self>; 3],
        epsilon: f32,
        dy: &FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

impl LayerNormKernels for Flex {
    fn layer_norm_forward(
        x: &FlexTensor,
        gamma: &FlexTensor,
        beta: &FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        let [x, gamma, beta] = [x, gamma, beta].map(FlexTensor::to_contiguous);
        let mut y = Output::new(dims::<2>(&x));
        let kernel = LayerNorm { gamma: floats(&gamma), beta: floats(&beta), epsilon };
        ok(profile::time(Stage::Pointwise, || kernel.forward(floats(&x), y.as_mut())));
        y.finish()
    }

    fn layer_norm_grad(values: &[FlexTensor; 3], epsilon: f32, dy: &FlexTensor) -> [FlexTensor; 3] {
        let [x, gamma, beta] = values.each_ref().map(|tensor| tensor.to_contiguous());
        let dy = dy.to_contiguous();
        let (mut dx, mut dgamma, mut dbeta) = (
            Output::new(dims::<2>(&x)),
            Output::new(dims::<1>(&gamma)),
            Output::new(dims::<1>(&beta)),
        );
        let kernel = LayerNorm { gamma: floats(&gamma), beta: floats(&beta), epsilon };
        ok(profile::time(Stage::Pointwise, || {
            let gradients = (dx.as_mut(), dgamma.as_mut(), dbeta.as_mut());
            kernel.backward(floats(&x), floats(&dy), gradients.0, gradients.1, gradients.2)
        }));
        [dx.finish(), dgamma.finish(), dbeta.finish()]
    }
}

/// Layer norm, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait LayerNormOp: Backend {
    /// Layer norm over the last dimension of `x` `[rows, D]`.
    fn layer_norm_op(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

impl LayerNormOp for Flex {
    fn layer_norm_op(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        Self::layer_norm_forward(&x, &gamma, &beta, epsilon)
    }
}

#[derive(Debug)]
struct LayerNormBackward;

/// Parents: x, gamma, beta.
impl<B: LayerNormKernels> Backward<B, 3> for LayerNormBackward {
    /// x, gamma and beta, and epsilon.
    type State = ([FloatTensor<B>; 3], f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (values, epsilon) = ops.state;
        let gradients = B::layer_norm_grad(&values, epsilon, &dy);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LayerNormKernels, C: CheckpointStrategy> LayerNormOp for Autodiff<B, C> {
    fn layer_norm_op(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let ((x, of_x), (gamma, of_gamma), (beta, of_beta)) =
            (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let y = B::layer_norm_forward(&x, &gamma, &beta, epsilon);
        let nodes = [of_x, of_gamma, of_beta];
        record!(B, C, LayerNormBackward, nodes, y, ([x, gamma, beta], epsilon))
    }
}

pub(in crate::nn) fn layer_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f32,
) -> Tensor<2> {
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    Tensor::from_dispatch(Dispatch::layer_norm_op(x, gamma, beta, epsilon))
}
