//! Operators and constants of a graph that is written.

use std::collections::BTreeSet;

use sora_onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_type, data_type,
};

use crate::{
    error::Result,
    model::Model,
    nn::{HostTensor, ParamId},
};

/// A graph to which operators and constants are added.
pub(super) struct Writer<'a> {
    pub model: &'a Model,
    pub graph: GraphProto,
    /// Names of the constants so far.
    pub named: BTreeSet<String>,
}

impl Writer<'_> {
    /// Adds an operator with one output; returns the output's name.
    pub(super) fn op(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.graph.node.push(node(op, inputs, &[&name], &name, attribute));
        name
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        let raw_data = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, data_type::FLOAT, raw_data)
    }

    pub(super) fn integers(&mut self, name: &str, shape: &[usize], data: &[i64]) -> String {
        let raw_data = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, data_type::INT64, raw_data)
    }

    /// Adds a constant unless it exists; returns its name.
    fn constant(&mut self, name: &str, shape: &[usize], kind: i32, raw_data: Vec<u8>) -> String {
        if self.named.insert(name.to_owned()) {
            let dims = shape.iter().map(|&size| size as i64).collect();
            self.graph.initializer.push(TensorProto {
                dims,
                data_type: kind,
                name: name.into(),
                raw_data,
                ..TensorProto::default()
            });
        }
        name.to_owned()
    }

    pub(super) fn scalar(&mut self, value: f32) -> String {
        self.floats(&format!("constant_{value:e}"), &[], &[value])
    }

    pub(super) fn param(&self, id: ParamId) -> Result<HostTensor> {
        self.model.params.host(id.0)
    }

    pub(super) fn weight(&mut self, id: ParamId) -> Result<String> {
        let HostTensor { name, shape, data } = self.param(id)?;
        Ok(self.floats(&name, &shape, &data))
    }

    pub(super) fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let name =
            format!("shape_{}", shape.iter().map(i64::to_string).collect::<Vec<_>>().join("_"));
        let shape = self.integers(&name, &[shape.len()], shape);
        self.op("Reshape", &[x, &shape], vec![])
    }

    pub(super) fn transpose(&mut self, x: &str, perm: &[usize]) -> String {
        self.op("Transpose", &[x], vec![ints("perm", perm)])
    }
}

pub(super) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    name: &str,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        input: strings(inputs),
        output: strings(outputs),
        name: name.into(),
        op_type: op.into(),
        attribute,
        ..NodeProto::default()
    }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: attribute_type::INT, ..Default::default() }
}

pub(super) fn ints(name: &str, ints: &[usize]) -> AttributeProto {
    let ints = ints.iter().map(|&i| i as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..Default::default() }
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, r#type: attribute_type::FLOAT, ..Default::default() }
}
