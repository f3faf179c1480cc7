//! Batch norm in training mode with the ReLU behind it, as one operation of Burn's backends: on GPUs a
//! few kernels of our own, elsewhere Burn's operations.

use burn::{
    backend::ops::{ActivationOps, FloatTensorOps, ModuleOps},
    tensor::FloatDType,
};

use super::engine::extension::*;

/// What it is besides its tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrainNormPlan {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// The operation: the result for `x` `[N, C, H, W]` in the type of `x`, with the mean and the biased
/// variance `[C]` of each channel; gamma and beta are `[C]`.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(super) trait TrainNormOp: Backend {
    #[fusion(meta = |x, gamma, _beta, _plan| (x.clone(), gamma.clone(), gamma.clone()))]
    fn train_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: TrainNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Its gradients by `x`, gamma and beta, from the gradient by the result.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(super) trait TrainNormKernels: Backend {
    #[fusion(meta = |x, _dy, gamma, _beta, _mean, _variance, _plan| {
        (x.clone(), gamma.clone(), gamma.clone())
    })]
    fn train_norm_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        plan: TrainNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl TrainNormOp for Flex {
    fn train_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: TrainNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let stored = FloatDType::from(x.dtype());
        let x = Self::float_cast(x, FloatDType::F32);
        let out = Self::batch_norm_train(x, gamma, beta, plan.epsilon.into());
        let y = if plan.relu { Self::relu(out.output) } else { out.output };
        (Self::float_cast(y, stored), out.mean, out.variance)
    }
}

impl TrainNormKernels for Flex {
    fn train_norm_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        plan: TrainNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (stored, epsilon) = (FloatDType::from(x.dtype()), f64::from(plan.epsilon));
        let [x, mut dy] = [x, dy].map(|t| Self::float_cast(t, FloatDType::F32));
        if plan.relu {
            let (gamma, mean, variance) = (gamma.clone(), mean.clone(), variance.clone());
            let y = Self::batch_norm(x.clone(), gamma, beta, mean, variance, epsilon);
            dy = Self::relu_backward(Self::relu(y), dy);
        }
        let out = Self::batch_norm_train_backward(x, gamma, mean, variance, epsilon, dy);
        (Self::float_cast(out.x_grad, stored), out.gamma_grad, out.beta_grad)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use sora_devices::{CubeBackend, norm};

    use super::*;

    impl From<TrainNormPlan> for norm::Plan {
        fn from(TrainNormPlan { epsilon, relu }: TrainNormPlan) -> Self {
            Self { epsilon, relu }
        }
    }

    impl TrainNormOp for CubeBackend {
        fn train_norm(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            plan: TrainNormPlan,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            norm::forward(x, [gamma, beta], plan.into())
        }
    }

    impl TrainNormKernels for CubeBackend {
        fn train_norm_gradient(
            x: FloatTensor<Self>,
            dy: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            variance: FloatTensor<Self>,
            plan: TrainNormPlan,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            norm::backward(x, dy, [gamma, beta], [mean, variance], plan.into())
        }
    }
}

#[derive(Debug)]
struct TrainNormBackward;

/// What the backward pass needs: x, gamma, beta, mean and variance.
type State<B> = ([FloatTensor<B>; 5], TrainNormPlan);

/// Parents: x, gamma and beta.
impl<B: TrainNormKernels> Backward<B, 3> for TrainNormBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, gamma, beta, mean, variance], plan) = ops.state;
        let (dx, dgamma, dbeta) = B::train_norm_gradient(x, dy, gamma, beta, mean, variance, plan);
        for (node, grad) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: TrainNormOp + TrainNormKernels, C: CheckpointStrategy> TrainNormOp for Autodiff<B, C> {
    fn train_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        plan: TrainNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [(x, of_x), (gamma, of_gamma), (beta, of_beta)] =
            [x, gamma, beta].map(|t| t.into_parts());
        let (y, mean, variance) = B::train_norm(x.clone(), gamma.clone(), beta.clone(), plan);
        let kept = [x, gamma, beta, mean.clone(), variance.clone()];
        let y = record!(B, C, TrainNormBackward, [of_x, of_gamma, of_beta], y, (kept, plan));
        (y, FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(variance))
    }
}

/// Batch norm of `x` `[N, C, H, W]` with its own statistics, and ReLU if the plan has it: the result in
/// the type of `x`, and the mean and the biased variance `[C]`, without autodiff.
pub(super) fn train_norm(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    plan: TrainNormPlan,
) -> (Tensor<4>, [Tensor<1>; 2]) {
    let [gamma, beta] = [gamma, beta].map(Tensor::into_dispatch);
    let (y, mean, variance) = Dispatch::train_norm(x.into_dispatch(), gamma, beta, plan);
    (Tensor::from_dispatch(y), [mean, variance].map(Tensor::from_dispatch))
}
