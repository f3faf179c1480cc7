//! A network as a list of layers: built once, run by [`Graph::forward`](Network::forward), and read
//! by the exports.

use burn::tensor::Tensor;

use super::Network;
use crate::nn::{
    Activation, BatchNorm, Conv2d, Dense, Dual, Feature, Flat, Keep, LayerNorm, Linear, NormBehind,
    NormInput, ParamId, Pass, Weights, attention, enter, first, global_avg_pool, pool_tokens,
    prepend,
};

/// What a layer does with its inputs.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Normalised images.
    Input,
    /// Convolution of the first input, plus the second where there is one.
    Conv { conv: Conv2d, kernel: usize },
    /// A convolution, as [`Op::Conv`], and the batch norm behind it, which is the next layer's
    /// result: on the engine one pass over memory in eval mode.
    ConvNorm { conv: Conv2d, kernel: usize, norm: Norm, keep: Keep },
    /// What the [`Op::ConvNorm`] before has computed.
    Normed,
    /// Batch norm and an activation.
    Norm(Norm),
    /// An activation alone.
    Activate(Activation),
    /// The sum of two inputs.
    Add,
    /// Maxima of windows.
    MaxPool { kernel: usize, stride: usize, padding: usize },
    /// Zeros below and to the right.
    PadEnd { pixels: usize },
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

/// A batch norm and what follows it.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) norm: BatchNorm,
    pub(crate) activation: Option<Activation>,
    /// What else reads its input.
    pub(crate) input: NormInput,
}

/// A layer with its inputs and the shape of its output, without the batch.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<usize>,
    pub(crate) shape: Vec<usize>,
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
    /// Layers in the order in which they run, each reading earlier ones.
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        let mut last = vec![0; layers.len()];
        for (index, layer) in layers.iter().enumerate() {
            layer.inputs.iter().for_each(|&input| last[input] = index);
        }
        let mut graph = Self { layers, last };
        (0..graph.layers.len()).for_each(|index| graph.fuse(index));
        graph
    }

    /// Makes one operation of layer `index` and the next where they are a convolution and a batch
    /// norm of its result.
    fn fuse(&mut self, index: usize) {
        let Some([first, second]) = self.layers.get_mut(index..index + 2) else { return };
        let [Layer { op, .. }, Layer { op: behind, inputs, .. }] = [first, second];
        if let (Op::Conv { conv, kernel }, Op::Norm(norm)) = (&*op, &*behind)
            && *inputs == [index]
        {
            let keep = if self.last[index] > index + 1 { Keep::Both } else { Keep::Normed };
            *op = Op::ConvNorm { conv: conv.clone(), kernel: *kernel, norm: norm.clone(), keep };
            *behind = Op::Normed;
        }
    }
}

/// The map that a convolution adds.
fn added(value: Option<Value>) -> Option<Feature> {
    match value {
        Some(Value::Map(map)) => Some(map),
        _ => None,
    }
}

/// What an activation other than ReLU, which batch norm has applied, makes of a map.
fn activated(map: Feature, activation: Option<Activation>, pass: &Pass) -> Feature {
    match activation {
        Some(activation) if activation != Activation::Relu => map.activate(activation, pass),
        _ => map,
    }
}

/// The network's own structure decides what each layer is given.
#[allow(clippy::panic, reason = "a mistake of this crate, out of reach of any input")]
#[track_caller]
fn mistaken(op: &Op) -> ! {
    panic!("network: a layer was given what it does not take: {op:?}")
}

impl Graph {
    /// What the layers after `start` make of its result `out`, which is all that they read.
    fn run(&self, weights: &Weights, start: usize, out: Value, pass: &mut Pass) -> Flat {
        let mut values: Vec<Option<Value>> = vec![None; self.layers.len()];
        values[start] = Some(out);
        for (index, Layer { op, inputs, .. }) in self.layers.iter().enumerate().skip(start + 1) {
            // What nobody reads any more is handed over, so that its memory is free as early as can
            // be.
            let mut inputs = inputs.iter().filter_map(|&id| {
                if self.last[id] == index { values[id].take() } else { values[id].clone() }
            });
            let (x, y) = (inputs.next(), inputs.next());
            match op {
                // Its value came with the convolution's.
                Op::Normed => {}
                Op::ConvNorm { conv, norm, keep, .. } => {
                    let (Some(Value::Map(x)), add) = (x, added(y)) else { mistaken(op) };
                    let Norm { norm, activation, input } = norm;
                    let relu = *activation == Some(Activation::Relu);
                    let behind = NormBehind { norm, relu, input: *input, keep: *keep };
                    let (map, normed) = conv.forward_norm(weights, x, add, behind, pass);
                    values[index] = map.map(Value::Map);
                    values[index + 1] = Some(Value::Map(activated(normed, *activation, pass)));
                }
                op => values[index] = Some(self.layer(op, [x, y], weights, pass)),
            }
        }
        match values.pop().flatten() {
            Some(Value::Vector(logits)) => logits.into(),
            _ => mistaken(&self.layers[self.layers.len() - 1].op),
        }
    }

    /// One layer's result.
    fn layer(
        &self,
        op: &Op,
        inputs: [Option<Value>; 2],
        weights: &Weights,
        pass: &mut Pass,
    ) -> Value {
        let [x, y] = inputs;
        match (op, x, y) {
            (Op::Conv { conv, .. }, Some(Value::Map(x)), add) => {
                Value::Map(conv.forward(weights, x, added(add), pass))
            }
            (Op::Norm(Norm { norm, activation, input }), Some(Value::Map(x)), _) => {
                let relu = *activation == Some(Activation::Relu);
                let normed = norm.forward(weights, x, relu, *input, pass);
                Value::Map(activated(normed, *activation, pass))
            }
            (Op::PadEnd { pixels }, Some(Value::Map(x)), _) => Value::Map(x.pad_end(*pixels, pass)),
            (Op::Activate(f), Some(Value::Map(x)), _) => Value::Map(x.activate(*f, pass)),
            (Op::Activate(f), Some(Value::Vector(x)), _) => Value::Vector(x.activate(*f, pass)),
            (Op::Activate(f), Some(Value::Sequence(x)), _) => Value::Sequence(x.activate(*f, pass)),
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
