//! Which numbers of a file are weights: what training changes, and the statistics beside it.
//!
//! A file does not say which of its numbers were trained. Taken as trained are the floating-point
//! initializers of more than one element on which the output depends smoothly, and single ones that
//! a layer reads as its weight or bias. Left as they are: statistics of batch norm, options given as
//! inputs (bounds, scales of a resize or a quantisation, exponents), what a sum or a product
//! with the images themselves takes, which normalises them, and what is not finite (masks).

use super::{Graph, Id, Node};
use crate::{
    error::{Outcome, problem},
    graph::Fault,
    proto::{TensorProto, data_type},
    value::{Value, elements, to_shape},
};

/// Most elements of all weights together whose numbers are left out; it bounds what a hostile
/// structure can take (2 GiB of f32).
const LEFT_OUT: usize = 1 << 29;

/// Whether the weights are constants of the graph or are given with each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    Constant,
    Given,
}

/// A tensor that is given with each pass.
#[derive(Debug)]
pub(crate) struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    pub id: Id,
    /// Whether training changes it; if not, it is a statistic of batch norm.
    pub trained: bool,
    /// The value in the file, if it has one.
    pub value: Option<Value>,
}

/// A floating-point initializer, of which it is not known yet whether it is a weight.
pub(super) struct Candidate {
    name: String,
    shape: Vec<usize>,
    id: Id,
    value: Option<Value>,
}

impl Candidate {
    pub fn new(tensor: &TensorProto, id: Id, value: Option<Value>) -> Outcome<Self> {
        let shape = to_shape(&tensor.dims)?;
        elements(&shape)?;
        Ok(Self { name: tensor.name.clone(), shape, id, value })
    }
}

/// Whether `tensor` holds floating-point numbers.
pub(crate) fn is_float(tensor: &TensorProto) -> bool {
    matches!(
        tensor.data_type,
        data_type::FLOAT | data_type::DOUBLE | data_type::FLOAT16 | data_type::BFLOAT16
    )
}

/// Whether `tensor` has a shape of floating-point numbers but holds none of them.
pub(crate) fn is_left_out(tensor: &TensorProto) -> bool {
    is_float(tensor)
        && tensor.data_location == 0
        && tensor.raw_data.is_empty()
        && tensor.float_data.is_empty()
        && tensor.double_data.is_empty()
        && tensor.int32_data.is_empty()
        && !tensor.dims.contains(&0)
}

/// Whether a value holds numbers that training can change: the masks of transformers hold infinities.
fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(value) => value.iter().all(|v| v.is_finite()),
        _ => true,
    }
}

/// What the input `index` of an operator is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A weight or a bias, whatever its size.
    Weight,
    /// A statistic that was measured.
    Statistic,
    /// An option.
    Option,
    /// A sum or a product with the images, which normalises them.
    Images,
    /// Anything else.
    Operand,
}

fn use_of(kind: &str, index: usize) -> Use {
    match (kind, index) {
        ("BatchNormalization", 3 | 4) => Use::Statistic,
        ("Resize" | "Clip" | "QuantizeLinear" | "DequantizeLinear", 1..)
        | ("Pad", 2..)
        | ("Upsample" | "Pow", 1) => Use::Option,
        (
            "Conv"
            | "Gemm"
            | "MatMul"
            | "PRelu"
            | "BatchNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "InstanceNormalization",
            1..,
        ) => Use::Weight,
        _ => Use::Operand,
    }
}

impl Graph {
    /// Sorts the candidates into weights and constants.
    pub(super) fn choose_weights(&mut self, candidates: Vec<Candidate>) -> Result<(), Fault> {
        let open = candidates.iter().filter(|candidate| candidate.value.is_none());
        let open = open.map(|candidate| candidate.shape.iter().product::<usize>());
        if open.fold(0usize, usize::saturating_add) > LEFT_OUT {
            return Err(Fault::Graph("its weights are too large".into()));
        }
        let (reaching, all_uses) = (self.reaching(), self.uses());
        for Candidate { name, shape, id, value } in candidates {
            let uses = &all_uses[id];
            let large = shape.iter().product::<usize>() > 1;
            let statistic = !uses.is_empty() && uses.iter().all(|&of| of == Use::Statistic);
            let trained = reaching[id]
                && uses.iter().all(|of| matches!(of, Use::Weight | Use::Operand))
                && (large || uses.contains(&Use::Weight))
                && value.as_ref().is_none_or(is_finite);
            if trained || statistic {
                self.weights.push(Weight { name, shape, id, trained, value });
            } else if value.is_some() {
                self.constants[id] = value;
            } else {
                return Err(Fault::Graph(format!("'{name}': it holds no numbers")));
            }
        }
        Ok(())
    }

    /// What each value is for, in the order of the nodes that read it.
    fn uses(&self) -> Vec<Vec<Use>> {
        let (pixels, mut reshaped) = (self.pixels(), vec![false; self.constants.len()]);
        let mut uses = vec![Vec::new(); self.constants.len()];
        for node in &self.nodes {
            let first = node.inputs.first().copied().flatten();
            // An exporter's group norm is an instance norm of a reshaped value, whose scale and shift
            // only stand in for those that follow.
            let stands_in =
                node.kind == "InstanceNormalization" && first.is_some_and(|id| reshaped[id]);
            let of_images = node.outputs.iter().any(|&id| pixels[id]);
            for (index, id) in node.inputs.iter().enumerate() {
                let Some(id) = *id else { continue };
                uses[id].push(match (stands_in, of_images) {
                    (true, _) => Use::Option,
                    (_, true) => Use::Images,
                    _ => use_of(&node.kind, index),
                });
            }
            if node.kind == "Reshape" {
                node.outputs.iter().for_each(|&id| reshaped[id] = true);
            }
        }
        uses
    }

    /// The values on which the output depends smoothly.
    fn reaching(&self) -> Vec<bool> {
        let mut reaching = vec![false; self.constants.len()];
        reaching[self.output] = true;
        for node in self.nodes.iter().rev().filter(|node| node.operator.is_differentiable()) {
            if node.outputs.iter().any(|&id| reaching[id]) {
                node.inputs.iter().flatten().for_each(|&id| reaching[id] = true);
            }
        }
        reaching
    }

    /// The values that are still images: the input and what is made of it pixel by pixel.
    fn pixels(&self) -> Vec<bool> {
        let mut pixels = vec![false; self.constants.len()];
        pixels[self.input] = true;
        for node in &self.nodes {
            if is_pixelwise(node) && node.inputs.iter().flatten().any(|&id| pixels[id]) {
                node.outputs.iter().for_each(|&id| pixels[id] = true);
            }
        }
        pixels
    }

    /// Whether the graph begins with sums or products of the images and constants.
    pub fn normalises(&self) -> bool {
        let pixels = self.pixels();
        let known = |id: Id| self.constants[id].is_some();
        self.nodes.iter().any(|node| {
            is_arithmetic(node)
                && node.outputs.iter().any(|&id| pixels[id])
                && node.inputs.iter().flatten().any(|&id| known(id))
        })
    }

    /// Number of batch norms.
    pub fn batch_norms(&self) -> usize {
        self.nodes.iter().filter(|node| node.kind == "BatchNormalization").count()
    }
}

fn is_arithmetic(node: &Node) -> bool {
    matches!(&*node.kind, "Add" | "Sub" | "Mul" | "Div")
}

fn is_pixelwise(node: &Node) -> bool {
    is_arithmetic(node)
        || matches!(
            &*node.kind,
            "Identity" | "Cast" | "CastLike" | "Transpose" | "Slice" | "Concat"
        )
}

/// Numbers given with a pass.
impl Weight {
    /// Checks that `value` has this weight's shape.
    pub fn check(&self, value: &Value) -> Outcome<()> {
        if value.shape() != self.shape {
            problem!("'{}': shape {:?}, expected {:?}", self.name, value.shape(), self.shape);
        }
        Ok(())
    }
}
