//! What a training step does outside the network on a GPU, as operations of its backend: one kernel
//! each, where Burn's operations would take several.

use burn::tensor::{DType, Shape};
use burn::{backend::tensor::IntTensor, tensor::Int};
use sora_devices::{CubeBackend, draws, figures, normal, update};

use super::engine::extension::*;

/// The operations. They have no gradients.
#[backend_extension(Cube, Fusion)]
pub(super) trait UpdateOp: Backend {
    /// Value and momentum buffer after a step with `gradient`.
    #[fusion(meta = |value, buffer, _gradient, _rule| (value.clone(), buffer.clone()))]
    fn sgd(
        value: FloatTensor<Self>,
        buffer: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: update::Sgd,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `old (1 - share) + new share`.
    #[fusion(dtype = old, shape = old)]
    fn blend(old: FloatTensor<Self>, new: FloatTensor<Self>, share: f32) -> FloatTensor<Self>;

    /// Uniform draws for `samples` (i32), `[N, len]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([samples[0], *len]))]
    fn uniform(
        samples: IntTensor<Self>,
        key: [u32; 8],
        len: usize,
        scale: [f32; 2],
    ) -> FloatTensor<Self>;

    /// Standard normal draws for `samples` (i32), `[N, len]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([samples[0], *len]))]
    fn normal(samples: IntTensor<Self>, key: [u32; 8], len: usize) -> FloatTensor<Self>;

    /// The sums of a step's figures, `[N, 8]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([attack[0], figures::SUMS]))]
    fn figure_sums(
        attack: FloatTensor<Self>,
        train: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        along_sign: bool,
    ) -> FloatTensor<Self>;

    /// The linearity of a batch from such sums, `[1]`.
    #[fusion(dtype = DType::F32, shape = Shape::from([1]))]
    fn linearity(sums: FloatTensor<Self>, along_sign: bool) -> FloatTensor<Self>;

    /// A Newton step from a slope `[1]`, `[1]`.
    #[fusion(dtype = slope, shape = slope)]
    fn newton_step(slope: FloatTensor<Self>, first: f32, longest: f32) -> FloatTensor<Self>;
}

impl UpdateOp for CubeBackend {
    fn sgd(
        value: FloatTensor<Self>,
        buffer: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: update::Sgd,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        update::sgd(value, buffer, gradient, rule)
    }

    fn blend(old: FloatTensor<Self>, new: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        update::blend(old, new, share)
    }

    fn uniform(
        samples: IntTensor<Self>,
        key: [u32; 8],
        len: usize,
        scale: [f32; 2],
    ) -> FloatTensor<Self> {
        draws::uniform(samples, key, len, scale)
    }

    fn normal(samples: IntTensor<Self>, key: [u32; 8], len: usize) -> FloatTensor<Self> {
        normal::normal(samples, key, len, normal::Layers(sora_rng::normal_layers()))
    }

    fn figure_sums(
        attack: FloatTensor<Self>,
        train: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        along_sign: bool,
    ) -> FloatTensor<Self> {
        figures::sums(attack, train, delta, along_sign)
    }

    fn linearity(sums: FloatTensor<Self>, along_sign: bool) -> FloatTensor<Self> {
        figures::linearity(sums, along_sign)
    }

    fn newton_step(slope: FloatTensor<Self>, first: f32, longest: f32) -> FloatTensor<Self> {
        figures::newton_step(slope, first, longest)
    }
}

/// As [`update::sgd`]; without autodiff.
pub(crate) fn sgd([value, buffer, gradient]: [Tensor<1>; 3], rule: update::Sgd) -> [Tensor<1>; 2] {
    let [value, buffer, gradient] = [value, buffer, gradient].map(Tensor::into_dispatch);
    let (value, buffer) = Dispatch::sgd(value, buffer, gradient, rule);
    [value, buffer].map(Tensor::from_dispatch)
}

/// As [`update::blend`]; without autodiff.
pub(crate) fn blend(old: Tensor<1>, new: Tensor<1>, share: f32) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::blend(old.into_dispatch(), new.into_dispatch(), share))
}

/// As [`draws::uniform`], of `shape`, whose first dimension is the samples'.
pub(crate) fn uniform<const D: usize>(
    samples: Tensor<1, Int>,
    key: [u32; 8],
    shape: [usize; D],
    scale: [f32; 2],
) -> Tensor<D> {
    let len = shape[1..].iter().product();
    let drawn = Dispatch::uniform(samples.into_dispatch(), key, len, scale);
    Tensor::<2>::from_dispatch(drawn).reshape(shape)
}

/// As [`normal::normal`], of `shape`, whose first dimension is the samples'.
pub(crate) fn normal<const D: usize>(
    samples: Tensor<1, Int>,
    key: [u32; 8],
    shape: [usize; D],
) -> Tensor<D> {
    let len = shape[1..].iter().product();
    let drawn = Dispatch::normal(samples.into_dispatch(), key, len);
    Tensor::<2>::from_dispatch(drawn).reshape(shape)
}

/// As [`figures::sums`]; without autodiff.
pub(crate) fn figure_sums([attack, train, delta]: [Tensor<4>; 3], along_sign: bool) -> Tensor<2> {
    let [attack, train, delta] = [attack, train, delta].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::figure_sums(attack, train, delta, along_sign))
}

/// As [`figures::linearity`].
pub(crate) fn linearity(sums: Tensor<2>, along_sign: bool) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::linearity(sums.into_dispatch(), along_sign))
}

/// As [`figures::newton_step`].
pub(crate) fn newton_step(slope: Tensor<1>, first: f32, longest: f32) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::newton_step(slope.into_dispatch(), first, longest))
}
