//! The end of a residual block: the sum of two maps and the ReLU behind it, if there is one, in one
//! pass over memory.

use sora_kernels::{activation, gate};

use super::{
    batch_norm::NormKernels,
    buffers::Output,
    extension::*,
    flex::{by_type, contiguous, dims, isa, ok, output_like, values},
    recompute::Recompute,
};
use crate::profile::{self, Stage};

/// How the summands of a residual block came about, and what follows.
#[derive(Clone, Debug)]
pub struct ResidualPlan {
    /// Whether ReLU follows.
    pub relu: bool,
    /// The state that the second summand, the shortcut, shares with the convolutions that read it.
    pub shortcut: Option<Recompute>,
}

/// The kernels of a residual block's end, forward and backward.
pub trait ResidualKernels: NormKernels {
    /// `x + add`, or `max(x + add, 0)` with `relu`, element by element.
    fn residual(x: &FloatTensor<Self>, add: &FloatTensor<Self>, relu: bool) -> FloatTensor<Self>;

    /// `dy` where the result `y` is positive, zero elsewhere; the memory of `dy` is reused if
    /// possible.
    fn relu_grad(y: &FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl ResidualKernels for Flex {
    fn residual(x: &FlexTensor, add: &FlexTensor, relu: bool) -> FlexTensor {
        let (x, add) = (x.to_contiguous(), add.to_contiguous());
        let mut y = output_like(dims::<4>(&x), &x);
        by_type!(x, E => ok(profile::time(Stage::Pointwise, || {
            let (x, add) = (values::<E>(&x), values(&add));
            match relu {
                true => activation::add_relu(isa(), x, add, y.elements()),
                false => gate::add(isa(), x, add, y.elements()),
            }
        })));
        y.finish()
    }

    fn relu_grad(y: &FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (y, dy) = (y.to_contiguous(), contiguous(dy));
        by_type!(y, E => profile::time(Stage::Pointwise, || match Output::reuse(dy) {
            Ok(mut gradient) => {
                ok(activation::relu_grad_in_place(isa(), values::<E>(&y), gradient.elements()));
                gradient.finish()
            }
            Err(dy) => {
                let mut gradient = output_like(dims::<4>(&y), &y);
                let dy = values::<E>(&dy);
                ok(activation::relu_grad(isa(), values(&y), dy, gradient.elements()));
                gradient.finish()
            }
        }))
    }
}

/// The end of a residual block, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait ResidualOp: Backend {
    /// The sum of two maps and the ReLU of the plan.
    fn residual_op(
        x: FloatTensor<Self>,
        add: FloatTensor<Self>,
        plan: ResidualPlan,
    ) -> FloatTensor<Self>;
}

impl ResidualOp for Flex {
    fn residual_op(x: FlexTensor, add: FlexTensor, plan: ResidualPlan) -> FlexTensor {
        Self::residual(&x, &add, plan.relu)
    }
}

#[derive(Debug)]
struct ResidualBackward;

/// Parents: x and the shortcut.
impl<B: ResidualKernels> Backward<B, 2> for ResidualBackward {
    /// The result where ReLU follows, and the shortcut's readers.
    type State = (Option<FloatTensor<B>>, Option<Recompute>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (y, readers) = ops.state;
        let gradient = match y {
            Some(y) => B::relu_grad(&y, dy),
            None => dy,
        };
        let [of_x, of_shortcut] = ops.parents;
        if let Some(node) = of_shortcut {
            // A convolution that reads the shortcut adds this gradient when it stores its own.
            let left = match readers {
                Some(readers) => readers.deposit::<B>(gradient.clone()),
                None => Some(gradient.clone()),
            };
            if let Some(gradient) = left {
                grads.register::<B>(node.id, gradient);
            }
        }
        if let Some(node) = of_x {
            grads.register::<B>(node.id, gradient);
        }
    }
}

impl<B: ResidualKernels, C: CheckpointStrategy> ResidualOp for Autodiff<B, C> {
    fn residual_op(
        x: FloatTensor<Self>,
        add: FloatTensor<Self>,
        plan: ResidualPlan,
    ) -> FloatTensor<Self> {
        let ((x, of_x), (add, of_add)) = (x.into_parts(), add.into_parts());
        let y = B::residual(&x, &add, plan.relu);
        record!(B, C, ResidualBackward, [of_x, of_add], y, {
            (plan.relu.then(|| y.clone()), plan.shortcut)
        })
    }
}

pub(in crate::nn) fn residual(x: Tensor<4>, add: Tensor<4>, plan: ResidualPlan) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::residual_op(x.into_dispatch(), add.into_dispatch(), plan))
}
