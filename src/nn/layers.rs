//! Layers: structure and identifiers only, the values come from [`Weights`].

use burn::tensor::{
    Tensor, activation,
    module::{batch_norm, batch_norm_train, conv2d, linear},
    ops::ConvOptions,
};

use super::{BatchStats, BnMode, BufferId, Init, ParamId, Pass, SpecBuilder, Weights};

/// PyTorch's default epsilon in the denominator of batch norm.
const BN_EPSILON: f64 = 1e-5;

/// A 2-D convolution without bias; weight `[out, in, k, k]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: ParamId,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Registers `NAME.weight`, with PyTorch's default initialisation (Kaiming uniform with a = sqrt 5: U(-1/sqrt(fan_in), 1/sqrt(fan_in))).
    pub fn new(specs: &mut SpecBuilder, name: &str, [cin, cout]: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Self {
        let fan_in = (cin * kernel * kernel) as f32;
        let weight = specs.param(format!("{name}.weight"), &[cout, cin, kernel, kernel], Init::Uniform(fan_in.sqrt().recip()));
        Self { weight, stride, padding }
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, weights: &Weights, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], 1);
        conv2d(x, weights.get(self.weight), None, options)
    }
}

/// Batch norm over `[N, C, H, W]` with learned scale and shift and running statistics.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: ParamId,
    bias: ParamId,
    running_mean: BufferId,
    running_var: BufferId,
}

impl BatchNorm {
    /// Registers `NAME.weight`, `NAME.bias`, `NAME.running_mean` and `NAME.running_var`.
    pub fn new(specs: &mut SpecBuilder, name: &str, channels: usize) -> Self {
        Self {
            weight: specs.param(format!("{name}.weight"), &[channels], Init::Constant(1.0)),
            bias: specs.param(format!("{name}.bias"), &[channels], Init::Constant(0.0)),
            running_mean: specs.buffer(format!("{name}.running_mean"), &[channels], 0.0),
            running_var: specs.buffer(format!("{name}.running_var"), &[channels], 1.0),
        }
    }

    /// Batch norm followed by ReLU.
    pub fn forward_relu(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        let (weight, bias) = (weights.get(self.weight), weights.get(self.bias));
        let y = match pass.mode {
            BnMode::Eval => batch_norm(x, weight, bias, pass.buffers.buffer(self.running_mean), pass.buffers.buffer(self.running_var), BN_EPSILON),
            BnMode::Train => {
                let [n, _, h, w] = x.dims();
                let count = (n * h * w) as f64;
                let out = batch_norm_train(x, weight, bias, BN_EPSILON);
                pass.stats.push(BatchStats {
                    mean: self.running_mean,
                    variance: self.running_var,
                    batch_mean: out.mean.inner(),
                    // One value per channel has no unbiased variance; PyTorch refuses such a batch, we keep the biased one.
                    batch_variance: out.variance.inner().mul_scalar(count / (count - 1.0).max(1.0)),
                });
                out.output
            }
        };
        activation::relu(y)
    }
}

/// A fully connected layer; weight `[out, in]`, bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: ParamId,
    bias: ParamId,
}

impl Linear {
    /// Registers `NAME.weight` and `NAME.bias` with PyTorch's default initialisation.
    pub fn new(specs: &mut SpecBuilder, name: &str, [features, classes]: [usize; 2]) -> Self {
        let init = Init::Uniform((features as f32).sqrt().recip());
        Self { weight: specs.param(format!("{name}.weight"), &[classes, features], init), bias: specs.param(format!("{name}.bias"), &[classes], init) }
    }

    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, weights: &Weights, x: Tensor<2>) -> Tensor<2> {
        linear(x, weights.get::<2>(self.weight).transpose(), Some(weights.get(self.bias)))
    }
}

/// Mean over height and width: `[N, C, H, W]` to `[N, C]`.
pub fn global_avg_pool(x: Tensor<4>) -> Tensor<2> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c])
}

/// The normalisation layer: `(x - mean) / std` per channel, so that everything outside the network lives in pixel space.
pub fn normalize(x: Tensor<4>, mean: &[f32], std: &[f32]) -> Tensor<4> {
    let device = x.device().inner();
    let channels = mean.len();
    let shaped = |values: Vec<f32>| super::flat(values, &device).reshape([1, channels, 1, 1]);
    (x - shaped(mean.to_vec())) * shaped(std.iter().map(|s| s.recip()).collect())
}
