//! The options of a node, read with their defaults.

use std::collections::HashMap;

use crate::{
    error::{Outcome, problem},
    file,
    proto::{AttributeProto, NodeProto, attribute_type},
    value::Value,
};

/// The options and the operator set from which an operator is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    node: &'a NodeProto,
    /// Version of the operator set that the file asks for.
    pub opset: i64,
    /// Element types of the constants, by the name of the value.
    types: &'a HashMap<String, i32>,
}

impl<'a> Attributes<'a> {
    pub fn new(node: &'a NodeProto, opset: i64, types: &'a HashMap<String, i32>) -> Self {
        Self { node, opset, types }
    }

    /// The operator's name.
    pub fn kind(&self) -> &'a str {
        &self.node.op_type
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.node.output.len()
    }

    /// Whether a value but the first is given; one that is left out has an empty name.
    pub fn gives_more_than_one(&self) -> bool {
        self.node.output.iter().skip(1).any(|name| !name.is_empty())
    }

    /// `TensorProto.DataType` of an input; `None` if the input is not a constant.
    pub fn data_type(&self, input: usize) -> Option<i32> {
        self.types.get(self.node.input.get(input)?).copied()
    }

    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.find(name).map_or(default, |attribute| attribute.i)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.find(name).map_or(default, |attribute| attribute.f)
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.find(name).map_or_else(
            || default.to_owned(),
            |attribute| String::from_utf8_lossy(&attribute.s).into_owned(),
        )
    }

    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.find(name).map(|attribute| attribute.ints.clone())
    }

    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.find(name).map(|attribute| attribute.floats.clone())
    }

    /// Reads a list of non-negative whole numbers, or `default` if the attribute is absent.
    pub fn sizes(&self, name: &str, default: &[usize]) -> Outcome<Vec<usize>> {
        let Some(ints) = self.ints(name) else { return Ok(default.to_vec()) };
        let sizes: Option<Vec<usize>> =
            ints.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v <= 1 << 24)).collect();
        match sizes {
            Some(sizes) => Ok(sizes),
            None => problem!("{name} = {ints:?}: expected numbers from 0 to 2^24"),
        }
    }

    /// Reads a tensor, such as the content of a Constant.
    pub fn tensor(&self, name: &str) -> Outcome<Option<Value>> {
        match self.find(name).and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) => file::tensor(tensor, None).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the attribute exists and has this type.
    pub fn has_type(&self, name: &str, kind: i32) -> bool {
        // Files of old programs leave the type out; the non-empty list of numbers then decides.
        self.find(name).is_some_and(|a| {
            a.r#type == kind
                || a.r#type == 0
                    && match kind {
                        attribute_type::FLOATS => !a.floats.is_empty(),
                        attribute_type::INTS => !a.ints.is_empty(),
                        _ => true,
                    }
        })
    }
}
