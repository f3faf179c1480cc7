//! A network as a list of layers. It is built once; [`Graph::forward`](Network::forward) runs it,
//! and the exports read it.

use burn::tensor::Tensor;

use super::Network;
use crate::nn::{
    Activation, BatchNorm, BranchMiddle, Conv2d, Dense, Feature, Flat, Jvp, Keep, LayerNorm,
    Linear, NormBehind, NormInput, ParamId, Pass, PoolInput, TokenBranch, Weights, attention,
    enter, first, global_avg_pool, pool_tokens, prepend,
};

/// The operation of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The normalised images.
    Input,
    /// Convolution of the first input, plus the second where there is one.
    Conv { conv: Conv2d, kernel: usize },
    /// A convolution, as in [`Op::Conv`], and the batch norm behind it, which is the next layer's
    /// result. In eval mode the engine computes both in one pass over memory.
    ConvNorm { conv: Conv2d, kernel: usize, norm: Norm, keep: Keep },
    /// The batch norm that the [`Op::ConvNorm`] before it has computed.
    Normed,
    /// Batch norm and an activation.
    Norm(Norm),
    /// An activation alone.
    Activate(Activation),
    /// The sum of two inputs.
    Add,
    /// An activation of the sum of two maps: the end of a residual block, whose shortcut is the
    /// second.
    AddActivate(Activation),
    /// Maxima of windows.
    MaxPool { kernel: usize, stride: usize, padding: usize },
    /// Zeros below and to the right.
    PadEnd { pixels: usize },
    /// Means of `side` by `side` regions.
    AdaptivePool { side: usize },
    /// The mean of each map, whose other readers are named.
    GlobalPool(PoolInput),
    /// A map, flattened to a vector.
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
    /// The other readers of its input.
    pub(crate) input: NormInput,
}

/// A layer with its inputs and the shape of its output, without the batch.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<usize>,
    pub(crate) shape: Vec<usize>,
}

/// A value that passes from layer to layer. Few tensors' handles exist at a time, so their size
/// does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Value {
    Map(Feature),
    Vector(Jvp<2>),
    Sequence(Jvp<3>),
}

/// Layers in the order in which they run.
#[derive(Debug)]
pub struct Graph {
    pub(crate) layers: Vec<Layer>,
    /// The last layer that reads each layer's result.
    pub(super) last: Vec<usize>,
    /// For the first layer of each residual branch of a transformer block, the branch as one
    /// operation.
    branches: Vec<Option<TokenBranch>>,
}

/// Number of layers of a residual branch: norm, fully connected layer, GELU or attention, fully
/// connected layer, sum.
const BRANCH: usize = 5;

impl Graph {
    /// A graph of layers in the order in which they run; each reads earlier layers.
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        let mut last = vec![0; layers.len()];
        for (index, layer) in layers.iter().enumerate() {
            layer.inputs.iter().for_each(|&input| last[input] = index);
        }
        let mut graph = Self { layers, last, branches: Vec::new() };
        (0..graph.layers.len()).for_each(|index| graph.fuse(index));
        graph.branches = (0..graph.layers.len()).map(|index| graph.branch(index)).collect();
        graph
    }

    /// The residual branch whose first layer is `index`, if there is one and no other layer reads
    /// what lies inside it.
    fn branch(&self, index: usize) -> Option<TokenBranch> {
        let layers: &[Layer; BRANCH] = self.layers.get(index..)?.first_chunk()?;
        let [first, .., sum] = layers;
        let chained = layers.windows(2).enumerate().all(|(i, pair)| {
            pair[1].inputs.last() == Some(&(index + i)) && self.last[index + i] == index + i + 1
        });
        if !chained || sum.inputs.first() != first.inputs.first() || first.shape.len() != 2 {
            return None;
        }
        let [Op::LayerNorm(norm), Op::Dense(first), middle, Op::Dense(second), Op::Add] =
            layers.each_ref().map(|layer| &layer.op)
        else {
            return None;
        };
        let middle = match middle {
            Op::Attention { heads } => BranchMiddle::Attention(*heads),
            Op::Activate(Activation::Gelu) => BranchMiddle::Gelu,
            _ => return None,
        };
        let (norm, first, second) = (norm.clone(), first.clone(), second.clone());
        Some(TokenBranch { norm, first, middle, second })
    }

    /// Fuses layer `index` and the next layer if they are a convolution and a batch norm of its
    /// result.
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

/// Returns the map that a convolution adds.
fn added(value: Option<Value>) -> Option<Feature> {
    match value {
        Some(Value::Map(map)) => Some(map),
        _ => None,
    }
}

/// Applies an activation other than ReLU, which the batch norm has applied already.
fn activated(map: Feature, activation: Option<Activation>, pass: &Pass) -> Feature {
    match activation {
        Some(activation) if activation != Activation::Relu => map.activate(activation, pass),
        _ => map,
    }
}

/// Panics: the network's own structure decides which values each layer gets.
#[allow(clippy::panic, reason = "a mistake of this crate, out of reach of any input")]
#[track_caller]
fn mistaken(op: &Op) -> ! {
    panic!("network: a layer was given what it does not take: {op:?}")
}

impl Graph {
    /// Runs the layers after `start` on its result `out`; they read no other result.
    fn run(&self, weights: &Weights, start: usize, out: Value, pass: &mut Pass) -> Flat {
        let mut values: Vec<Option<Value>> = vec![None; self.layers.len()];
        values[start] = Some(out);
        let mut next = start + 1;
        for (index, Layer { op, inputs, .. }) in self.layers.iter().enumerate().skip(start + 1) {
            if index < next {
                continue;
            }
            next = index + 1;
            if let Some((branch, x)) = self.branches[index].as_ref().zip(inputs.first())
                && let Some(Value::Sequence(x)) = &values[*x]
                && let Some(sum) = branch.forward(weights, x, pass)
            {
                next = index + BRANCH;
                values[next - 1] = Some(Value::Sequence(sum));
                let input = inputs[0];
                if self.last[input] < next {
                    values[input] = None;
                }
                continue;
            }
            // A value that no later layer reads is moved to the layer, so that its memory is freed
            // as early as possible.
            let mut inputs = inputs.iter().filter_map(|&id| {
                if self.last[id] == index { values[id].take() } else { values[id].clone() }
            });
            let (x, y) = (inputs.next(), inputs.next());
            match op {
                // The convolution before has computed its value.
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

    /// Computes one layer's result.
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
            (Op::AddActivate(f), Some(Value::Map(x)), Some(Value::Map(y))) => {
                Value::Map(x.plus_activated(y, *f, pass))
            }
            (Op::MaxPool { kernel, stride, padding }, Some(Value::Map(x)), _) => {
                Value::Map(x.max_pool(*kernel, *stride, *padding, pass))
            }
            (Op::AdaptivePool { side }, Some(Value::Map(x)), _) => {
                Value::Map(x.adaptive_avg_pool(*side, pass))
            }
            (Op::GlobalPool(input), Some(Value::Map(x)), _) => {
                Value::Vector(global_avg_pool(x, *input, pass).into())
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
                Value::Vector(pool_tokens(x, scores, pass))
            }
            (op, ..) => mistaken(op),
        }
    }

    /// Computes the logits from the map of layer `start`; later layers read no other result.
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
