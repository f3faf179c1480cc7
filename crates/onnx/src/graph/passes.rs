//! The passes: all nodes forward, and the gradients back through them.

use std::collections::HashMap;

use super::{Fault, Graph, Id, Node};
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
    /// Computes the output for `input`, with the values of the weights.
    pub fn forward(&self, input: Value, weights: &[Value]) -> Result<Value, Fault> {
        let mut values = self.begin(input, weights)?;
        self.run(&mut values, |values, index, node| {
            for &id in node.inputs.iter().flatten().chain(&node.outputs) {
                if self.last_use[id] <= index {
                    drop_value(&mut values[id]);
                }
            }
        })?;
        self.result(&values)
    }

    /// Does what [`forward`](Self::forward) does, and keeps all values that a pull-back needs.
    pub fn record(&self, input: Value, weights: &[Value]) -> Result<(Value, Pass), Fault> {
        let mut values = self.begin(input, weights)?;
        self.run(&mut values, |_, _, _| {})?;
        Ok((self.result(&values)?, Pass { values }))
    }

    /// Computes the nodes one after the other, and those together that are fused; calls `behind`
    /// behind each place.
    fn run(
        &self,
        values: &mut [Option<Value>],
        behind: impl Fn(&mut [Option<Value>], usize, &Node),
    ) -> Result<(), Fault> {
        let mut done = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            match &node.fusion {
                _ if done[index] => {}
                Some(fusion) if self.compute_fused(node, fusion, values) => {
                    fusion.nodes().for_each(|node| done[node] = true);
                }
                _ => self.compute(node, values)?,
            }
            behind(values, index, node);
        }
        Ok(())
    }

    fn begin(&self, input: Value, weights: &[Value]) -> Result<Vec<Option<Value>>, Fault> {
        if weights.len() != self.weights.len() {
            let (found, expected) = (weights.len(), self.weights.len());
            return Err(Fault::Graph(format!("{found} weights, expected {expected}")));
        }
        let mut values: Vec<Option<Value>> = vec![None; self.constants.len()];
        values[self.input] = Some(input);
        for (weight, value) in self.weights.iter().zip(weights) {
            weight.check(value)?;
            values[weight.id] = Some(value.clone());
        }
        Ok(values)
    }

    fn result(&self, values: &[Option<Value>]) -> Result<Value, Fault> {
        let found = values[self.output].as_ref().or(self.constants[self.output].as_ref());
        found.cloned().ok_or_else(|| Fault::Graph("the output was not computed".into()))
    }

    fn compute(&self, node: &Node, values: &mut [Option<Value>]) -> Result<(), Fault> {
        let find = |id: Id| values[id].as_ref().or(self.constants[id].as_ref());
        let results = node.run(find).map_err(|e| node.fault(e))?;
        for (&id, value) in node.outputs.iter().zip(results) {
            values[id] = Some(value);
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
            node.outputs.iter().for_each(|&id| drop_value(&mut pass.values[id]));
        }
        Ok(targets.iter().map(|&id| gradients[id].take()).collect())
    }
}

/// Drops a value that nothing reads any more.
fn drop_value(place: &mut Option<Value>) {
    if let Some(Value::Float(array)) = place.take() {
        recycle(array);
    }
}
