//! The derivative of batch norm along the pass's tangent, with the batch's statistics.

use super::{
    batch_norm::{Norm, NormValues},
    buffers::Output,
    extension::*,
    flex::{by_type, contiguous, dims, isa, ok, output_like, values},
};
use crate::profile::{self, Stage};

/// The kernels of the derivative, forward and backward. `x` and its tangent are `[H, W, N, C]`.
pub trait NormTangentKernels: Backend {
    /// Computes the derivative of batch norm, and of the ReLU if there is one.
    fn tangent_forward(
        norm: &Norm<Self>,
        x: &FloatTensor<Self>,
        tangent: &FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Computes the gradients by x, the tangent and gamma.
    fn tangent_grads(
        norm: &Norm<Self>,
        x: &FloatTensor<Self>,
        tangent: &FloatTensor<Self>,
        dslope: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

impl NormTangentKernels for Flex {
    fn tangent_forward(norm: &Norm<Self>, x: &FlexTensor, tangent: &FlexTensor) -> FlexTensor {
        let (norm, x, tangent) = (norm.contiguous(), x.to_contiguous(), tangent.to_contiguous());
        let mut slope = output_like(dims::<4>(&x), &x);
        by_type!(x, E => ok(profile::time(Stage::NormForward, || {
            norm.kernel().tangent(isa(), values::<E>(&x), values(&tangent), slope.elements())
        })));
        slope.finish()
    }

    fn tangent_grads(
        norm: &Norm<Self>,
        x: &FlexTensor,
        tangent: &FlexTensor,
        dslope: FlexTensor,
    ) -> [FlexTensor; 3] {
        let (norm, x, tangent) = (norm.contiguous(), x.to_contiguous(), tangent.to_contiguous());
        let dslope = contiguous(dslope);
        let [mut dx, mut dtangent] = [(), ()].map(|()| output_like(dims::<4>(&x), &x));
        let [_, _, _, channels] = dims(&x);
        let mut dgamma = Output::new([channels]);
        by_type!(x, E => ok(profile::time(Stage::NormBackward, || {
            let of = [values::<E>(&x), values(&tangent), values(&dslope)];
            let into = [dx.elements(), dtangent.elements()];
            norm.kernel().tangent_grads(isa(), of, into, dgamma.as_mut())
        })));
        [dx.finish(), dtangent.finish(), dgamma.finish()]
    }
}

/// The derivative, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait NormTangentOp: Backend {
    /// The derivative of batch norm along `tangent`; `values` has the statistics of `x`.
    fn norm_tangent_op(
        x: FloatTensor<Self>,
        tangent: FloatTensor<Self>,
        #[extension_type] values: NormValues<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;
}

impl NormTangentOp for Flex {
    fn norm_tangent_op(
        x: FlexTensor,
        tangent: FlexTensor,
        values: NormValues<Self>,
        relu: bool,
    ) -> FlexTensor {
        Self::tangent_forward(&Norm::new(values, relu), &x, &tangent)
    }
}

#[derive(Debug)]
struct NormTangentBackward;

/// Parents: x, the tangent and gamma. Beta decides the mask only.
impl<B: NormTangentKernels> Backward<B, 3> for NormTangentBackward {
    /// The norm, x and the tangent.
    type State = (Norm<B>, [FloatTensor<B>; 2]);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dslope = grads.consume::<B>(&ops.node);
        let (norm, [x, tangent]) = ops.state;
        let gradients = B::tangent_grads(&norm, &x, &tangent, dslope);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: NormTangentKernels, C: CheckpointStrategy> NormTangentOp for Autodiff<B, C> {
    fn norm_tangent_op(
        x: FloatTensor<Self>,
        tangent: FloatTensor<Self>,
        values: NormValues<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        let (values, [of_gamma, _]) = values.split();
        let ((x, of_x), (tangent, of_tangent)) = (x.into_parts(), tangent.into_parts());
        let norm = Norm::new(values, relu);
        let slope = B::tangent_forward(&norm, &x, &tangent);
        let nodes = [of_x, of_tangent, of_gamma];
        record!(B, C, NormTangentBackward, nodes, slope, (norm, [x, tangent]))
    }
}

/// The derivative of batch norm at `x` along `tangent`, both `[H, W, N, C]`; `values` are gamma,
/// beta, and the mean and biased variance of `x`.
pub(in crate::nn) fn norm_tangent(
    x: Tensor<4>,
    tangent: Tensor<4>,
    values: [Tensor<1>; 4],
    relu: bool,
) -> Tensor<4> {
    let [gamma, beta, mean, variance] = values.map(Tensor::into_dispatch);
    let values = NormValues { gamma, beta, mean, variance };
    let (x, tangent) = (x.into_dispatch(), tangent.into_dispatch());
    Tensor::from_dispatch(Dispatch::norm_tangent_op(x, tangent, values, relu))
}
