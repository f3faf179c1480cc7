//! Layers. The types hold structure and identifiers; [`Weights`] holds the values.

use burn::tensor::{
    Tensor,
    module::{avg_pool2d, max_pool2d},
    ops::{AvgPoolOptions, MaxPoolOptions},
};

use super::{
    Backend, Init, ParamId, Pass, Precision, SpecBuilder, Weights,
    engine::{self, PoolInput, PoolOf, PoolPlan, Recompute},
    products::{half, wide},
};

/// A feature map in the layout of the pass's backend, with its moments where a convolution has
/// computed them.
#[derive(Clone, Debug)]
pub struct Feature {
    pub(super) map: Tensor<4>,
    /// Its derivative along the pass's tangent, if there is one.
    pub(super) tangent: Option<Tensor<4>>,
    /// Mean and biased variance of each channel.
    pub(super) moments: Option<[Tensor<1>; 2]>,
    /// What the convolutions that read the map share in the backward pass, on the engine.
    pub(super) recompute: Option<Recompute>,
}

impl From<Tensor<4>> for Feature {
    fn from(map: Tensor<4>) -> Self {
        Self { map, tangent: None, moments: None, recompute: None }
    }
}

/// Flat features `[N, F]` and their derivative along the pass's tangent, if there is one.
#[derive(Clone, Debug)]
pub struct Flat {
    /// The features.
    pub values: Tensor<2>,
    /// Their derivative.
    pub tangent: Option<Tensor<2>>,
}

/// Takes images `[N, C, H, W]` into the layout of the pass's backend.
pub fn enter(x: Tensor<4>, pass: &Pass) -> Feature {
    let take = |x: Tensor<4>| match pass.backend {
        Backend::Engine => engine::enter(x, pass.precision),
        Backend::Burn => stored(x, pass),
    };
    Feature { tangent: pass.tangent.clone().map(take), ..take(x).into() }
}

/// A map as the pass stores it, which the engine has done by itself. Casting rounds its gradient,
/// too.
pub(super) fn stored(x: Tensor<4>, pass: &Pass) -> Tensor<4> {
    match (pass.backend, pass.precision) {
        (Backend::Burn, Precision::Bf16) => half(x),
        (Backend::Burn, _) => wide(x),
        (Backend::Engine, _) => x,
    }
}

/// A fully connected layer with weight `[out, in]` and bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    pub(crate) weight: ParamId,
    pub(crate) bias: ParamId,
}

impl Linear {
    /// Registers `NAME.weight` and `NAME.bias` with PyTorch's default initialisation.
    pub fn new(specs: &mut SpecBuilder, name: &str, [features, classes]: [usize; 2]) -> Self {
        let init = Init::Uniform((features as f32).sqrt().recip());
        Self {
            weight: specs.param(format!("{name}.weight"), &[classes, features], init),
            bias: specs.param(format!("{name}.bias"), &[classes], init),
        }
    }

    /// Applies the layer: `[N, in]` to `[N, out]`.
    pub fn forward(&self, weights: &Weights, x: Flat, pass: &Pass) -> Flat {
        let (weight, bias) = (weights.get::<2>(self.weight), weights.get(self.bias));
        let tangent = x.tangent.map(|t| pass.products.matmul(t, weight.clone().transpose()));
        let values = match pass.backend {
            Backend::Engine => engine::linear(x.values, weight, bias, weights.version(self.weight)),
            Backend::Burn => pass.products.linear(x.values, weight.transpose(), Some(bias)),
        };
        Flat { values, tangent }
    }
}

/// Mean over height and width: a feature map, whose other readers `input` names, to `[N, C]`.
pub fn global_avg_pool(x: Feature, input: PoolInput, pass: &Pass) -> Flat {
    // With derivatives the gate's gradient need not exist before the mean's backward pass.
    let input = if x.tangent.is_some() { PoolInput::Alone } else { input };
    let pool = |x: Tensor<4>| match pass.backend {
        Backend::Engine => engine::global_pool(x, input),
        Backend::Burn => {
            let [n, c, h, w] = x.dims();
            wide(x).reshape([n, c, h * w]).mean_dim(2).reshape([n, c])
        }
    };
    Flat { values: pool(x.map), tangent: x.tangent.map(pool) }
}

/// Mean (padding counts as zeros) or largest value of each window of `kernel` x `kernel` pixels, as
/// in PyTorch's `AvgPool2d` and `MaxPool2d`. `padding` is at most half of `kernel`.
pub fn pool(
    x: Tensor<4>,
    kernel: usize,
    stride: usize,
    padding: usize,
    of: PoolOf,
    pass: &Pass,
) -> Tensor<4> {
    let pooled = match (pass.backend, of) {
        (Backend::Engine, _) => engine::pool(x, PoolPlan { kernel, stride, padding, of }),
        (Backend::Burn, PoolOf::Max) => max_pool2d(
            wide(x),
            MaxPoolOptions {
                kernel_size: [kernel; 2],
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                dilation: [1; 2],
                ceil_mode: false,
            },
        ),
        (Backend::Burn, PoolOf::Mean) => avg_pool2d(
            wide(x),
            AvgPoolOptions {
                kernel_size: [kernel; 2],
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                count_include_pad: true,
                ceil_mode: false,
            },
        ),
    };
    stored(pooled, pass)
}

/// Layer norm over the last dimension of `x`, in f32.
pub fn layer_norm(
    x: Tensor<2>,
    [gamma, beta]: [Tensor<1>; 2],
    epsilon: f32,
    pass: &Pass,
) -> Tensor<2> {
    match pass.backend {
        Backend::Engine => engine::layer_norm(x, gamma, beta, epsilon),
        Backend::Burn => {
            let centred = x.clone() - x.mean_dim(1);
            let scale = (centred.clone().square().mean_dim(1) + epsilon).sqrt().recip();
            centred * scale * gamma.unsqueeze() + beta.unsqueeze()
        }
    }
}

/// `x Phi(x)`, element by element, in f32, in the exact form and not the tanh approximation.
/// Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
pub fn gelu<const D: usize>(x: Tensor<D>, pass: &Pass) -> Tensor<D> {
    match pass.backend {
        Backend::Engine => engine::gelu(x),
        // This is composed of operations, because Burn's own backward pass follows the tanh
        // approximation.
        Backend::Burn => x.clone() * ((x * std::f32::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
    }
}

/// The normalisation layer: `(x - mean) / std` per channel, so that every value outside the network
/// is in pixel space.
pub fn normalize(x: Tensor<4>, mean: &[f32], std: &[f32], backend: Backend) -> Tensor<4> {
    match backend {
        Backend::Engine => engine::normalize(x, mean, std),
        Backend::Burn => {
            // Made on the device: a recorded pass sends nothing from the host.
            let device = x.device().inner();
            let of_channels = |value: &dyn Fn(usize) -> f32| {
                let one = |channel| Tensor::full([1; 4], value(channel), &device);
                Tensor::cat((0..mean.len()).map(one).collect(), 1)
            };
            (x - of_channels(&|c| mean[c])) * of_channels(&|c| std[c].recip())
        }
    }
}
