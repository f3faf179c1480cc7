//! Convolution and batch norm. The types hold structure and identifiers; [`Weights`] holds the
//! values.

use burn::tensor::{DType, Tensor, activation, module::batch_norm, ops::ConvOptions};

use super::{
    Backend, BatchStats, BnMode, BufferId, Init, ParamId, Pass, SpecBuilder, Weights,
    engine::{self, ConvPlan, MapAndMoments, NormPlan, NormStatistics, Plus, Recompute},
    jvp,
    layers::{Feature, stored},
    products::{half, wide},
    train_norm::{TrainNormPlan, train_norm},
};

/// PyTorch's default epsilon in the denominator of batch norm.
pub(super) const BN_EPSILON: f64 = 1e-5;

/// A 2-D convolution with weight `[out, in / groups, k, k]` and an optional bias `[out]`.
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

    /// Registers `NAME.weight` with the initial values `init`.
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

    /// Registers a convolution in `groups` groups of channels, with `NAME.weight` as in
    /// [`new`](Self::new) and with `NAME.bias`, which PyTorch initialises like the weight.
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

    /// Computes the convolution of `x`, plus `add`.
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

    /// Computes the convolution of `x`, plus `add`, if that is kept, and the batch norm of the sum.
    /// In eval mode the engine does so in one pass over memory.
    pub fn forward_norm(
        &self,
        weights: &Weights,
        x: Feature,
        add: Option<Feature>,
        behind: NormBehind<'_>,
        pass: &mut Pass,
    ) -> (Option<Feature>, Feature) {
        let NormBehind { norm, relu, input, keep } = behind;
        let kept = |map: &Feature| (keep == Keep::Both).then(|| map.clone());
        let one_pass = pass.backend == Backend::Engine
            && pass.mode == BnMode::Eval
            && x.tangent.is_none()
            && self.bias.is_none();
        if !one_pass {
            let y = self.forward(weights, x, add, pass);
            return (kept(&y), norm.forward(weights, y, relu, input, pass));
        }
        let recompute = Recompute::default();
        let statistics = NormStatistics::Running;
        let shared = Recompute::default();
        let plan = NormPlan {
            statistics,
            input,
            shared: Some(shared.clone()),
            relu,
            recompute: recompute.clone(),
        };
        let plan = ConvPlan { norm: Some((plan, keep)), ..self.plan(weights, x.recompute, false) };
        let [gamma, beta] = [norm.weight, norm.bias].map(|id| weights.get(id));
        let [mean, variance] = norm.running(pass);
        let [y, normed] = engine::conv_norm(
            x.map,
            weights.get(self.weight),
            add.map(|add| add.map),
            [gamma, beta, mean, variance],
            plan,
        );
        let y = Feature { recompute: Some(shared), ..y.into() };
        (kept(&y), Feature { recompute: Some(recompute), ..normed.into() })
    }

    fn plan(&self, weights: &Weights, recompute: Option<Recompute>, moments: bool) -> ConvPlan {
        let version = weights.version(self.weight);
        let Self { stride, padding, groups, .. } = *self;
        ConvPlan { stride, padding, groups, version, moments, recompute, norm: None }
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
                let MapAndMoments { map, moments } = engine::conv(x, weight, plus, plan);
                match later {
                    // The sum is another map than the one that the moments describe, so they are
                    // dropped.
                    Some(add) => (map + add).into(),
                    None => {
                        Feature { moments, recompute: Some(Recompute::default()), ..map.into() }
                    }
                }
            }
            Backend::Burn => {
                let options =
                    ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups);
                let y = pass.products.conv2d(x, weight, bias, options);
                let y = match add {
                    Some(add) => wide(y) + wide(add),
                    None => y,
                };
                stored(y, pass).into()
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
    /// The other readers of its input.
    pub input: NormInput,
    /// The results that are read.
    pub keep: Keep,
}

/// The other readers of a batch norm's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormInput {
    /// No other reader, or readers that add their gradients to it on their own.
    Alone,
    /// One later layer, a convolution or a sum, adds the input: the identity shortcut around this
    /// layer. Its gradient exists when this layer's backward pass runs, and is added in the same
    /// pass over memory.
    Shortcut,
}

/// The results of a convolution and the batch norm behind it that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The batch norm's result alone.
    Normed,
    /// The convolution's own result too.
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

    /// The running mean and variance.
    fn running(&self, pass: &Pass) -> [Tensor<1>; 2] {
        [self.running_mean, self.running_var].map(|id| pass.buffers.buffer(id))
    }

    /// Computes batch norm, followed by ReLU or not; `input` names the other readers of `x`.
    pub fn forward(
        &self,
        weights: &Weights,
        x: Feature,
        relu: bool,
        input: NormInput,
        pass: &mut Pass,
    ) -> Feature {
        let parameters = [self.weight, self.bias].map(|id| weights.get(id));
        match pass.backend {
            Backend::Engine => self.on_engine(x, parameters, relu, input, pass),
            Backend::Burn => self.on_burn(x, parameters, relu, pass),
        }
    }

    /// Computes the derivative of the result along the pass's tangent, of Burn's operations.
    fn along(
        &self,
        x: &Feature,
        parameters: [Tensor<1>; 2],
        relu: bool,
        pass: &Pass,
    ) -> Option<Tensor<4>> {
        let tangent = x.tangent.clone()?;
        let channels = if pass.backend == Backend::Engine { 3 } else { 1 };
        let statistics = (pass.mode == BnMode::Eval).then(|| self.running(pass));
        // The derivative of a layer takes many operations; only its result is stored like a map.
        let along = jvp::batch_norm(
            wide(x.map.clone()),
            wide(tangent),
            parameters,
            statistics,
            channels,
            relu,
        );
        Some(if x.map.dtype() == DType::BF16 { half(along) } else { along })
    }

    fn on_engine(
        &self,
        x: Feature,
        [gamma, beta]: [Tensor<1>; 2],
        relu: bool,
        input: NormInput,
        pass: &mut Pass,
    ) -> Feature {
        let [height, width, n, _] = x.map.dims();
        let (statistics, [mean, variance], ranks) = match pass.mode {
            BnMode::Eval => (NormStatistics::Running, self.running(pass), 1),
            BnMode::Train => {
                let moments = x.moments.clone().unwrap_or_else(|| engine::moments(x.map.clone()));
                let (moments, ranks) = engine::moments_over_ranks(moments);
                self.note(moments.clone(), height * width * n * ranks, pass);
                (NormStatistics::Batch, moments, ranks)
            }
        };
        let tangent = match (&x.tangent, statistics) {
            (Some(tangent), NormStatistics::Batch) if ranks == 1 => {
                let values = [&gamma, &beta, &mean, &variance].map(Clone::clone);
                Some(engine::norm_tangent(x.map.clone(), tangent.clone(), values, relu))
            }
            _ => self.along(&x, [gamma.clone(), beta.clone()], relu, pass),
        };
        let recompute = Recompute::default();
        // With derivatives, not every reader takes part in the backward pass.
        let shared = if tangent.is_none() { x.recompute } else { None };
        let plan = NormPlan { statistics, input, shared, relu, recompute: recompute.clone() };
        let y = engine::batch_norm(x.map, [gamma, beta, mean, variance], plan);
        Feature { tangent, recompute: Some(recompute), ..y.into() }
    }

    fn on_burn(
        &self,
        x: Feature,
        [gamma, beta]: [Tensor<1>; 2],
        relu: bool,
        pass: &mut Pass,
    ) -> Feature {
        let tangent = self.along(&x, [gamma.clone(), beta.clone()], relu, pass);
        let [n, _, height, width] = x.map.dims();
        if pass.mode == BnMode::Train {
            let plan = TrainNormPlan { epsilon: BN_EPSILON as f32, relu };
            let (y, statistics) = train_norm(stored(x.map, pass), [gamma, beta], plan);
            self.note(statistics, height * width * n, pass);
            return Feature { tangent, ..y.into() };
        }
        let [mean, variance] = self.running(pass);
        let y = batch_norm(wide(x.map), gamma, beta, mean, variance, BN_EPSILON);
        let y = if relu { activation::relu(y) } else { y };
        Feature { tangent, ..stored(y, pass).into() }
    }

    /// Adds the statistics of a batch of `count` values per channel to the pass.
    fn note(&self, [mean, variance]: [Tensor<1>; 2], count: usize, pass: &mut Pass) {
        let count = count as f64;
        pass.stats.push(BatchStats {
            mean: self.running_mean,
            variance: self.running_var,
            batch_mean: mean.inner(),
            // One value per channel has no unbiased variance. PyTorch refuses such a batch; this
            // code keeps the biased variance.
            batch_variance: variance.inner().mul_scalar(count / (count - 1.0).max(1.0)),
        });
    }
}
