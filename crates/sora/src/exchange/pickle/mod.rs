//! Reads a pickle without running it: a stack machine that knows containers, numbers and PyTorch's
//! tensors. The names of Python functions stay names, so no code runs. Unknown objects (settings,
//! schedulers, sparse or quantised tensors beside the weights) are kept as objects whose attributes
//! can be searched.

mod machine;
mod objects;
#[cfg(test)]
mod tests;

use std::{io::Read, sync::Arc};

use self::machine::Machine;

/// A description of a pickle's fault, as a part of a line.
pub(super) type Problem = String;

/// A value of a pickle; containers are [`Node`]s by number, which may be shared.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Int(i64),
    Text(Arc<str>),
    /// `module.name`.
    Global(Arc<str>),
    Node(usize),
    /// A number, bytes or another value that holds no tensor.
    Other,
}

/// A value that holds other values.
#[derive(Debug)]
pub(super) enum Node {
    /// A list, tuple, set or deque.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// An object of an unknown class: its items, if it is a subclass of dict or list, and its
    /// attributes.
    Object {
        items: Vec<(Value, Value)>,
        list: Vec<Value>,
        state: Option<Value>,
    },
    Storage(Storage),
    Tensor(Tensor),
}

/// A run of numbers in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Name of the storage in the file.
    pub(super) key: Arc<str>,
    /// Name of its type, `FloatStorage`, or of a dtype, `float8_e4m3fn`.
    pub(super) kind: Arc<str>,
    /// Number of elements, or of bytes where the storage has no type.
    pub(super) len: u64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    /// Offset in elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Strides in elements.
    pub(super) stride: Vec<usize>,
}

/// The values of one pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    pub(super) root: Value,
}

impl Pickle {
    /// Reads one pickle from `source` and leaves the source behind the pickle's end.
    pub(super) fn read(source: &mut impl Read) -> Result<Self, Problem> {
        let mut machine = Machine::new(source);
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root })
    }

    /// Every node.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The node of a value, if the value is a node.
    pub(super) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(index) => self.nodes.get(*index),
            _ => None,
        }
    }
}

/// A value as part of a name.
pub(super) fn text(value: &Value) -> Arc<str> {
    match value {
        Value::Text(text) | Value::Global(text) => text.clone(),
        Value::Int(number) => number.to_string().into(),
        Value::None => "None".into(),
        Value::Node(_) | Value::Other => "?".into(),
    }
}
