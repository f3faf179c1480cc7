//! The operators: their forward passes, and their gradients.
//!
//! Each file holds one family of operators: it reads a node's options and computes the forward pass
//! and, beside it, the backward pass. [`build`] lists all operators.

mod arithmetic;
mod cast;
pub(crate) mod conv;
mod cumsum;
mod gather_nd;
mod join;
mod logic;
mod matmul;
mod moves;
pub(crate) mod norm;
mod places;
mod pool;
mod quantize;
mod reduce;
mod relu;
mod resize;
mod scatter_nd;
mod shape;
mod softmax;
#[cfg(test)]
mod tests;
mod unary;

use std::fmt::Debug;

use self::{conv::Conv, norm::BatchNorm};
use crate::{
    attributes::Attributes,
    error::{Outcome, problem},
    value::{Array, Value},
};

/// One operation with its options.
pub(crate) trait Operator: Debug + Send + Sync {
    /// Computes the outputs for `inputs`.
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>>;

    /// Computes, for each input that is wanted, the gradient that comes back through the node;
    /// `None` where no gradient does.
    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>>;

    /// Whether the outputs depend smoothly on the inputs. An operator that does not passes no
    /// gradient.
    fn is_differentiable(&self) -> bool {
        true
    }

    /// What a pass may compute together with the nodes beside it; `None` for all other operators.
    fn part(&self) -> Option<Part<'_>> {
        None
    }
}

/// An operator that a pass may compute together with others.
///
/// Its backward pass does not read the values that then are never stored: the sum's summands, the
/// batch norm's input unless its parameters are weights, and the rectifier's input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Conv(&'a Conv),
    Add,
    Norm(&'a BatchNorm),
    Relu,
}

/// Inputs of a node. Inputs at the end, and inputs with an empty name, may be absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a>(pub &'a [Option<&'a Value>]);

impl<'a> Inputs<'a> {
    pub fn get(&self, index: usize) -> Option<&'a Value> {
        self.0.get(index).copied().flatten()
    }

    pub fn value(&self, index: usize) -> Outcome<&'a Value> {
        match self.get(index) {
            Some(value) => Ok(value),
            None => problem!("input {} is missing", index + 1),
        }
    }

    pub fn float(&self, index: usize) -> Outcome<&'a Array<f32>> {
        self.value(index)?.float()
    }

    /// The whole numbers of an input that may be absent.
    pub fn list(&self, index: usize) -> Outcome<Option<Vec<i64>>> {
        self.get(index).map(Value::list).transpose()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The values that a backward pass needs.
#[derive(Debug)]
pub(crate) struct Back<'a> {
    pub inputs: Inputs<'a>,
    /// Outputs of the forward pass.
    pub outputs: &'a [Option<&'a Value>],
    /// Gradient of each output; `None` stands for zero.
    pub gradients: &'a mut [Option<Array<f32>>],
    /// Whether the gradient of each input is asked for.
    pub wanted: &'a [bool],
}

impl Back<'_> {
    /// The gradient of the first output.
    pub fn gradient(&self) -> Outcome<&Array<f32>> {
        match self.gradients.first() {
            Some(Some(gradient)) => Ok(gradient),
            _ => problem!("its gradient is missing"),
        }
    }

    /// Takes the gradient of the first output, whose memory can then become an input's.
    pub fn take_gradient(&mut self) -> Outcome<Array<f32>> {
        match self.gradients.first_mut().and_then(Option::take) {
            Some(gradient) => Ok(gradient),
            None => problem!("its gradient is missing"),
        }
    }

    /// The first output, which must hold floating-point numbers.
    pub fn output(&self) -> Outcome<&Array<f32>> {
        match self.outputs.first() {
            Some(Some(value)) => value.float(),
            _ => problem!("its output is missing"),
        }
    }

    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// Returns a list of gradients with `first` for the first input and none for the others.
    pub fn only(&self, first: Option<Array<f32>>) -> Vec<Option<Array<f32>>> {
        let mut all = vec![None; self.inputs.len()];
        if let Some(place) = all.first_mut() {
            *place = first;
        }
        all
    }
}

/// Builds the operator of a node; `None` if this crate does not know it.
pub(crate) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    type Builder = fn(&Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>>;
    const FAMILIES: [Builder; 19] = [
        relu::build,
        unary::build,
        arithmetic::build,
        logic::build,
        conv::build,
        matmul::build,
        norm::build,
        pool::build,
        reduce::build,
        cumsum::build,
        gather_nd::build,
        softmax::build,
        moves::build,
        join::build,
        scatter_nd::build,
        shape::build,
        resize::build,
        cast::build,
        quantize::build,
    ];
    for family in FAMILIES {
        if let Some(operator) = family(attributes)? {
            return Ok(Some(operator));
        }
    }
    Ok(None)
}

/// Names of every operator, for documentation and tests.
pub(crate) const NAMES: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Cos",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "ScatterND",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];
