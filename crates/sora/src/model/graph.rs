//! A network as a list of layers: built once, run by [`Graph::forward`], and read by the exports.

use burn::tensor::Tensor;

use super::{Network, NetworkOptions, Shape, Stem};
use crate::{
    error::{Error, Result},
    nn::{
        Activation, BatchNorm, Conv2d, Dense, Dual, Feature, Flat, Init, LayerNorm, Linear,
        NormBehind, ParamId, Pass, SpecBuilder, Weights, attention, enter, first, global_avg_pool,
        pool_tokens, prepend,
    },
};

/// A layer's output, by the layer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(crate) usize);

/// What a layer does with its inputs.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Normalised images.
    Input,
    /// Convolution of the first input, plus the second where there is one.
    Conv { conv: Conv2d, kernel: usize },
    /// Batch norm and an activation.
    Norm { norm: BatchNorm, activation: Option<Activation>, beside_shortcut: bool },
    /// An activation alone.
    Activate(Activation),
    /// The sum of two inputs.
    Add,
    /// Maxima of windows.
    MaxPool { kernel: usize, stride: usize, padding: usize },
    /// Means of `side` by `side` regions.
    AdaptivePool { side: usize },
    /// The mean of each map.
    GlobalPool,
    /// A map as a vector.
    Flatten,
    /// The first input, a map, times the sigmoid of the second, a factor for each channel.
    Gate,
    /// The classifier of the residual networks.
    Linear(Linear),
    /// A fully connected layer over the last dimension.
    Dense(Dense),
    /// Dropout of single elements.
    Dropout { rate: f32, layer: usize },
    /// A map as a sequence of its pixels.
    Tokens,
    /// A learned token before the others.
    Prepend(ParamId),
    /// A learned summand.
    Position(ParamId),
    /// Layer norm.
    LayerNorm(LayerNorm),
    /// Attention on queries, keys and values side by side.
    Attention { heads: usize },
    /// The first token.
    First,
    /// The mean of the first input's tokens, weighted by the second input's scores.
    PoolTokens,
}

/// A layer with its inputs and the shape of its output, without the batch.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<usize>,
    pub(crate) shape: Vec<usize>,
}

/// How convolutions and fully connected layers start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// PyTorch's default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the bias too.
    Default,
    /// The default weight, and a bias of zero.
    ZeroBias,
    /// N(0, 2 / (out k k)), bias zero: `kaiming_normal_(mode="fan_out")`.
    KaimingOut,
    /// N(0, 2 / (in k k)), bias zero: `kaiming_normal_`.
    KaimingIn,
    /// N(0, std^2), bias zero. PyTorch's `trunc_normal_` cuts at 2, which is 100 standard
    /// deviations of 0.02: it is this.
    Normal(f32),
}

impl Start {
    fn init(self, fan_in: usize, fan_out: usize) -> [Init; 2] {
        let default = Init::Uniform((fan_in as f32).sqrt().recip());
        let zero = Init::Constant(0.0);
        match self {
            Self::Default => [default, default],
            Self::ZeroBias => [default, zero],
            Self::KaimingOut => [Init::Normal((2.0 / fan_out as f32).sqrt()), zero],
            Self::KaimingIn => [Init::Normal((2.0 / fan_in as f32).sqrt()), zero],
            Self::Normal(std) => [Init::Normal(std), zero],
        }
    }
}

/// Kernel size, stride and padding, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window(pub(super) usize, pub(super) usize, pub(super) usize);

impl Window {
    fn output(self, size: usize) -> usize {
        let Self(kernel, stride, padding) = self;
        (size + 2 * padding).checked_sub(kernel).map_or(0, |rest| rest / stride + 1)
    }
}

/// Lists a network's layers. A layer that its input is too small for is noted and refused at the
/// end.
#[derive(Debug)]
pub struct Builder<'a> {
    specs: &'a mut SpecBuilder,
    layers: Vec<Layer>,
    dropouts: usize,
    failed: Option<String>,
    /// Channels of the first stage, or features of a token.
    pub(super) width: usize,
    /// Images and classes.
    pub(super) shape: Shape,
    /// What the user may choose.
    pub(super) options: NetworkOptions,
    /// The activation function.
    pub(super) activation: Activation,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        specs: &'a mut SpecBuilder,
        width: usize,
        shape: Shape,
        options: NetworkOptions,
        activation: Activation,
    ) -> (Self, Id) {
        let input = Layer {
            op: Op::Input,
            inputs: vec![],
            shape: vec![shape.channels, shape.height, shape.width],
        };
        (
            Self {
                specs,
                layers: vec![input],
                dropouts: 0,
                failed: None,
                width,
                shape,
                options,
                activation,
            },
            Id(0),
        )
    }

    /// The graph whose last layer gives the logits.
    ///
    /// # Errors
    /// A layer that its input was too small for.
    pub(super) fn finish(self) -> Result<Graph> {
        if let Some(reason) = self.failed {
            return Err(Error::input(reason));
        }
        let mut last = vec![0; self.layers.len()];
        for (index, layer) in self.layers.iter().enumerate() {
            layer.inputs.iter().for_each(|&input| last[input] = index);
        }
        Ok(Graph { layers: self.layers, last })
    }

    pub(super) fn fail(&mut self, reason: String) {
        self.failed.get_or_insert(reason);
    }

    fn push(&mut self, op: Op, inputs: &[Id], shape: Vec<usize>) -> Id {
        self.layers.push(Layer { op, inputs: inputs.iter().map(|id| id.0).collect(), shape });
        Id(self.layers.len() - 1)
    }

    /// Shape of a layer's output, without the batch.
    pub(super) fn dims(&self, x: Id) -> &[usize] {
        &self.layers[x.0].shape
    }

    /// Channels, features: the size that layers are made for.
    pub(super) fn features(&self, x: Id) -> usize {
        match *self.dims(x) {
            [channels, _, _] => channels,
            ref other => other.last().copied().unwrap_or(0),
        }
    }

    fn windows(&mut self, x: Id, window: Window) -> [usize; 2] {
        let sizes = [1, 2].map(|dim| self.dims(x).get(dim).copied().unwrap_or(0));
        let out = sizes.map(|size| window.output(size));
        if out.contains(&0) {
            let Shape { height, width, .. } = self.shape;
            self.fail(format!(
                "images of {height}x{width} are too small for the network: a layer with windows of {k}x{k} meets a map of {}x{}; use larger ones (--image-size) or another --model",
                sizes[0],
                sizes[1],
                k = window.0
            ));
        }
        out.map(|size| size.max(1))
    }

    /// Convolution without bias.
    pub(super) fn conv(
        &mut self,
        x: Id,
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
    ) -> Id {
        self.convolve(&[x], name, cout, window, start, false)
    }

    /// Convolution with bias.
    pub(super) fn conv_bias(
        &mut self,
        x: Id,
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
    ) -> Id {
        self.convolve(&[x], name, cout, window, start, true)
    }

    /// Convolution without bias, plus `add`.
    pub(super) fn conv_add(
        &mut self,
        x: Id,
        add: Id,
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
    ) -> Id {
        self.convolve(&[x, add], name, cout, window, start, false)
    }

    fn convolve(
        &mut self,
        inputs: &[Id],
        name: &str,
        cout: usize,
        window: Window,
        start: Start,
        bias: bool,
    ) -> Id {
        let x = inputs[0];
        let (cin, Window(kernel, stride, padding)) = (self.features(x), window);
        let [h, w] = self.windows(x, window);
        let [weight, start_of_bias] = start.init(cin * kernel * kernel, cout * kernel * kernel);
        let conv =
            Conv2d::with_init(self.specs, name, [cin, cout], kernel, [stride, padding], weight);
        let bias = bias.then(|| self.specs.param(format!("{name}.bias"), &[cout], start_of_bias));
        self.push(Op::Conv { conv: Conv2d { bias, ..conv }, kernel }, inputs, vec![cout, h, w])
    }

    /// A convolution without bias that runs here; [`register`](Self::register) must follow where
    /// PyTorch registers its weight.
    pub(super) fn conv_ahead(&mut self, x: Id, cout: usize, window: Window) -> Id {
        let [h, w] = self.windows(x, window);
        let Window(kernel, stride, padding) = window;
        let conv = Conv2d { weight: ParamId(usize::MAX), bias: None, stride, padding, groups: 1 };
        self.push(Op::Conv { conv, kernel }, &[x], vec![cout, h, w])
    }

    /// Registers the weight of a convolution that [`conv_ahead`](Self::conv_ahead) has placed.
    pub(super) fn register(&mut self, placed: Id, name: &str, start: Start) {
        let cout = self.features(placed);
        let cin = self.layers[placed.0].inputs.first().map_or(0, |&x| self.features(Id(x)));
        if let Op::Conv { conv, kernel, .. } = &mut self.layers[placed.0].op {
            let [weight, _] = start.init(cin * *kernel * *kernel, cout * *kernel * *kernel);
            *conv = Conv2d::with_init(
                self.specs,
                name,
                [cin, cout],
                *kernel,
                [conv.stride, conv.padding],
                weight,
            );
        }
    }

    fn norm(
        &mut self,
        x: Id,
        name: &str,
        activation: Option<Activation>,
        beside_shortcut: bool,
    ) -> Id {
        let norm = BatchNorm::new(self.specs, name, self.features(x));
        let shape = self.dims(x).to_vec();
        self.push(Op::Norm { norm, activation, beside_shortcut }, &[x], shape)
    }

    /// Batch norm.
    pub(super) fn norm_only(&mut self, x: Id, name: &str) -> Id {
        self.norm(x, name, None, false)
    }

    /// Batch norm and the network's activation.
    pub(super) fn norm_act(&mut self, x: Id, name: &str) -> Id {
        self.norm(x, name, Some(self.activation), false)
    }

    /// Batch norm and the network's activation, where `x` is also the shortcut that a later
    /// [`conv_add`](Self::conv_add) adds.
    pub(super) fn norm_act_beside_shortcut(&mut self, x: Id, name: &str) -> Id {
        self.norm(x, name, Some(self.activation), true)
    }

    /// The network's activation.
    pub(super) fn act(&mut self, x: Id) -> Id {
        self.act_with(x, self.activation)
    }

    /// An activation that is not the user's to choose.
    pub(super) fn act_with(&mut self, x: Id, activation: Activation) -> Id {
        let shape = self.dims(x).to_vec();
        self.push(Op::Activate(activation), &[x], shape)
    }

    /// The sum of two layers.
    pub(super) fn add(&mut self, x: Id, y: Id) -> Id {
        let shape = self.dims(x).to_vec();
        self.push(Op::Add, &[x, y], shape)
    }

    /// Maxima of windows.
    pub(super) fn max_pool(&mut self, x: Id, window: Window) -> Id {
        let [h, w] = self.windows(x, window);
        let (channels, Window(kernel, stride, padding)) = (self.features(x), window);
        self.push(Op::MaxPool { kernel, stride, padding }, &[x], vec![channels, h, w])
    }

    /// Means of `side` by `side` regions.
    pub(super) fn adaptive_pool(&mut self, x: Id, side: usize) -> Id {
        let channels = self.features(x);
        self.push(Op::AdaptivePool { side }, &[x], vec![channels, side, side])
    }

    /// The mean of each map.
    pub(super) fn global_pool(&mut self, x: Id) -> Id {
        let channels = self.features(x);
        self.push(Op::GlobalPool, &[x], vec![channels])
    }

    /// A map as a vector, in PyTorch's order.
    pub(super) fn flatten(&mut self, x: Id) -> Id {
        let len = self.dims(x).iter().product();
        self.push(Op::Flatten, &[x], vec![len])
    }

    /// A map times the sigmoid of a factor for each channel.
    pub(super) fn gate(&mut self, x: Id, factor: Id) -> Id {
        let shape = self.dims(x).to_vec();
        self.push(Op::Gate, &[x, factor], shape)
    }

    /// The classifier `NAME`, with PyTorch's default start.
    pub(super) fn classifier(&mut self, x: Id, name: &str) -> Id {
        let (features, classes) = (self.features(x), self.shape.classes);
        let linear = Linear::new(self.specs, name, [features, classes]);
        self.push(Op::Linear(linear), &[x], vec![classes])
    }

    /// A fully connected layer.
    pub(super) fn dense(&mut self, x: Id, name: &str, out: usize, start: Start) -> Id {
        self.fully_connected(x, name, out, start, true, &[])
    }

    /// A fully connected layer that PyTorch writes as a 1x1 convolution.
    pub(super) fn dense_as_conv(&mut self, x: Id, name: &str, out: usize, start: Start) -> Id {
        self.fully_connected(x, name, out, start, true, &[1, 1])
    }

    fn fully_connected(
        &mut self,
        x: Id,
        name: &str,
        out: usize,
        start: Start,
        bias: bool,
        ones: &[usize],
    ) -> Id {
        let features = self.features(x);
        let [weight, start_of_bias] = start.init(features, out);
        let dense = Dense::new(
            self.specs,
            name,
            &[&[out, features], ones].concat(),
            weight,
            bias.then_some(start_of_bias),
        );
        let mut shape = self.dims(x).to_vec();
        shape.pop();
        shape.push(out);
        self.push(Op::Dense(dense), &[x], shape)
    }

    /// Dropout at the run's rate; nothing at all at rate 0.
    pub(super) fn dropout(&mut self, x: Id) -> Id {
        let rate = self.options.dropout;
        if rate == 0.0 {
            return x;
        }
        self.dropouts += 1;
        let shape = self.dims(x).to_vec();
        self.push(Op::Dropout { rate, layer: self.dropouts }, &[x], shape)
    }

    /// A map as a sequence of its pixels.
    pub(super) fn tokens(&mut self, x: Id) -> Id {
        let (channels, pixels) = (self.features(x), self.dims(x).iter().skip(1).product());
        self.push(Op::Tokens, &[x], vec![pixels, channels])
    }

    fn tokens_of(&self, x: Id) -> [usize; 2] {
        [self.dims(x).first().copied().unwrap_or(0), self.features(x)]
    }

    /// A learned token before the others.
    pub(super) fn prepend(&mut self, x: Id, name: &str, init: Init) -> Id {
        let [tokens, features] = self.tokens_of(x);
        let token = self.specs.param(name.to_owned(), &[1, 1, features], init);
        self.push(Op::Prepend(token), &[x], vec![tokens + 1, features])
    }

    /// A learned summand for every token.
    pub(super) fn position(&mut self, x: Id, name: &str, init: Init) -> Id {
        let [tokens, features] = self.tokens_of(x);
        let position = self.specs.param(name.to_owned(), &[1, tokens, features], init);
        self.push(Op::Position(position), &[x], vec![tokens, features])
    }

    /// Layer norm.
    pub(super) fn layer_norm(&mut self, x: Id, name: &str, epsilon: f64) -> Id {
        let shape = self.dims(x).to_vec();
        let norm = LayerNorm::new(self.specs, name, self.features(x), epsilon);
        self.push(Op::LayerNorm(norm), &[x], shape)
    }

    /// Self-attention: `NAME.qkv`, attention, `NAME.proj`.
    pub(super) fn self_attention(
        &mut self,
        x: Id,
        name: &str,
        heads: usize,
        qkv_bias: bool,
        start: Start,
    ) -> Id {
        let [tokens, features] = self.tokens_of(x);
        if !features.is_multiple_of(heads) {
            self.fail(format!("--width {features}: the network has {heads} attention heads; expected a multiple of {heads}"));
        }
        let qkv =
            self.fully_connected(x, &format!("{name}.qkv"), 3 * features, start, qkv_bias, &[]);
        let out = self.push(Op::Attention { heads }, &[qkv], vec![tokens, features]);
        self.dense(out, &format!("{name}.proj"), features, start)
    }

    /// The first token.
    pub(super) fn first(&mut self, x: Id) -> Id {
        let features = self.features(x);
        self.push(Op::First, &[x], vec![features])
    }

    /// The mean of the tokens, weighted by the softmax of learned scores.
    pub(super) fn pool_tokens(&mut self, x: Id, name: &str, start: Start) -> Id {
        let features = self.features(x);
        let scores = self.dense(x, name, 1, start);
        self.push(Op::PoolTokens, &[x, scores], vec![features])
    }

    /// The stem that the options name.
    pub(super) fn stem(&self) -> Stem {
        self.options.stem.unwrap_or(Stem::Cifar)
    }
}

/// What goes from layer to layer.
// A few tensors' handles at a time: their size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Value {
    Map(Feature),
    Vector(Dual<2>),
    Sequence(Dual<3>),
}

/// Layers in the order in which they run.
#[derive(Debug)]
pub struct Graph {
    pub(crate) layers: Vec<Layer>,
    /// For each layer the last one that reads it.
    pub(super) last: Vec<usize>,
}

impl Graph {
    /// The batch norm that is the layer after `index`, a convolution, and reads it; and an
    /// activation behind it other than ReLU.
    pub(super) fn norm_behind(&self, index: usize) -> Option<(NormBehind<'_>, Option<Activation>)> {
        let Op::Conv { .. } = self.layers[index].op else { return None };
        let Layer { op: Op::Norm { norm, activation, beside_shortcut }, inputs, .. } =
            self.layers.get(index + 1)?
        else {
            return None;
        };
        let (relu, keep) = (*activation == Some(Activation::Relu), self.last[index] > index + 1);
        let behind = NormBehind { norm, relu, shortcut: *beside_shortcut, keep };
        (*inputs == [index]).then_some((behind, activation.filter(|_| !relu)))
    }
}

/// The network's own structure decides what each layer is given.
#[track_caller]
fn mistaken(op: &Op) -> ! {
    panic!("network: a layer was given what it does not take: {op:?}")
}

impl Graph {
    /// What the layers after `start` make of its result `out`, which is all that they read.
    fn run(&self, weights: &Weights, start: usize, out: Value, pass: &mut Pass) -> Flat {
        let mut values: Vec<Option<Value>> = vec![None; self.layers.len()];
        let mut out = Some(out);
        // The result of the next layer, where a convolution has computed it along with its own.
        let mut ahead = None;
        for (index, Layer { op, inputs, .. }) in self.layers.iter().enumerate().skip(start + 1) {
            values[index - 1] = out;
            // What nobody reads any more is handed over, so that its memory is free as early as can
            // be.
            let mut inputs = inputs.iter().filter_map(|&id| {
                if self.last[id] == index { values[id].take() } else { values[id].clone() }
            });
            if let Some(value) = ahead.take() {
                inputs.for_each(drop);
                out = Some(value);
                continue;
            }
            out = Some(match (op, inputs.next(), inputs.next()) {
                (Op::Conv { conv, .. }, Some(Value::Map(x)), add) => {
                    let add = match add {
                        Some(Value::Map(add)) => Some(add),
                        _ => None,
                    };
                    let Some((behind, activation)) = self.norm_behind(index) else {
                        out = Some(Value::Map(conv.forward(weights, x, add, pass)));
                        continue;
                    };
                    let (map, normed) = conv.forward_norm(weights, x, add, behind, pass);
                    ahead = Some(Value::Map(match activation {
                        Some(activation) => normed.activate(activation, pass),
                        None => normed,
                    }));
                    out = map.map(Value::Map);
                    continue;
                }
                (Op::Norm { norm, activation, beside_shortcut }, Some(Value::Map(x)), _) => {
                    let relu = *activation == Some(Activation::Relu);
                    let normed = norm.forward(weights, x, [relu, *beside_shortcut], pass);
                    Value::Map(match activation {
                        Some(activation) if !relu => normed.activate(*activation, pass),
                        _ => normed,
                    })
                }
                (Op::Activate(f), Some(Value::Map(x)), _) => Value::Map(x.activate(*f, pass)),
                (Op::Activate(f), Some(Value::Vector(x)), _) => Value::Vector(x.activate(*f, pass)),
                (Op::Activate(f), Some(Value::Sequence(x)), _) => {
                    Value::Sequence(x.activate(*f, pass))
                }
                (Op::Add, Some(Value::Map(x)), Some(Value::Map(y))) => Value::Map(x.plus(y, pass)),
                (Op::Add, Some(Value::Sequence(x)), Some(Value::Sequence(y))) => {
                    Value::Sequence(x.plus(y))
                }
                (Op::MaxPool { kernel, stride, padding }, Some(Value::Map(x)), _) => {
                    Value::Map(x.max_pool(*kernel, *stride, *padding, pass))
                }
                (Op::AdaptivePool { side }, Some(Value::Map(x)), _) => {
                    Value::Map(x.adaptive_avg_pool(*side, pass))
                }
                (Op::GlobalPool, Some(Value::Map(x)), _) => {
                    Value::Vector(global_avg_pool(x, pass).into())
                }
                (Op::Flatten, Some(Value::Map(x)), _) => Value::Vector(x.flatten(pass)),
                (Op::Gate, Some(Value::Map(x)), Some(Value::Vector(factor))) => {
                    Value::Map(x.gate(factor.sigmoid(), pass))
                }
                (Op::Linear(linear), Some(Value::Vector(x)), _) => {
                    Value::Vector(linear.forward(weights, x.into(), pass).into())
                }
                (Op::Dense(dense), Some(Value::Vector(x)), _) => {
                    Value::Vector(dense.forward(weights, x, pass))
                }
                (Op::Dense(dense), Some(Value::Sequence(x)), _) => {
                    Value::Sequence(dense.forward(weights, x, pass))
                }
                (Op::Dropout { rate, layer }, Some(Value::Map(x)), _) => {
                    Value::Map(x.dropout(*layer, *rate, pass))
                }
                (Op::Dropout { rate, layer }, Some(Value::Vector(x)), _) => {
                    Value::Vector(x.dropout(*layer, *rate, pass))
                }
                (Op::Dropout { rate, layer }, Some(Value::Sequence(x)), _) => {
                    Value::Sequence(x.dropout(*layer, *rate, pass))
                }
                (Op::Tokens, Some(Value::Map(x)), _) => Value::Sequence(x.tokens(pass)),
                (Op::Prepend(token), Some(Value::Sequence(x)), _) => {
                    Value::Sequence(prepend(weights.get(*token), x))
                }
                (Op::Position(position), Some(Value::Sequence(x)), _) => {
                    Value::Sequence(x.shift(weights.get(*position)))
                }
                (Op::LayerNorm(norm), Some(Value::Sequence(x)), _) => {
                    Value::Sequence(norm.forward(weights, x, pass))
                }
                (Op::Attention { heads }, Some(Value::Sequence(x)), _) => {
                    Value::Sequence(attention(x, *heads, pass))
                }
                (Op::First, Some(Value::Sequence(x)), _) => Value::Vector(first(x)),
                (Op::PoolTokens, Some(Value::Sequence(x)), Some(Value::Sequence(scores))) => {
                    Value::Vector(pool_tokens(x, scores))
                }
                (op, ..) => mistaken(op),
            });
        }
        match out {
            Some(Value::Vector(logits)) => logits.into(),
            _ => mistaken(&self.layers[self.layers.len() - 1].op),
        }
    }

    /// The logits, from the map of layer `start`, which is all that later layers read.
    pub(super) fn forward_from(
        &self,
        weights: &Weights,
        start: usize,
        map: Feature,
        pass: &mut Pass,
    ) -> Flat {
        self.run(weights, start, Value::Map(map), pass)
    }
}

impl Network for Graph {
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat {
        self.run(weights, 0, Value::Map(enter(x, pass)), pass)
    }

    fn graph(&self) -> Option<&Graph> {
        Some(self)
    }
}
