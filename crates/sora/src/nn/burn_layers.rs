//! Layers made of Burn's own operations on every device. On the CPU, a feature map is converted
//! from the engine's layout for the layers that need `[N, C, H, W]`, and converted back after them.

use burn::tensor::{
    FloatDType, Tensor,
    module::{adaptive_avg_pool2d, max_pool2d_with_indices},
    ops::MaxPoolOptions,
};

use super::{
    Activation, Backend, BnMode, Feature, Init, Jvp, ParamId, Pass, Precision, SpecBuilder,
    Weights,
    engine::{self, BranchPlan, Middle, PoolOf, Recompute, ResidualPlan},
    layers::{layer_norm, pool, stored},
    products::wide,
};

impl Feature {
    /// The value and its derivative, in the layout of the pass's backend.
    fn into_jvp(self) -> Jvp<4> {
        Jvp { value: self.map, tangent: self.tangent }
    }

    fn from_jvp(jvp: Jvp<4>) -> Self {
        Self { tangent: jvp.tangent, ..jvp.value.into() }
    }

    /// Converts to `[N, C, H, W]`, in f32.
    pub fn leave(self, pass: &Pass) -> Jvp<4> {
        self.into_jvp().linear(|t| match pass.backend {
            Backend::Engine => wide(t).permute([2, 3, 0, 1]),
            Backend::Burn => wide(t),
        })
    }

    /// Converts from `[N, C, H, W]` in f32 to the pass's layout and storage type.
    pub fn arrive(jvp: Jvp<4>, pass: &Pass) -> Self {
        Self::from_jvp(jvp.linear(|t| match pass.backend {
            Backend::Engine => engine::enter(t, pass.precision),
            Backend::Burn => stored(t, pass),
        }))
    }

    /// Applies Burn's operations to the map in its own layout. They compute in f32, and the result
    /// gets the pass's storage type.
    fn wide(self, pass: &Pass, f: impl FnOnce(Jvp<4>) -> Jvp<4>) -> Self {
        let jvp = f(self.into_jvp().linear(wide));
        Self::from_jvp(jvp.linear(|t| match (pass.backend, pass.precision) {
            (Backend::Engine, Precision::Bf16) => t.cast(FloatDType::BF16),
            _ => stored(t, pass),
        }))
    }

    /// The sum of two maps.
    pub fn plus(self, other: Self, pass: &Pass) -> Self {
        if pass.backend == Backend::Engine {
            let sum = |a, b| engine::residual(a, b, ResidualPlan { relu: false, shortcut: None });
            let tangent = match (self.tangent, other.tangent) {
                (Some(a), Some(b)) => Some(sum(a, b)),
                (a, b) => a.or(b),
            };
            return Self { tangent, ..sum(self.map, other.map).into() };
        }
        let plain = self.tangent.is_none() && other.tangent.is_none();
        if plain && self.map.dtype() == other.map.dtype() {
            // A sum of two bf16 numbers is the same, computed in bf16 or rounded from f32.
            return (self.map + other.map).into();
        }
        let other = other.into_jvp().linear(wide);
        self.wide(pass, |jvp| jvp.plus(other))
    }

    /// The end of a residual block: an activation of the sum of two maps, of which `shortcut` has
    /// other readers.
    pub fn plus_activated(self, shortcut: Self, activation: Activation, pass: &Pass) -> Self {
        let plain = self.tangent.is_none() && shortcut.tangent.is_none();
        if activation != Activation::Relu || pass.backend != Backend::Engine || !plain {
            return self.plus(shortcut, pass).activate(activation, pass);
        }
        let plan = ResidualPlan { relu: true, shortcut: shortcut.recompute };
        let sum = engine::residual(self.map, shortcut.map, plan);
        Self { recompute: Some(Recompute::default()), ..sum.into() }
    }

    /// Applies an activation function to each element.
    pub fn activate(self, activation: Activation, pass: &Pass) -> Self {
        self.wide(pass, |jvp| jvp.activate(activation, pass))
    }

    /// Multiplies each map by a factor of its sample and channel, `[N, C]`.
    pub fn gate(self, factor: Jvp<2>, pass: &Pass) -> Self {
        if pass.backend == Backend::Burn {
            let [n, c] = factor.value.dims();
            return self.wide(pass, |jvp| jvp.times(factor.linear(|t| t.reshape([n, c, 1, 1]))));
        }
        let along = self.tangent.map(|tangent| engine::gate(tangent, factor.value.clone()).into());
        let across = factor.tangent.map(|tangent| engine::gate(self.map.clone(), tangent).into());
        let tangent = match (along, across) {
            (Some(a), Some(b)) => Some(Self::plus(a, b, pass)),
            (a, b) => a.or(b),
        };
        let gated = engine::gate(self.map, factor.value);
        Self { tangent: tangent.map(|sum: Self| sum.map), ..gated.into() }
    }

    /// The largest value of each window of `kernel` x `kernel` pixels; PyTorch's `MaxPool2d`.
    pub fn max_pool(self, kernel: usize, stride: usize, padding: usize, pass: &Pass) -> Self {
        if self.tangent.is_none() {
            let pooled = pool(self.map, kernel, stride, padding, PoolOf::Max, pass);
            return Self { recompute: Some(Recompute::default()), ..pooled.into() };
        }
        let Jvp { value, tangent } = self.leave(pass);
        let options = MaxPoolOptions {
            kernel_size: [kernel; 2],
            stride: [stride; 2],
            padding: [(padding, padding); 2],
            dilation: [1; 2],
            ceil_mode: false,
        };
        // The derivative of a maximum is the derivative of the element that attains it.
        let [n, c, h, w] = value.dims();
        let (value, indices) = max_pool2d_with_indices(value, options);
        let [_, _, oh, ow] = value.dims();
        let tangent = tangent.map(|tangent| {
            tangent
                .reshape([n, c, h * w])
                .gather(2, indices.reshape([n, c, oh * ow]))
                .reshape([n, c, oh, ow])
        });
        let jvp = Jvp { value, tangent };
        Self::arrive(jvp, pass)
    }

    /// Means over `side` by `side` regions, whatever the size of the map; PyTorch's
    /// `AdaptiveAvgPool2d`.
    pub fn adaptive_avg_pool(self, side: usize, pass: &Pass) -> Self {
        Self::arrive(self.leave(pass).linear(|t| adaptive_avg_pool2d(t, [side; 2])), pass)
    }

    /// Adds rows and columns of zeros below and to the right.
    pub fn pad_end(self, pixels: usize, pass: &Pass) -> Self {
        let [down, across] = match pass.backend {
            Backend::Engine => [0, 1],
            Backend::Burn => [2, 3],
        };
        let padded = |t: Tensor<4>, dim: usize| {
            let mut shape = t.dims();
            shape[dim] = pixels;
            let zeros = Tensor::zeros(shape, (&t.device(), t.dtype()));
            Tensor::cat(vec![t, zeros], dim)
        };
        Self::from_jvp(self.into_jvp().linear(|t| padded(padded(t, down), across)))
    }

    /// `[N, C H W]`, in PyTorch's order.
    pub fn flatten(self, pass: &Pass) -> Jvp<2> {
        self.leave(pass).linear(|t| {
            let [n, c, h, w] = t.dims();
            t.reshape([n, c * h * w])
        })
    }

    /// The pixels as a sequence, row by row: `[N, H W, C]`.
    pub fn tokens(self, pass: &Pass) -> Jvp<3> {
        self.leave(pass).linear(|t| {
            let [n, c, h, w] = t.dims();
            t.reshape([n, c, h * w]).swap_dims(1, 2)
        })
    }

    /// Dropout of single elements.
    pub fn dropout(self, layer: usize, rate: f32, pass: &Pass) -> Self {
        let [a, b, c, d] = self.map.dims();
        let shape = match pass.backend {
            Backend::Engine => [c, d, a, b],
            Backend::Burn => [a, b, c, d],
        };
        let Some(mask) = pass.dropout_mask(layer, rate, shape, &self.map.device().inner()) else {
            return self;
        };
        let mask = Self::arrive(Jvp { value: mask, tangent: None }, pass).map;
        self.wide(pass, |jvp| jvp.scale(wide(mask)))
    }
}

impl<const D: usize> Jvp<D> {
    /// Dropout of single elements; the first dimension is the sample.
    pub fn dropout(self, layer: usize, rate: f32, pass: &Pass) -> Self {
        match pass.dropout_mask(layer, rate, self.value.dims(), &self.value.device().inner()) {
            Some(mask) => self.scale(mask),
            None => self,
        }
    }
}

impl Pass {
    fn dropout_mask<const D: usize>(
        &self,
        layer: usize,
        rate: f32,
        shape: [usize; D],
        device: &burn::tensor::Device,
    ) -> Option<Tensor<D>> {
        let draws = self.dropout.filter(|_| rate > 0.0 && self.mode == BnMode::Train)?;
        Some(draws.mask(layer, rate, shape, device))
    }
}

/// A fully connected layer over the last dimension, with weight `[out, in]` and an optional bias
/// `[out]`.
#[derive(Clone, Debug)]
pub struct Dense {
    pub(crate) weight: ParamId,
    pub(crate) bias: Option<ParamId>,
}

impl Dense {
    /// Registers `NAME.weight` and, unless `bias` is `None`, `NAME.bias`, with their initial
    /// values. `shape` is the shape of the weight: `[out, in]`, with trailing ones where PyTorch
    /// has a 1x1 convolution in its place.
    pub fn new(
        specs: &mut SpecBuilder,
        name: &str,
        shape: &[usize],
        weight: Init,
        bias: Option<Init>,
    ) -> Self {
        Self {
            weight: specs.param(format!("{name}.weight"), shape, weight),
            bias: bias.map(|init| specs.param(format!("{name}.bias"), &shape[..1], init)),
        }
    }

    /// The bias, or zeros if there is none: the engine's operations take one.
    fn bias_or_zeros(&self, weights: &Weights) -> Tensor<1> {
        let zeros = || {
            let weight = weights.matrix(self.weight);
            Tensor::zeros([weight.dims()[0]], &weight.device().inner())
        };
        self.bias.map_or_else(zeros, |bias| weights.get(bias))
    }

    /// Applies the layer: `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, weights: &Weights, x: Jvp<D>, pass: &Pass) -> Jvp<D> {
        let weight = weights.matrix(self.weight);
        if let (Backend::Engine, None) = (pass.backend, &x.tangent) {
            let mut shape = x.value.dims();
            let features = shape[D - 1];
            let rows = shape[..D - 1].iter().product();
            shape[D - 1] = weight.dims()[0];
            let y = engine::linear(
                x.value.reshape([rows, features]),
                weight,
                self.bias_or_zeros(weights),
                weights.version(self.weight),
            );
            return Jvp { value: y.reshape(shape), tangent: None };
        }
        let weight = weight.transpose();
        let linear = |x, bias| pass.products.linear(x, weight.clone(), bias);
        let tangent = x.tangent.map(|tangent| linear(tangent, None));
        Jvp { value: linear(x.value, self.bias.map(|bias| weights.get(bias))), tangent }
    }
}

/// Layer norm over the last dimension, with scale and shift.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub(crate) weight: ParamId,
    pub(crate) bias: ParamId,
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    /// Registers `NAME.weight` and `NAME.bias`.
    pub fn new(specs: &mut SpecBuilder, name: &str, features: usize, epsilon: f64) -> Self {
        Self {
            weight: specs.param(format!("{name}.weight"), &[features], Init::Constant(1.0)),
            bias: specs.param(format!("{name}.bias"), &[features], Init::Constant(0.0)),
            epsilon,
        }
    }

    /// Normalises each token of `[N, T, F]` by itself.
    pub fn forward(&self, weights: &Weights, x: Jvp<3>, pass: &Pass) -> Jvp<3> {
        if x.tangent.is_none() {
            let [n, t, features] = x.value.dims();
            let scale_and_shift = [weights.get(self.weight), weights.get(self.bias)];
            let y = layer_norm(
                x.value.reshape([n * t, features]),
                scale_and_shift,
                self.epsilon as f32,
                pass,
            );
            return Jvp { value: y.reshape([n, t, features]), tangent: None };
        }
        let wide = |id| {
            let t: Tensor<1> = weights.get(id);
            let features = t.dims()[0];
            t.reshape([1, 1, features])
        };
        x.standardise(self.epsilon).scale(wide(self.weight)).shift(wide(self.bias))
    }
}

/// What lies between the two fully connected layers of a [`TokenBranch`].
#[derive(Clone, Copy, Debug)]
pub enum BranchMiddle {
    /// GELU.
    Gelu,
    /// Attention over this number of heads.
    Attention(usize),
}

/// A residual branch of a transformer block, which the engine computes in one operation: `x +
/// second(middle(first(norm(x))))`.
#[derive(Clone, Debug)]
pub struct TokenBranch {
    pub(crate) norm: LayerNorm,
    pub(crate) first: Dense,
    pub(crate) middle: BranchMiddle,
    pub(crate) second: Dense,
}

impl TokenBranch {
    /// Computes the branch of `[N, T, F]`, if the pass is one that the operation computes: on the
    /// engine, without a tangent.
    pub fn forward(&self, weights: &Weights, x: &Jvp<3>, pass: &Pass) -> Option<Jvp<3>> {
        if pass.backend != Backend::Engine || x.tangent.is_some() {
            return None;
        }
        let layer = |dense: &Dense| (weights.matrix(dense.weight), dense.bias_or_zeros(weights));
        let layers = [layer(&self.first), layer(&self.second)];
        let plan = BranchPlan {
            middle: match self.middle {
                BranchMiddle::Gelu => Middle::Gelu { hidden: layers[0].0.dims()[0] },
                BranchMiddle::Attention(heads) => Middle::Attention { heads },
            },
            epsilon: self.norm.epsilon as f32,
            half: pass.precision == Precision::Bf16,
            versions: [&self.first, &self.second].map(|dense| weights.version(dense.weight)),
        };
        let norm = [weights.get(self.norm.weight), weights.get(self.norm.bias)];
        let value = engine::branch(x.value.clone(), norm, layers, plan);
        Some(Jvp { value, tangent: None })
    }
}

/// Attention of every token to every token over `heads` heads, of queries, keys and values side by
/// side: `[N, T, 3 F]` to `[N, T, F]`.
pub fn attention(qkv: Jvp<3>, heads: usize, pass: &Pass) -> Jvp<3> {
    if pass.backend == Backend::Engine && qkv.tangent.is_none() {
        return Jvp { value: engine::attention(qkv.value, heads), tangent: None };
    }
    let [n, t, features] = qkv.value.dims();
    let features = features / 3;
    let width = features / heads;
    let part = |index: usize| {
        qkv.clone().linear(|all| {
            all.slice([0..n, 0..t, index * features..(index + 1) * features])
                .reshape([n, t, heads, width])
                .swap_dims(1, 2)
        })
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let scale = (width as f64).sqrt().recip();
    let scores = q.linear(|q| q * scale).matmul(k.linear(|k| k.swap_dims(2, 3)), pass);
    scores.softmax(3).matmul(v, pass).linear(|out| out.swap_dims(1, 2).reshape([n, t, features]))
}

/// The mean of the tokens `[N, T, F]`, weighted by the softmax of their scores `[N, T, 1]`: `[N,
/// F]`.
pub fn pool_tokens(x: Jvp<3>, scores: Jvp<3>, pass: &Pass) -> Jvp<2> {
    let [n, _, features] = x.value.dims();
    scores
        .softmax(1)
        .linear(|s| s.swap_dims(1, 2))
        .matmul(x, pass)
        .linear(|out| out.reshape([n, features]))
}

/// Puts a learned token before the other tokens: `[N, T, F]` to `[N, T + 1, F]`.
pub fn prepend(token: Tensor<3>, x: Jvp<3>) -> Jvp<3> {
    let [n, _, features] = x.value.dims();
    let token = token.expand([n, 1, features]);
    let tangent = x.tangent.map(|t| Tensor::cat(vec![token.zeros_like(), t], 1));
    Jvp { value: Tensor::cat(vec![token, x.value], 1), tangent }
}

/// The first token: `[N, T, F]` to `[N, F]`.
pub fn first(x: Jvp<3>) -> Jvp<2> {
    x.linear(|t| {
        let [n, _, features] = t.dims();
        t.slice([0..n, 0..1, 0..features]).reshape([n, features])
    })
}
