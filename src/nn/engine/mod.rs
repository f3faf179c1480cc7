//! The CPU engine: the kernels crate as operations of Burn's CPU backend, with hand-written backward passes.
//!
//! Feature maps inside it are `[H, W, N, C]`: with the batch next to the channels every pixel is a plain matrix. A convolution also yields
//! the moments of its output, which the batch norm behind it needs, so that they cost no pass over memory of their own.

mod autodiff;
mod flex;
mod packed;
mod pool;

use burn::{
    backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
    tensor::Tensor,
};

pub(crate) use flex::sgd_step;
pub(super) use packed::{forget, replaced};

/// The shape of a convolution, and what its weights are known by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvPlan {
    /// Same in both directions.
    pub stride: usize,
    /// Same on all sides.
    pub padding: usize,
    /// Names the content of the weights: packed forms are kept under it.
    pub version: u64,
    /// Whether the mean and variance of the output are wanted.
    pub moments: bool,
}

/// How a batch norm takes part in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPlan {
    /// The statistics are those of `x`: gradients flow through them.
    pub batch: bool,
    /// `x` is also the identity shortcut around this layer, added by a later convolution. Its gradient so far is then there when this layer's
    /// backward runs, and is added in the same pass over memory.
    pub shortcut: bool,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// Operations of the CPU engine. All tensors are contiguous f32.
#[backend_extension(Autodiff, Flex)]
pub trait Engine: Backend {
    /// `[N, C, H, W]` to `[H, W, N, C]`.
    fn engine_enter(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Convolution of `x` `[H, W, N, in]` with `w` `[out, in, k, k]`; also mean and biased variance `[out]` of the result (empty unless wanted).
    fn engine_conv(x: FloatTensor<Self>, w: FloatTensor<Self>, plan: ConvPlan)
    -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// As [`engine_conv`](Self::engine_conv), plus `add`, of the output's shape.
    fn engine_conv_add(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        add: FloatTensor<Self>,
        plan: ConvPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Mean and biased variance `[C]` of `x` `[H, W, N, C]`; no gradient flows through them.
    fn engine_moments(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last dimension, then ReLU if the plan says so.
    fn engine_bn_relu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        plan: NormPlan,
    ) -> FloatTensor<Self>;

    /// Mean over all pixels: `[H, W, N, C]` to `[N, C]`.
    fn engine_global_pool(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Output of a convolution: the map and, where they were wanted, the mean and biased variance of each channel.
#[derive(Clone, Debug)]
pub struct Convolved {
    /// The map.
    pub map: Tensor<4>,
    /// Mean and biased variance.
    pub moments: Option<[Tensor<1>; 2]>,
}

pub(super) fn enter(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_enter(x.into_dispatch()))
}

pub(super) fn conv(x: Tensor<4>, w: Tensor<4>, add: Option<Tensor<4>>, plan: ConvPlan) -> Convolved {
    let (x, w) = (x.into_dispatch(), w.into_dispatch());
    let (map, mean, variance) = match add {
        None => <Dispatch as Engine>::engine_conv(x, w, plan),
        Some(add) => <Dispatch as Engine>::engine_conv_add(x, w, add.into_dispatch(), plan),
    };
    let moments = plan.moments.then(|| [Tensor::from_dispatch(mean), Tensor::from_dispatch(variance)]);
    Convolved { map: Tensor::from_dispatch(map), moments }
}

pub(super) fn moments(x: Tensor<4>) -> [Tensor<1>; 2] {
    let (mean, variance) = <Dispatch as Engine>::engine_moments(x.into_dispatch());
    [Tensor::from_dispatch(mean), Tensor::from_dispatch(variance)]
}

pub(super) fn bn_relu(x: Tensor<4>, [gamma, beta, mean, variance]: [Tensor<1>; 4], plan: NormPlan) -> Tensor<4> {
    let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Engine>::engine_bn_relu(x.into_dispatch(), gamma, beta, mean, variance, plan))
}

pub(super) fn global_pool(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_global_pool(x.into_dispatch()))
}
