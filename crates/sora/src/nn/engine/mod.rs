//! The CPU engine: the kernels crate as operations of Burn's CPU backend, with hand-written
//! backward passes.
//!
//! Feature maps inside it are `[H, W, N, C]`: with the batch next to the channels every pixel is a
//! plain matrix. A convolution also yields the moments of its output, which the batch norm behind
//! it needs, so that they cost no pass over memory of their own.

mod autodiff;
mod flex;
mod incremental;

mod packed;
mod pixels;
mod pool;
mod recompute;

use std::sync::Arc;

use burn::{
    backend::{
        Backend, Dispatch, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Int, Tensor},
};
use sora_kernels::pool::Window;

use super::Precision;

pub(crate) use flex::sgd_step;
pub(crate) use incremental::{Area, ImageMaps, ImageMove, IncrementalConv, NormValues};
pub(super) use packed::{forget, replaced};
pub(crate) use pixels::{agreement, clamp_to_box, sign_step};
pub use pool::{PoolCounts, Shrinking, pool_counts, shrinking};
pub(super) use recompute::Recompute;

/// The shape of a convolution, and what its weights are known by.
#[derive(Clone, Debug)]
pub struct ConvPlan {
    /// Same in both directions.
    pub stride: usize,
    /// Same on all sides.
    pub padding: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Names the content of the weights: packed forms are kept under it.
    pub version: u64,
    /// Whether the mean and variance of the output are wanted.
    pub moments: bool,
    /// Where the input comes from, if that is a batch norm.
    pub recompute: Option<Arc<Recompute>>,
}

/// How a batch norm takes part in the backward pass.
#[derive(Clone, Debug)]
pub struct NormPlan {
    /// The statistics are those of `x`: gradients flow through them.
    pub batch: bool,
    /// `x` is also the identity shortcut around this layer, added by a later convolution. Its
    /// gradient so far is then there when this layer's backward runs, and is added in the same pass
    /// over memory.
    pub shortcut: bool,
    /// Whether ReLU follows.
    pub relu: bool,
    /// Shared with the convolutions that read the result.
    pub recompute: Arc<Recompute>,
}

/// A convolution and the batch norm behind it, in eval mode.
#[derive(Clone, Debug)]
pub struct ConvNormPlan {
    /// The convolution.
    pub conv: ConvPlan,
    /// The batch norm.
    pub norm: NormPlan,
    /// Whether something else reads the convolution's own result.
    pub keep: bool,
}

/// The window of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Height and width of the window.
    pub kernel: usize,
    /// Same in both directions.
    pub stride: usize,
    /// Same on all sides; at most half the kernel.
    pub padding: usize,
    /// The largest value of each window instead of the mean.
    pub max: bool,
}

impl PoolPlan {
    fn window(self, input: [usize; 2]) -> Window {
        Window {
            input,
            kernel: [self.kernel; 2],
            stride: [self.stride; 2],
            padding: [self.padding; 2],
        }
    }
}

/// Operations of the CPU engine. All tensors are contiguous; feature maps `[H, W, N, C]` and their
/// gradients are f32 or bf16, all others f32.
#[backend_extension(Autodiff, Flex)]
pub trait Engine: Backend {
    /// `(x - mean) scale` for each channel of `[N, C, H, W]`.
    fn engine_normalize(x: FloatTensor<Self>, mean: Vec<f32>, scale: Vec<f32>)
    -> FloatTensor<Self>;

    /// `[N, C, H, W]` in f32 to `[H, W, N, C]`, stored in bf16 (`half`) or f32. What follows keeps
    /// the type of the map it is given.
    fn engine_enter(x: FloatTensor<Self>, half: bool) -> FloatTensor<Self>;

    /// Convolution of `x` `[H, W, N, in]` with `w` `[out, in, k, k]`; also mean and biased variance
    /// `[out]` of the result (empty unless wanted).
    fn engine_conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        plan: ConvPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// As [`engine_conv`](Self::engine_conv), plus `add`, of the output's shape.
    fn engine_conv_add(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        add: FloatTensor<Self>,
        plan: ConvPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// As [`engine_conv`](Self::engine_conv), plus `bias` `[out]` at every pixel.
    fn engine_conv_bias(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        plan: ConvPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Mean and biased variance `[C]` of `x` `[H, W, N, C]`; no gradient flows through them.
    fn engine_moments(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last dimension, then ReLU if
    /// the plan says so.
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

    /// [`engine_conv`](Self::engine_conv) and [`engine_bn_relu`](Self::engine_bn_relu) of its
    /// result in one pass over memory: the results of both, the first empty where it is not kept.
    #[allow(clippy::too_many_arguments)]
    fn engine_conv_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        plan: ConvNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// As [`engine_conv_norm`](Self::engine_conv_norm), with `add`, of the output's shape, added
    /// before the batch norm.
    #[allow(clippy::too_many_arguments)]
    fn engine_conv_add_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        add: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        plan: ConvNormPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Mean (padding counts as zeros) or largest value of each window of `x` `[H, W, N, C]`.
    fn engine_pool(x: FloatTensor<Self>, plan: PoolPlan) -> FloatTensor<Self>;

    /// `x w^T + bias`: `[N, in]` and `[out, in]` to `[N, out]`; `version` names the content of `w`.
    fn engine_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        version: u64,
    ) -> FloatTensor<Self>;

    /// Layer norm over the last dimension of `x` `[rows, D]`.
    fn engine_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// `x Phi(x)`, element by element.
    fn engine_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Attention over `heads` heads of queries, keys and values side by side: `[N, T, 3 F]` to `[N,
    /// T, F]`.
    fn engine_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// Cross-entropy of each row of `logits` `[N, K]` against `(1 - smoothing) onehot(label) +
    /// smoothing / K`: `[N]`.
    fn engine_cross_entropy(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        smoothing: f32,
    ) -> FloatTensor<Self>;
}

/// Output of a convolution: the map and, where they were wanted, the mean and biased variance of
/// each channel.
#[derive(Clone, Debug)]
pub struct Convolved {
    /// The map.
    pub map: Tensor<4>,
    /// Mean and biased variance.
    pub moments: Option<[Tensor<1>; 2]>,
}

/// What a convolution adds to its result.
pub(super) enum Plus {
    Nothing,
    Map(Tensor<4>),
    Bias(Tensor<1>),
}

pub(super) fn normalize(x: Tensor<4>, mean: &[f32], std: &[f32]) -> Tensor<4> {
    let scale = std.iter().map(|s| s.recip()).collect();
    Tensor::from_dispatch(<Dispatch as Engine>::engine_normalize(
        x.into_dispatch(),
        mean.to_vec(),
        scale,
    ))
}

pub(super) fn enter(x: Tensor<4>, precision: Precision) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_enter(
        x.into_dispatch(),
        precision == Precision::Bf16,
    ))
}

pub(super) fn conv(x: Tensor<4>, w: Tensor<4>, plus: Plus, plan: ConvPlan) -> Convolved {
    let (x, w) = (x.into_dispatch(), w.into_dispatch());
    let wanted = plan.moments;
    let (map, mean, variance) = match plus {
        Plus::Nothing => <Dispatch as Engine>::engine_conv(x, w, plan),
        Plus::Map(add) => <Dispatch as Engine>::engine_conv_add(x, w, add.into_dispatch(), plan),
        Plus::Bias(bias) => {
            <Dispatch as Engine>::engine_conv_bias(x, w, bias.into_dispatch(), plan)
        }
    };
    let moments = wanted.then(|| [Tensor::from_dispatch(mean), Tensor::from_dispatch(variance)]);
    Convolved { map: Tensor::from_dispatch(map), moments }
}

pub(super) fn moments(x: Tensor<4>) -> [Tensor<1>; 2] {
    let (mean, variance) = <Dispatch as Engine>::engine_moments(x.into_dispatch());
    [Tensor::from_dispatch(mean), Tensor::from_dispatch(variance)]
}

pub(super) fn bn_relu(
    x: Tensor<4>,
    [gamma, beta, mean, variance]: [Tensor<1>; 4],
    plan: NormPlan,
) -> Tensor<4> {
    let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Engine>::engine_bn_relu(
        x.into_dispatch(),
        gamma,
        beta,
        mean,
        variance,
        plan,
    ))
}

/// The convolution of `x`, plus `add`, if it is kept, and the batch norm of that.
pub(super) fn conv_norm(
    x: Tensor<4>,
    w: Tensor<4>,
    add: Option<Tensor<4>>,
    parameters: [Tensor<1>; 4],
    plan: ConvNormPlan,
) -> (Option<Tensor<4>>, Tensor<4>) {
    let [gamma, beta, mean, variance] = parameters.map(Tensor::into_dispatch);
    let (x, w, keep) = (x.into_dispatch(), w.into_dispatch(), plan.keep);
    let (y, normed) = match add {
        Some(add) => <Dispatch as Engine>::engine_conv_add_norm(
            x,
            w,
            add.into_dispatch(),
            gamma,
            beta,
            mean,
            variance,
            plan,
        ),
        None => <Dispatch as Engine>::engine_conv_norm(x, w, gamma, beta, mean, variance, plan),
    };
    (keep.then(|| Tensor::from_dispatch(y)), Tensor::from_dispatch(normed))
}

pub(super) fn global_pool(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_global_pool(x.into_dispatch()))
}

pub(super) fn pool(x: Tensor<4>, plan: PoolPlan) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_pool(x.into_dispatch(), plan))
}

pub(super) fn linear(x: Tensor<2>, w: Tensor<2>, bias: Tensor<1>, version: u64) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_linear(
        x.into_dispatch(),
        w.into_dispatch(),
        bias.into_dispatch(),
        version,
    ))
}

pub(super) fn layer_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f32,
) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_gelu(x.into_dispatch()))
}

pub(super) fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_attention(qkv.into_dispatch(), heads))
}

/// Cross-entropy of each sample with label smoothing, on the CPU.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    smoothing: f32,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Engine>::engine_cross_entropy(
        logits.into_dispatch(),
        labels.into_dispatch(),
        smoothing,
    ))
}
