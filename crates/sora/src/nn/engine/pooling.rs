//! Pooling: maxima and means of windows, and the mean of a map.

use std::sync::Arc;

use burn::{backend::TensorMetadata, tensor::DType};
use sora_kernels::{
    gate::add_average_grad,
    pool::{PoolWindow, global_average, global_average_grad},
};

use super::{
    buffers::Output,
    extension::*,
    flex::{by_type, contiguous, dims, floats, isa, ok, output_like, values},
};
use crate::profile::{self, Stage};

/// The window of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Height and width of the window.
    pub kernel: usize,
    /// Stride in pixels, the same in both directions.
    pub stride: usize,
    /// Padding in pixels, the same on all sides; at most half the kernel.
    pub padding: usize,
    /// The value that is taken of each window.
    pub of: PoolOf,
}

/// The value that a pool takes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOf {
    /// The largest value.
    Max,
    /// The mean; padding counts as zeros.
    Mean,
}

/// The other readers of the map of which a mean is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolInput {
    /// No other reader, or readers that add their gradients to it on their own.
    Alone,
    /// A later gate, whose factor follows from the mean. Its gradient exists when the mean's
    /// backward pass runs, which adds to it in place.
    Gated,
}

impl PoolPlan {
    fn window(self, input: [usize; 2]) -> PoolWindow {
        PoolWindow {
            input,
            kernel: [self.kernel; 2],
            stride: [self.stride; 2],
            padding: [self.padding; 2],
        }
    }
}

/// The kernels of pools, forward and backward.
pub trait PoolKernels: Backend {
    /// Pools `x` `[H, W, N, C]` and returns, for maxima, the pixels that they came from.
    fn pool(x: &FloatTensor<Self>, plan: PoolPlan) -> (FloatTensor<Self>, Vec<u32>);

    /// Computes the gradient of [`pool`](Self::pool) by a map of shape `input`.
    fn pool_grad(
        dy: &FloatTensor<Self>,
        input: [usize; 4],
        indices: &[u32],
        plan: PoolPlan,
    ) -> FloatTensor<Self>;

    /// Mean over all pixels: `[H, W, N, C]` to `[N, C]` in f32.
    fn global_pool(x: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Computes the gradient of the mean over all pixels by a map of shape `input` stored as
    /// `dtype`.
    fn global_pool_grad(
        dy: &FloatTensor<Self>,
        input: [usize; 4],
        dtype: DType,
    ) -> FloatTensor<Self>;

    /// Adds that gradient to `so_far`, another gradient of the map, in place where that has no other
    /// owner.
    fn add_global_pool_grad(dy: &FloatTensor<Self>, so_far: FloatTensor<Self>)
    -> FloatTensor<Self>;
}

impl PoolKernels for Flex {
    fn pool(x: &FlexTensor, plan: PoolPlan) -> (FlexTensor, Vec<u32>) {
        let x = x.to_contiguous();
        let [h, w, n, c] = dims(&x);
        let window = plan.window([h, w]);
        let [oh, ow] = window.output();
        let mut y = output_like([oh, ow, n, c], &x);
        let mut indices = vec![0; if plan.of == PoolOf::Max { oh * ow * n * c } else { 0 }];
        by_type!(x, E => ok(profile::time(Stage::Pool, || match plan.of {
            PoolOf::Max => window.max(isa(), n * c, values::<E>(&x), y.elements(), &mut indices),
            PoolOf::Mean => window.average(n * c, values::<E>(&x), y.elements()),
        })));
        (y.finish(), indices)
    }

    fn pool_grad(
        dy: &FlexTensor,
        input: [usize; 4],
        indices: &[u32],
        plan: PoolPlan,
    ) -> FlexTensor {
        let dy = dy.to_contiguous();
        let [h, w, n, c] = input;
        let window = plan.window([h, w]);
        let mut dx = output_like(input, &dy);
        by_type!(dy, E => ok(profile::time(Stage::Pool, || match plan.of {
            PoolOf::Max => window.max_grad(isa(), n * c, values::<E>(&dy), indices, dx.elements()),
            PoolOf::Mean => window.average_grad(n * c, values::<E>(&dy), dx.elements()),
        })));
        dx.finish()
    }

    fn global_pool(x: &FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let [h, w, n, c] = dims(&x);
        let mut y = Output::new([n, c]);
        by_type!(x, E => ok(profile::time(Stage::Pool, || {
            global_average(h * w, values::<E>(&x), y.as_mut())
        })));
        y.finish()
    }

    fn global_pool_grad(dy: &FlexTensor, input: [usize; 4], dtype: DType) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = Output::of(input.into(), dtype);
        by_type!(dx, E => ok(profile::time(Stage::Pool, || {
            global_average_grad(input[0] * input[1], floats(&dy), dx.elements::<E>())
        })));
        dx.finish()
    }

    fn add_global_pool_grad(dy: &FlexTensor, so_far: FlexTensor) -> FlexTensor {
        let (dy, so_far) = (dy.to_contiguous(), contiguous(so_far));
        let shape = dims::<4>(&so_far);
        by_type!(so_far, E => {
            let mut dx = Output::reuse(so_far).unwrap_or_else(|shared| {
                let mut copy = output_like(shape, &shared);
                copy.elements().copy_from_slice(values::<E>(&shared));
                copy
            });
            ok(profile::time(Stage::Pool, || {
                add_average_grad(isa(), shape[0] * shape[1], floats(&dy), dx.elements::<E>())
            }));
            dx.finish()
        })
    }
}

/// Pools, as operations whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait PoolOp: Backend {
    /// The pool of `x` `[H, W, N, C]`.
    fn pool_op(x: FloatTensor<Self>, plan: PoolPlan) -> FloatTensor<Self>;

    /// Mean over all pixels: `[H, W, N, C]` to `[N, C]`.
    fn global_pool_op(x: FloatTensor<Self>, input: PoolInput) -> FloatTensor<Self>;
}

impl PoolOp for Flex {
    fn pool_op(x: FlexTensor, plan: PoolPlan) -> FlexTensor {
        Self::pool(&x, plan).0
    }

    fn global_pool_op(x: FlexTensor, _: PoolInput) -> FlexTensor {
        Self::global_pool(&x)
    }
}

#[derive(Debug)]
struct PoolBackward;

#[derive(Clone, Debug)]
struct PoolState {
    input: [usize; 4],
    /// The pixels that the maxima came from; empty for means.
    indices: Arc<Vec<u32>>,
    plan: PoolPlan,
}

impl<B: PoolKernels> Backward<B, 1> for PoolBackward {
    type State = PoolState;

    fn backward(self, ops: Ops<PoolState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let PoolState { input, indices, plan } = ops.state;
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::pool_grad(&dy, input, &indices, plan));
        }
    }
}

#[derive(Debug)]
struct GlobalPoolBackward;

impl<B: PoolKernels> Backward<B, 1> for GlobalPoolBackward {
    /// Shape, type and other readers of the map.
    type State = ([usize; 4], DType, PoolInput);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            let (shape, dtype, input) = ops.state;
            let gradient = match input {
                PoolInput::Alone => B::global_pool_grad(&dy, shape, dtype),
                PoolInput::Gated => B::add_global_pool_grad(&dy, grads.consume::<B>(&x)),
            };
            grads.register::<B>(x.id, gradient);
        }
    }
}

impl<B: PoolKernels, C: CheckpointStrategy> PoolOp for Autodiff<B, C> {
    fn pool_op(x: FloatTensor<Self>, plan: PoolPlan) -> FloatTensor<Self> {
        let (x, of_x) = x.into_parts();
        let (y, indices) = B::pool(&x, plan);
        let state = || PoolState { input: x.shape().dims(), indices: Arc::new(indices), plan };
        record!(B, C, PoolBackward, [of_x], y, state())
    }

    fn global_pool_op(x: FloatTensor<Self>, input: PoolInput) -> FloatTensor<Self> {
        let (x, of_x) = x.into_parts();
        let y = B::global_pool(&x);
        record!(B, C, GlobalPoolBackward, [of_x], y, (x.shape().dims(), x.dtype(), input))
    }
}

pub(in crate::nn) fn global_pool(x: Tensor<4>, input: PoolInput) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::global_pool_op(x.into_dispatch(), input))
}

pub(in crate::nn) fn pool(x: Tensor<4>, plan: PoolPlan) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::pool_op(x.into_dispatch(), plan))
}
