//! Layers: structure and identifiers only, the values come from [`Weights`].

use std::sync::Arc;

use burn::tensor::{
    DType, FloatDType, Tensor, activation,
    module::{avg_pool2d, batch_norm, batch_norm_train, conv2d, linear, max_pool2d},
    ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions},
};

use super::{
    Backend, BatchStats, BnMode, BufferId, Init, ParamId, Pass, Precision, SpecBuilder, Weights,
    engine::{self, ConvNormPlan, ConvPlan, Convolved, NormPlan, Plus, PoolPlan, Recompute},
    tangent,
};

/// A feature map as the pass's backend keeps it, and its moments where a convolution has taken them
/// along.
#[derive(Clone, Debug)]
pub struct Feature {
    pub(super) map: Tensor<4>,
    /// Its derivative along the pass's tangent, if there is one.
    pub(super) tangent: Option<Tensor<4>>,
    /// Mean and biased variance of each channel.
    pub(super) moments: Option<[Tensor<1>; 2]>,
    /// The batch norm whose result this is, on the engine.
    pub(super) recompute: Option<Arc<Recompute>>,
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
        Backend::Burn => rounded(x, pass),
    };
    Feature { tangent: pass.tangent.clone().map(take), ..take(x).into() }
}

/// What Burn's own operations make of a map that the engine would store in bf16: rounded, and its
/// gradient, too.
pub(super) fn rounded(x: Tensor<4>, pass: &Pass) -> Tensor<4> {
    match (pass.backend, pass.precision) {
        (Backend::Burn, Precision::Bf16) => x.cast(FloatDType::BF16).cast(FloatDType::F32),
        _ => x,
    }
}

/// PyTorch's default epsilon in the denominator of batch norm.
pub(super) const BN_EPSILON: f64 = 1e-5;

/// A 2-D convolution; weight `[out, in / groups, k, k]`, bias `[out]` where there is one.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub(crate) weight: ParamId,
    pub(crate) bias: Option<ParamId>,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) groups: usize,
}

impl Conv2d {
    /// Registers `NAME.weight`, with PyTorch's default initialisation (Kaiming uniform with a =
    /// sqrt 5: U(-1/sqrt(fan_in), 1/sqrt(fan_in))).
    pub fn new(
        specs: &mut SpecBuilder,
        name: &str,
        [cin, cout]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        let fan_in = (cin * kernel * kernel) as f32;
        Self::with_init(
            specs,
            name,
            [cin, cout],
            kernel,
            [stride, padding],
            Init::Uniform(fan_in.sqrt().recip()),
        )
    }

    /// Registers `NAME.weight` with a start of its own.
    pub fn with_init(
        specs: &mut SpecBuilder,
        name: &str,
        [cin, cout]: [usize; 2],
        kernel: usize,
        [stride, padding]: [usize; 2],
        init: Init,
    ) -> Self {
        let weight = specs.param(format!("{name}.weight"), &[cout, cin, kernel, kernel], init);
        Self { weight, bias: None, stride, padding, groups: 1 }
    }

    /// As [`new`](Self::new), in `groups` groups of channels and with `NAME.bias`, which PyTorch
    /// starts like the weight.
    pub fn with_bias(
        specs: &mut SpecBuilder,
        name: &str,
        [cin, cout]: [usize; 2],
        kernel: usize,
        [stride, padding]: [usize; 2],
        groups: usize,
    ) -> Self {
        let conv = Self::new(specs, name, [cin / groups.max(1), cout], kernel, stride, padding);
        let fan_in = (cin / groups.max(1) * kernel * kernel) as f32;
        let bias =
            specs.param(format!("{name}.bias"), &[cout], Init::Uniform(fan_in.sqrt().recip()));
        Self { bias: Some(bias), groups, ..conv }
    }

    /// The convolution of `x`, plus `add`.
    pub fn forward(
        &self,
        weights: &Weights,
        x: Feature,
        add: Option<Feature>,
        pass: &Pass,
    ) -> Feature {
        let (add, along) = add.map_or((None, None), |add| (Some(add.map), add.tangent));
        let moments = pass.mode == BnMode::Train;
        let bias = self.bias.map(|bias| weights.get::<1>(bias));
        let out = self.convolve(
            weights,
            Feature { tangent: None, ..x.clone() },
            add,
            bias,
            moments,
            pass,
        );
        // A convolution is linear: its derivative is the convolution of the derivative.
        let tangent = x
            .tangent
            .map(|tangent| self.convolve(weights, tangent.into(), along, None, false, pass).map);
        Feature { tangent, ..out }
    }

    /// The convolution of `x`, plus `add`, if it is kept, and the batch norm of that: on the engine
    /// in eval mode in one pass over memory.
    pub fn forward_norm(
        &self,
        weights: &Weights,
        x: Feature,
        add: Option<Feature>,
        behind: NormBehind<'_>,
        pass: &mut Pass,
    ) -> (Option<Feature>, Feature) {
        let NormBehind { norm, relu, input, keep } = behind;
        let keep = keep == Keep::Both;
        let one_pass = pass.backend == Backend::Engine
            && pass.mode == BnMode::Eval
            && x.tangent.is_none()
            && self.bias.is_none();
        if !one_pass {
            let y = self.forward(weights, x, add, pass);
            return (keep.then(|| y.clone()), norm.forward(weights, y, relu, input, pass));
        }
        let recompute = Arc::new(Recompute::default());
        let plan = ConvNormPlan {
            conv: self.plan(weights, x.recompute, false),
            norm: NormPlan {
                batch: false,
                shortcut: input == NormInput::Shortcut,
                relu,
                recompute: recompute.clone(),
            },
            keep,
        };
        let [gamma, beta] = [norm.weight, norm.bias].map(|id| weights.get(id));
        let [mean, variance] =
            [norm.running_mean, norm.running_var].map(|id| pass.buffers.buffer(id));
        let parameters = [gamma, beta, mean, variance];
        let (y, normed) = engine::conv_norm(
            x.map,
            weights.get(self.weight),
            add.map(|add| add.map),
            parameters,
            plan,
        );
        (y.map(Feature::from), Feature { recompute: Some(recompute), ..normed.into() })
    }

    fn plan(
        &self,
        weights: &Weights,
        recompute: Option<Arc<Recompute>>,
        moments: bool,
    ) -> ConvPlan {
        let version = weights.version(self.weight);
        ConvPlan {
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            version,
            moments,
            recompute,
        }
    }

    fn convolve(
        &self,
        weights: &Weights,
        x: Feature,
        add: Option<Tensor<4>>,
        bias: Option<Tensor<1>>,
        moments: bool,
        pass: &Pass,
    ) -> Feature {
        let weight = weights.get(self.weight);
        let Feature { map: x, recompute, .. } = x;
        match pass.backend {
            Backend::Engine => {
                let plan = self.plan(weights, recompute, moments);
                let (plus, later) = match (bias, add) {
                    (Some(bias), add) => (Plus::Bias(bias), add),
                    (None, Some(add)) => (Plus::Map(add), None),
                    (None, None) => (Plus::Nothing, None),
                };
                let Convolved { map, moments } = engine::conv(x, weight, plus, plan);
                match later {
                    // Another map than the one that the moments are of.
                    Some(add) => (map + add).into(),
                    None => Feature { moments, ..map.into() },
                }
            }
            Backend::Burn => {
                let options =
                    ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups);
                let y = conv2d(x, weight, bias, options);
                rounded(add.map_or(y.clone(), |add| y + add), pass).into()
            }
        }
    }
}

/// The batch norm behind a convolution.
#[derive(Clone, Copy, Debug)]
pub struct NormBehind<'a> {
    /// The batch norm.
    pub norm: &'a BatchNorm,
    /// Whether ReLU follows.
    pub relu: bool,
    /// What else reads its input.
    pub input: NormInput,
    /// Which results are read.
    pub keep: Keep,
}

/// What else reads the input of a batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormInput {
    /// Nothing, or layers that add their gradients to it by themselves.
    Alone,
    /// One convolution further on adds it: the identity shortcut around this layer. Its gradient is
    /// then there when this layer's backward pass runs, and is added in the same pass over memory.
    Shortcut,
}

/// Which results of a convolution and the batch norm behind it are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// That of the batch norm alone.
    Normed,
    /// The convolution's own, too.
    Both,
}

/// Batch norm with learned scale and shift and running statistics.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    pub(crate) weight: ParamId,
    pub(crate) bias: ParamId,
    pub(crate) running_mean: BufferId,
    pub(crate) running_var: BufferId,
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

    /// Batch norm, followed by ReLU or not; `input` says what else reads `x`.
    pub fn forward(
        &self,
        weights: &Weights,
        x: Feature,
        relu: bool,
        input: NormInput,
        pass: &mut Pass,
    ) -> Feature {
        let (gamma, beta) = (weights.get(self.weight), weights.get(self.bias));
        let running =
            || [pass.buffers.buffer(self.running_mean), pass.buffers.buffer(self.running_var)];
        let dims = x.map.dims();
        let activate = |y: Tensor<4>| if relu { activation::relu(y) } else { y };
        let along = x.tangent.map(|tangent| {
            let channels = if pass.backend == Backend::Engine { 3 } else { 1 };
            let statistics = (pass.mode == BnMode::Eval).then(running);
            // The derivative of a layer takes many operations; only its result is stored like a
            // map.
            let wide = |t: Tensor<4>| t.cast(FloatDType::F32);
            let along = tangent::batch_norm(
                wide(x.map.clone()),
                wide(tangent),
                [gamma.clone(), beta.clone()],
                statistics,
                channels,
                relu,
            );
            let along =
                if x.map.dtype() == DType::BF16 { along.cast(FloatDType::BF16) } else { along };
            rounded(along, pass)
        });
        let recompute = Arc::new(Recompute::default());
        let plan = NormPlan {
            batch: pass.mode == BnMode::Train,
            shortcut: input == NormInput::Shortcut,
            relu,
            recompute: recompute.clone(),
        };
        let (y, batch) = match (pass.backend, pass.mode) {
            (Backend::Engine, BnMode::Eval) => {
                let [mean, variance] = running();
                (engine::bn_relu(x.map, [gamma, beta, mean, variance], plan), None)
            }
            (Backend::Engine, BnMode::Train) => {
                let [mean, variance] = x.moments.unwrap_or_else(|| engine::moments(x.map.clone()));
                let y = engine::bn_relu(x.map, [gamma, beta, mean.clone(), variance.clone()], plan);
                (y, Some(([dims[0], dims[1], dims[2]], mean, variance)))
            }
            (Backend::Burn, BnMode::Eval) => {
                let [mean, variance] = running();
                (
                    rounded(
                        activate(batch_norm(x.map, gamma, beta, mean, variance, BN_EPSILON)),
                        pass,
                    ),
                    None,
                )
            }
            (Backend::Burn, BnMode::Train) => {
                let out = batch_norm_train(x.map, gamma, beta, BN_EPSILON);
                (
                    rounded(activate(out.output), pass),
                    Some(([dims[0], dims[2], dims[3]], out.mean, out.variance)),
                )
            }
        };
        if let Some((pixels, mean, variance)) = batch {
            let count = pixels.into_iter().product::<usize>() as f64;
            pass.stats.push(BatchStats {
                mean: self.running_mean,
                variance: self.running_var,
                batch_mean: mean.inner(),
                // One value per channel has no unbiased variance; PyTorch refuses such a batch, we
                // keep the biased one.
                batch_variance: variance.inner().mul_scalar(count / (count - 1.0).max(1.0)),
            });
        }
        let recompute = (pass.backend == Backend::Engine).then_some(recompute);
        Feature { tangent: along, recompute, ..y.into() }
    }
}

/// A fully connected layer; weight `[out, in]`, bias `[out]`.
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

    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, weights: &Weights, x: Flat, pass: &Pass) -> Flat {
        let (weight, bias) = (weights.get::<2>(self.weight), weights.get(self.bias));
        let tangent = x.tangent.map(|tangent| tangent.matmul(weight.clone().transpose()));
        let values = match pass.backend {
            Backend::Engine => engine::linear(x.values, weight, bias, weights.version(self.weight)),
            Backend::Burn => linear(x.values, weight.transpose(), Some(bias)),
        };
        Flat { values, tangent }
    }
}

/// Mean over height and width: a feature map to `[N, C]`.
pub fn global_avg_pool(x: Feature, pass: &Pass) -> Flat {
    let pool = |x: Tensor<4>| match pass.backend {
        Backend::Engine => engine::global_pool(x),
        Backend::Burn => {
            let [n, c, h, w] = x.dims();
            x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c])
        }
    };
    Flat { values: pool(x.map), tangent: x.tangent.map(pool) }
}

/// Mean (padding counts as zeros) or largest value of each window of `kernel` pixels square, as
/// PyTorch's `AvgPool2d` and `MaxPool2d`. `padding` is at most half of `kernel`.
pub fn pool(
    x: Tensor<4>,
    kernel: usize,
    stride: usize,
    padding: usize,
    max: bool,
    pass: &Pass,
) -> Tensor<4> {
    let pooled = match (pass.backend, max) {
        (Backend::Engine, _) => engine::pool(x, PoolPlan { kernel, stride, padding, max }),
        (Backend::Burn, true) => max_pool2d(
            x,
            MaxPoolOptions {
                kernel_size: [kernel; 2],
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                dilation: [1; 2],
                ceil_mode: false,
            },
        ),
        (Backend::Burn, false) => avg_pool2d(
            x,
            AvgPoolOptions {
                kernel_size: [kernel; 2],
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                count_include_pad: true,
                ceil_mode: false,
            },
        ),
    };
    rounded(pooled, pass)
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

/// `x Phi(x)`, element by element, in f32. Hendrycks and Gimpel 2016, arXiv 1606.08415; the exact
/// form, not the tanh approximation.
pub fn gelu<const D: usize>(x: Tensor<D>, pass: &Pass) -> Tensor<D> {
    match pass.backend {
        Backend::Engine => engine::gelu(x),
        // Composed: Burn's own backward pass of it follows the tanh approximation.
        Backend::Burn => x.clone() * ((x * std::f32::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
    }
}

/// The normalisation layer: `(x - mean) / std` per channel, so that everything outside the network
/// lives in pixel space.
pub fn normalize(x: Tensor<4>, mean: &[f32], std: &[f32], backend: Backend) -> Tensor<4> {
    match backend {
        Backend::Engine => engine::normalize(x, mean, std),
        Backend::Burn => {
            let (channels, device) = (mean.len(), x.device().inner());
            let shaped =
                |values: Vec<f32>| super::flat(values, &device).reshape([1, channels, 1, 1]);
            (x - shaped(mean.to_vec())) * shaped(std.iter().map(|s| s.recip()).collect())
        }
    }
}
