//! What the calls in a pickle of PyTorch's make: tensors, storages, dicts, and objects that nobody
//! asks for.

use std::io::Read;

use super::{Node, Storage, Tensor, Value, machine::Machine, text};

/// The last part of `module.name`.
fn last_name(global: &str) -> &str {
    global.rsplit('.').next().unwrap_or(global)
}

/// Whether a function rebuilds a tensor or a parameter itself, and does not call another, which
/// could go on for ever.
fn is_plain(function: &str) -> bool {
    let name = last_name(function);
    name.starts_with("_rebuild_tensor") || name.starts_with("_rebuild_parameter")
}

impl<R: Read> Machine<R> {
    /// The result of calling `class` with `args`.
    pub(super) fn call(&mut self, class: &Value, args: &Value) {
        let class = text(class);
        // No known call takes more arguments.
        let values: Vec<Value> = self.list(args).iter().take(10).cloned().collect();
        let name = last_name(&class);
        let made = match name {
            "OrderedDict" => {
                let pairs = self.listed_pairs(&values);
                self.copied += pairs.len();
                Some(Node::Dict(pairs))
            }
            _ if name.starts_with("_rebuild_tensor") => {
                let tensor = self.tensor(&values);
                self.copied += tensor.as_ref().map_or(0, |tensor| 2 * tensor.shape.len());
                tensor.map(Node::Tensor)
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
                return self.stack.push(values.first().cloned().unwrap_or(Value::Other));
            }
            "_rebuild_from_type_v2" | "_rebuild_from_type" => {
                let inner = if name.ends_with("v2") { values.get(2) } else { values.get(1) };
                return match (values.first(), inner) {
                    (Some(function @ Value::Global(called)), Some(inner)) if is_plain(called) => {
                        let (function, inner) = (function.clone(), inner.clone());
                        self.call(&function, &inner)
                    }
                    _ => self.object(),
                };
            }
            _ => None,
        };
        match made {
            Some(node) => self.push_node(node),
            None => self.object(),
        }
    }

    fn list(&self, value: &Value) -> &[Value] {
        match value {
            Value::Node(index) => match self.nodes.get(*index) {
                Some(Node::List(values)) => values,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The pairs of the list that `dict(list)` was called with.
    fn listed_pairs(&self, args: &[Value]) -> Vec<(Value, Value)> {
        let listed = args.first().map_or(&[][..], |list| self.list(list));
        let pair = |pair: &Value| match self.list(pair) {
            [key, value] => Some((key.clone(), value.clone())),
            _ => None,
        };
        listed.iter().filter_map(pair).collect()
    }

    /// A tensor from (storage, offset, shape, stride, ..); the third form names its type itself.
    fn tensor(&self, args: &[Value]) -> Option<Tensor> {
        let [Value::Node(storage), Value::Int(offset), shape, stride, rest @ ..] = args else {
            return None;
        };
        let Some(Node::Storage(storage)) = self.nodes.get(*storage) else { return None };
        let mut storage = storage.clone();
        if let Some(Value::Global(dtype)) = rest
            .iter()
            .find(|value| matches!(value, Value::Global(name) if name.starts_with("torch.")))
        {
            storage.kind = dtype.trim_start_matches("torch.").into();
        }
        let sizes = |list: &Value| -> Option<Vec<usize>> {
            let size = |value: &Value| match value {
                Value::Int(size) => usize::try_from(*size).ok(),
                _ => None,
            };
            self.list(list).iter().map(size).collect()
        };
        let (shape, stride) = (sizes(shape)?, sizes(stride)?);
        (shape.len() == stride.len()).then_some(())?;
        Some(Tensor { storage, offset: usize::try_from(*offset).ok()?, shape, stride })
    }

    /// Resolves a reference to outside of the pickle: a storage, or, in old files, a class with its
    /// source text.
    pub(super) fn persistent(&mut self, id: &Value) {
        let known = match self.list(id) {
            [Value::Text(kind), Value::Global(class), key, _, Value::Int(len), rest @ ..]
                if &**kind == "storage" =>
            {
                let name = last_name(class);
                // A part of another storage has (its name, its offset, its length). Old files name a
                // view of a storage by itself, but no file of PyTorch's own does.
                let whole = rest.first().is_none_or(|view| self.list(view).is_empty());
                whole
                    .then(|| Storage {
                        key: text(key),
                        kind: name.into(),
                        len: u64::try_from(*len).unwrap_or(0),
                    })
                    .map(Node::Storage)
            }
            [Value::Text(kind), class @ Value::Global(_), ..] if &**kind == "module" => {
                let class = class.clone();
                return self.stack.push(class);
            }
            _ => None,
        };
        match known {
            Some(node) => self.push_node(node),
            None => self.stack.push(Value::Other),
        }
    }
}
