//! The head of a graph: the last layer, which has one row of weights a class.

use std::collections::HashMap;

use crate::{graph, proto::NodeProto};

/// A tensor of the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// Index among the weights.
    pub weight: usize,
    /// The axis of the classes.
    pub axis: usize,
    /// Bound of PyTorch's initial values: the inverse root of the number of inputs of a class.
    pub bound: f32,
}

/// Finds the tensors of the layer that gives `output`, which has `classes` values an image; none
/// where the last layer is not a matrix product or a convolution.
pub(super) fn find(
    nodes: &[NodeProto],
    output: &str,
    weights: &[graph::Weight],
    classes: usize,
) -> Vec<Part> {
    let made = nodes.iter().flat_map(|node| node.output.iter().map(move |out| (&**out, node)));
    let named = weights.iter().enumerate().map(|(index, weight)| (&*weight.name, index));
    let head = Search { made: made.collect(), named: named.collect(), weights };
    let Some((layer, bias)) = head.layer(output) else { return Vec::new() };
    let weight = layer.input.get(1).and_then(|name| head.weight(name, head.axis(layer)));
    let Some((weight, axis)) = weight.filter(|(index, axis)| {
        let shape = &weights[*index].shape;
        shape.get(*axis) == Some(&classes)
    }) else {
        return Vec::new();
    };
    let inputs = weights[weight].shape.iter().product::<usize>() / classes.max(1);
    let bound = (inputs.max(1) as f32).sqrt().recip();
    let own = layer.input.get(2).map(String::as_str);
    let bias = own.into_iter().chain(bias).filter_map(|name| {
        let index = *head.named.get(name).filter(|&&index| weights[index].trained)?;
        let shape = &weights[index].shape;
        let last = shape.len().checked_sub(1)?;
        let fits = shape[last] == classes && shape[..last].iter().all(|&side| side == 1);
        fits.then_some(Part { weight: index, axis: last, bound })
    });
    [Part { weight, axis, bound }].into_iter().chain(bias).collect()
}

struct Search<'a> {
    /// The node that gives each value.
    made: HashMap<&'a str, &'a NodeProto>,
    /// Index of each weight.
    named: HashMap<&'a str, usize>,
    weights: &'a [graph::Weight],
}

impl<'a> Search<'a> {
    /// The layer before `output`, and the bias that is added to its result, if one is.
    fn layer(&self, output: &str) -> Option<(&'a NodeProto, Option<&'a str>)> {
        let (mut name, mut bias) = (output, None);
        // A damaged file may lead in a circle.
        for _ in 0..self.made.len() {
            let node = *self.made.get(name)?;
            match node.op_type.as_str() {
                "Gemm" | "MatMul" | "Conv" => return Some((node, bias)),
                "Add" => {
                    let is_weight = |name: &str| self.named.contains_key(name);
                    let [a, b] = node.input.first_chunk()?;
                    let (value, added) = if is_weight(a) { (b, a) } else { (a, b) };
                    (name, bias) = (value.as_str(), Some(added.as_str()));
                }
                "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Dropout" | "Relu"
                | "GlobalAveragePool" | "AveragePool" | "ReduceMean" => {
                    name = node.input.first()?
                }
                _ => return None,
            }
        }
        None
    }

    /// The axis of the classes of a layer's second input.
    fn axis(&self, layer: &NodeProto) -> usize {
        let turned = layer.attribute.iter().any(|a| a.name == "transB" && a.i != 0);
        usize::from(layer.op_type != "Conv" && !turned)
    }

    /// The trained tensor that the value `name` is, itself or transposed, and its axis that is the
    /// value's `axis`.
    fn weight(&self, name: &'a str, axis: usize) -> Option<(usize, usize)> {
        let (mut name, mut axis) = (name, axis);
        for _ in 0..=self.made.len() {
            if let Some(&index) = self.named.get(name).filter(|&&index| self.weights[index].trained)
            {
                return Some((index, axis));
            }
            let node = self.made.get(name).filter(|node| node.op_type == "Transpose")?;
            let order = node.attribute.iter().find(|a| a.name == "perm").map(|a| &a.ints[..]);
            axis = match order {
                Some(order) => usize::try_from(*order.get(axis)?).ok()?,
                None => 1 - axis.min(1),
            };
            name = node.input.first()?;
        }
        None
    }
}
