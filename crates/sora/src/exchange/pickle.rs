//! Reads a pickle without running it: a stack machine that knows containers, numbers and PyTorch's
//! tensors. The names of Python functions stay names, so no code runs. Unknown objects (settings,
//! schedulers, sparse or quantised tensors beside the weights) are kept as objects whose attributes
//! can be searched.

use std::{collections::HashMap, io::Read, sync::Arc};

/// Largest pickle in bytes that is read. The numbers of the tensors are not part of it.
const LARGEST: u64 = 256 << 20;
/// Most values that are kept at a time.
const MOST_NODES: usize = 1 << 24;

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
        let mut machine = Machine {
            source: source.take(LARGEST),
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
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

struct Machine<R> {
    source: std::io::Take<R>,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// Number of values that calls have copied.
    copied: usize,
}

impl<R: Read> Machine<R> {
    fn run(&mut self) -> Result<Value, Problem> {
        loop {
            let op = self.byte()?;
            if op == b'.' {
                return self.pop();
            }
            if self.nodes.len().max(self.stack.len()).max(self.copied) > MOST_NODES {
                return Err("a pickle of too many values".into());
            }
            self.step(op)?;
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|_| "a pickle that is cut off".to_owned())?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.bytes::<1>()?[0])
    }

    /// Reads `len` bytes, which the file must hold. Memory grows with the bytes that are read, not
    /// with the length that is claimed.
    fn take(&mut self, len: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(len).read_to_end(&mut bytes);
        match read {
            Ok(read) if read as u64 == len => Ok(bytes),
            _ => Err("a pickle that is cut off".into()),
        }
    }

    fn text(&mut self, len: u64) -> Result<Value, Problem> {
        let bytes = self.take(len)?;
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into()))
    }

    fn line(&mut self) -> Result<String, Problem> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end().into()),
                byte => line.push(byte),
            }
        }
    }

    fn length4(&mut self) -> Result<u64, Problem> {
        Ok(u64::from(u32::from_le_bytes(self.bytes()?)))
    }

    fn length8(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn pop(&mut self) -> Result<Value, Problem> {
        if self.marks.last().is_some_and(|mark| self.stack.len() <= *mark) {
            return Err("a pickle that takes more than it has".into());
        }
        self.stack.pop().ok_or_else(|| "a pickle that takes more than it has".into())
    }

    fn top(&self) -> Result<Value, Problem> {
        self.stack.last().cloned().ok_or_else(|| "a pickle that takes more than it has".into())
    }

    /// Takes the values above the last mark, and the mark.
    fn marked(&mut self) -> Result<Vec<Value>, Problem> {
        let mark = self.marks.pop().ok_or("a pickle without a mark where one is needed")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn push_node(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Value::Node(self.nodes.len() - 1));
    }

    fn remember(&mut self, key: u64) -> Result<(), Problem> {
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), Problem> {
        let value = self.memo.get(&key).ok_or("a pickle that recalls what it has not said")?;
        self.stack.push(value.clone());
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), Problem> {
        let mut values = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        values.reverse();
        self.push_node(Node::List(values));
        Ok(())
    }

    fn number(&mut self, line: &str) -> u64 {
        line.trim().parse().unwrap_or(u64::MAX)
    }

    /// Runs one operation, by the numbers of Python's pickle module.
    fn step(&mut self, op: u8) -> Result<(), Problem> {
        match op {
            // Containers.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => self.stack.push(self.top()?),
            b')' | b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b'l' | b't' | 0x91 => {
                let values = self.marked()?;
                self.push_node(Node::List(values));
            }
            b'd' => {
                let values = self.marked()?;
                self.push_node(Node::Dict(pairs(values)));
            }
            0x85..=0x87 => self.tuple(usize::from(op - 0x84))?,
            b'a' => {
                let value = self.pop()?;
                self.extend(vec![value])?;
            }
            b'e' | 0x90 => {
                let values = self.marked()?;
                self.extend(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![(key, value)])?;
            }
            b'u' => {
                let values = self.marked()?;
                self.set_items(pairs(values))?;
            }
            // Memory.
            b'p' | b'g' => {
                let line = self.line()?;
                let key = self.number(&line);
                if op == b'p' { self.remember(key)? } else { self.recall(key)? }
            }
            b'q' | b'h' => {
                let key = u64::from(self.byte()?);
                if op == b'q' { self.remember(key)? } else { self.recall(key)? }
            }
            b'r' | b'j' => {
                let key = self.length4()?;
                if op == b'r' { self.remember(key)? } else { self.recall(key)? }
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            // Calls and classes.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.stack.push(Value::Global(format!("{}.{}", text(&module), text(&name)).into()));
            }
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.call(&class, &args);
            }
            0x92 => {
                let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(&class, &args);
            }
            b'i' => {
                self.line()?;
                self.line()?;
                self.marked()?;
                self.object();
            }
            b'o' => {
                self.marked()?;
                self.object();
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'P' => {
                self.line()?;
                self.stack.push(Value::Other);
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(&id);
            }
            _ => self.literal(op)?,
        }
        Ok(())
    }

    /// Operations that push one number or text, or nothing.
    fn literal(&mut self, op: u8) -> Result<(), Problem> {
        let value = match op {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Other,
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.bytes()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.bytes()?))),
            b'I' | b'L' => {
                let line = self.line()?;
                line.trim_end_matches('L').parse().map_or(Value::Other, Value::Int)
            }
            0x8a | 0x8b => {
                let len = if op == 0x8a { u64::from(self.byte()?) } else { self.length4()? };
                let bytes = self.take(len)?;
                long(&bytes)
            }
            b'F' => {
                self.line()?;
                Value::Other
            }
            b'G' => {
                self.bytes::<8>()?;
                Value::Other
            }
            b'S' => {
                let line = self.line()?;
                Value::Text(line.trim_matches(['\'', '"']).into())
            }
            b'V' => Value::Text(self.line()?.into()),
            b'U' | 0x8c => {
                let len = u64::from(self.byte()?);
                self.text(len)?
            }
            b'T' | b'X' => {
                let len = self.length4()?;
                self.text(len)?
            }
            0x8d => {
                let len = self.length8()?;
                self.text(len)?
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let len = match op {
                    b'C' => u64::from(self.byte()?),
                    b'B' => self.length4()?,
                    _ => self.length8()?,
                };
                self.take(len)?;
                Value::Other
            }
            0x82..=0x84 => {
                self.take(1 << (op - 0x82))?;
                Value::Other
            }
            0x80 => return self.byte().map(drop),
            0x95 => return self.bytes::<8>().map(drop),
            0x97 => Value::Other,
            0x98 => return Ok(()),
            _ => return Err(format!("no pickle of PyTorch's (operation {op:#04x})")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn target(&mut self) -> Result<Option<&mut Node>, Problem> {
        match self.top()? {
            Value::Node(index) => Ok(self.nodes.get_mut(index)),
            _ => Ok(None),
        }
    }

    fn extend(&mut self, values: Vec<Value>) -> Result<(), Problem> {
        if let Some(Node::List(list) | Node::Object { list, .. }) = self.target()? {
            list.extend(values);
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: Vec<(Value, Value)>) -> Result<(), Problem> {
        if let Some(Node::Dict(items) | Node::Object { items, .. }) = self.target()? {
            items.extend(pairs);
        }
        Ok(())
    }

    fn build(&mut self, new: Value) -> Result<(), Problem> {
        if let Some(Node::Object { state, .. }) = self.target()? {
            *state = Some(new);
        }
        Ok(())
    }

    fn object(&mut self) {
        self.push_node(Node::Object { items: Vec::new(), list: Vec::new(), state: None });
    }

    /// The result of calling `class` with `args`.
    fn call(&mut self, class: &Value, args: &Value) {
        let class = text(class);
        // No known call takes more arguments.
        let values: Vec<Value> = self.list(args).iter().take(10).cloned().collect();
        let name = class.rsplit('.').next().unwrap_or(&class);
        let made = match name {
            "OrderedDict" => {
                let pairs = self.listed_pairs(&values);
                self.copied += pairs.len();
                Some(Node::Dict(pairs))
            }
            _ if name.starts_with("_rebuild_tensor") => self.tensor(&values).map(Node::Tensor),
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
                return self.stack.push(values.first().cloned().unwrap_or(Value::Other));
            }
            "_rebuild_from_type_v2" | "_rebuild_from_type" => {
                let inner = if name.ends_with("v2") { values.get(2) } else { values.get(1) };
                return match (values.first(), inner) {
                    (Some(function @ Value::Global(called)), Some(inner))
                        if called.contains("_rebuild_tensor")
                            || called.contains("_rebuild_parameter") =>
                    {
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
    fn persistent(&mut self, id: &Value) {
        let known = match self.list(id) {
            [Value::Text(kind), Value::Global(class), key, _, Value::Int(len), rest @ ..]
                if &**kind == "storage" =>
            {
                let name = class.rsplit('.').next().unwrap_or(class);
                let view = match rest.first() {
                    // A part of another storage has (its name, its offset, its length).
                    Some(view @ Value::Node(_)) => self.list(view).to_vec(),
                    _ => Vec::new(),
                };
                // Old files name a view of a storage by itself, but no file of PyTorch's own does.
                view.is_empty()
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

fn pairs(values: Vec<Value>) -> Vec<(Value, Value)> {
    let mut values = values.into_iter();
    std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
}

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all.iter_mut().zip(bytes).for_each(|(all, byte)| *all = *byte);
    Value::Int(i64::from_le_bytes(all))
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
