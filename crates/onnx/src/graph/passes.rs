//! The passes: all nodes forward, and the gradients back through them.

use std::collections::HashMap;

use super::{
    Fault, Graph, Id, Node,
    held::{Held, forget},
};
use crate::{
    buffers::recycle,
    ops::{Back, Inputs},
    value::{Array, Value, combine_into},
};

/// Values of a forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    values: Vec<Option<Value>>,
}

impl Pass {
    /// Number of floating-point values that the pass holds, each piece of memory counted once.
    pub fn elements(&self) -> usize {
        let arrays = self.values.iter().flatten().filter_map(|value| match value {
            Value::Float(array) => Some((array.as_ptr(), array.len())),
            _ => None,
        });
        arrays.collect::<HashMap<_, _>>().into_values().sum()
    }
}

impl Graph {
    /// Computes the output for `input`, with the values of the weights. The values that are held at
    /// once take `room` bytes at most.
    pub fn forward(&self, input: Value, weights: &[Value], room: u64) -> Result<Value, Fault> {
        let mut held = self.begin(input, weights, room)?;
        self.run(&mut held, |held, index, node| {
            for &id in node.inputs.iter().flatten().chain(&node.outputs) {
                if self.last_use[id] <= index {
                    held.release(id);
                }
            }
        })?;
        self.result(&held.values)
    }

    /// Does what [`forward`](Self::forward) does, and keeps all values that a pull-back needs.
    pub fn record(
        &self,
        input: Value,
        weights: &[Value],
        room: u64,
    ) -> Result<(Value, Pass), Fault> {
        let mut held = self.begin(input, weights, room)?;
        self.run(&mut held, |_, _, _| {})?;
        Ok((self.result(&held.values)?, Pass { values: held.values }))
    }

    /// Computes the nodes one after the other, and those together that are fused; calls `behind`
    /// behind each place.
    fn run(&self, held: &mut Held, behind: impl Fn(&mut Held, usize, &Node)) -> Result<(), Fault> {
        let mut done = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            match &node.fusion {
                _ if done[index] => {}
                Some(fusion) if self.compute_fused(node, fusion, held) => {
                    fusion.nodes().for_each(|node| done[node] = true);
                }
                _ => self.compute(node, held)?,
            }
            held.check().map_err(|e| node.fault(e))?;
            behind(held, index, node);
        }
        Ok(())
    }

    fn begin(&self, input: Value, weights: &[Value], room: u64) -> Result<Held, Fault> {
        if weights.len() != self.weights.len() {
            let (found, expected) = (weights.len(), self.weights.len());
            return Err(Fault::Graph(format!("{found} weights, expected {expected}")));
        }
        let mut held = Held::new(self.constants.len(), room);
        held.put(self.input, input);
        for (weight, value) in self.weights.iter().zip(weights) {
            weight.check(value)?;
            held.put_given(weight.id, value.clone());
        }
        Ok(held)
    }

    fn result(&self, values: &[Option<Value>]) -> Result<Value, Fault> {
        let found = values[self.output].as_ref().or(self.constants[self.output].as_ref());
        found.cloned().ok_or_else(|| Fault::Graph("the output was not computed".into()))
    }

    fn compute(&self, node: &Node, held: &mut Held) -> Result<(), Fault> {
        let find = |id: Id| held.values[id].as_ref().or(self.constants[id].as_ref());
        let results = node.run(find).map_err(|e| node.fault(e))?;
        for (&id, value) in node.outputs.iter().zip(results) {
            held.put(id, value);
        }
        Ok(())
    }

    /// Computes the gradient of `sum cotangent * output` by the input.
    pub fn pull_back(&self, pass: Pass, cotangent: Array<f32>) -> Result<Array<f32>, Fault> {
        let mut gradients = self.back(pass, cotangent, &self.smooth, &[self.input])?;
        gradients.remove(0).ok_or_else(|| {
            Fault::Graph("the output does not depend on the input in a smooth way".into())
        })
    }

    /// The input.
    pub fn input(&self) -> Id {
        self.input
    }

    /// Computes the gradients of `sum cotangent * output` by the values `targets`; `None` stands for
    /// zero. `smooth` is what depends on them ([`reached_from`](Self::reached_from)).
    pub fn back(
        &self,
        mut pass: Pass,
        cotangent: Array<f32>,
        smooth: &[bool],
        targets: &[Id],
    ) -> Result<Vec<Option<Array<f32>>>, Fault> {
        let mut gradients: Vec<Option<Array<f32>>> = vec![None; self.constants.len()];
        gradients[self.output] = Some(cotangent);
        for node in self.nodes.iter().rev() {
            let reached = node.outputs.iter().any(|&id| gradients[id].is_some());
            let wanted: Vec<bool> =
                node.inputs.iter().map(|id| id.is_some_and(|id| smooth[id])).collect();
            if !reached || !node.operator.is_differentiable() || !wanted.contains(&true) {
                continue;
            }
            let mut of_outputs: Vec<_> =
                node.outputs.iter().map(|&id| gradients[id].take()).collect();
            let find = |id: Id| pass.values[id].as_ref().or(self.constants[id].as_ref());
            let inputs: Vec<_> = node.inputs.iter().map(|id| id.and_then(find)).collect();
            let outputs: Vec<_> = node.outputs.iter().map(|&id| find(id)).collect();
            let mut back = Back {
                inputs: Inputs(&inputs),
                outputs: &outputs,
                gradients: &mut of_outputs,
                wanted: &wanted,
            };
            let pulled = node.operator.backward(&mut back).map_err(|e| node.fault(e))?;
            for (id, gradient) in node.inputs.iter().zip(pulled) {
                if let (Some(id), Some(gradient)) = (*id, gradient)
                    && smooth[id]
                {
                    gradients[id] = Some(match gradients[id].take() {
                        Some(sum) => {
                            let sum = combine_into(sum, &gradient, |a, b| a + b);
                            recycle(gradient);
                            sum.map_err(|e| node.fault(e))?
                        }
                        None => gradient,
                    });
                }
            }
            of_outputs.into_iter().flatten().for_each(recycle);
            // No node before this one reads its outputs.
            node.outputs.iter().filter_map(|&id| pass.values[id].take()).for_each(forget);
        }
        Ok(targets.iter().map(|&id| gradients[id].take()).collect())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        file::Model,
        graph::Numbers,
        proto::{GraphProto, ModelProto, NodeProto, TensorProto, data_type},
        value::zeros,
    };

    /// Numbers of a large value, and their bytes.
    const SIDE: usize = 1024;
    const LARGE: u64 = 4 * SIDE as u64;

    /// The graph from `x` to `y` of nodes that are each an operator, its inputs and its output; `side`
    /// is the shape of a large value.
    fn graph(lines: &[String]) -> Graph {
        let node = |line: &String| {
            let mut words = line.split(' ').map(str::to_owned);
            let op_type = words.next().unwrap();
            let mut input: Vec<String> = words.collect();
            let output = vec![input.pop().unwrap()];
            NodeProto { op_type, input, output, ..NodeProto::default() }
        };
        let side = TensorProto {
            name: "side".into(),
            dims: vec![1],
            data_type: data_type::INT64,
            int64_data: vec![SIDE as i64],
            ..TensorProto::default()
        };
        let graph = GraphProto {
            node: lines.iter().map(node).collect(),
            initializer: vec![side],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let model = Model::parse(&model.encode_to_vec(), None).unwrap();
        match Graph::build(&model, 13, ["x", "y"], Numbers::Constant) {
            Ok(graph) => graph,
            Err(_) => panic!("{lines:?}"),
        }
    }

    fn number() -> Value {
        Value::Float(zeros(&[1]))
    }

    #[test]
    fn values_that_wait_for_one_node_share_a_room() {
        let each = |i: usize| [format!("Expand x side e{i}"), format!("Exp e{i} f{i}")];
        let mut lines: Vec<String> = (0..16).flat_map(each).collect();
        let waiting: Vec<String> = (0..16).map(|i| format!("f{i}")).collect();
        lines.push(format!("Sum {} y", waiting.join(" ")));
        let graph = graph(&lines);
        // The sixteen and their sum.
        assert!(graph.forward(number(), &[], 17 * LARGE).is_ok());
        for room in [17 * LARGE - 1, 8 * LARGE] {
            match graph.forward(number(), &[], room) {
                Err(Fault::Node { operator, problem, .. }) => {
                    assert!(
                        operator.starts_with("Exp") && problem.contains("at once"),
                        "{problem}"
                    );
                }
                _ => panic!("{room} bytes are enough"),
            }
        }
    }

    #[test]
    fn a_record_needs_room_for_all_values() {
        let each = |i: usize| format!("Tanh v{i} v{}", i + 1);
        let mut lines = vec!["Expand x side v0".to_owned()];
        lines.extend((0..16).map(each));
        lines.push("Neg v16 y".into());
        let graph = graph(&lines);
        assert!(graph.forward(number(), &[], 2 * LARGE).is_ok());
        assert!(graph.record(number(), &[], 17 * LARGE).is_err());
        assert!(graph.record(number(), &[], 18 * LARGE + 4).is_ok(), "and the number");
    }
}
