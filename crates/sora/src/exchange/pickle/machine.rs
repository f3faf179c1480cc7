//! The operations of a pickle, one by one.

use std::{collections::HashMap, io::Read};

use super::{Node, Problem, Value, text};

/// Largest pickle in bytes that is read. The numbers of the tensors are not part of it.
const LARGEST: u64 = 256 << 20;
/// Most values that are kept at a time.
const MOST_NODES: usize = 1 << 24;

/// A stack machine over the operations of Python's pickle module.
pub(super) struct Machine<R> {
    source: std::io::Take<R>,
    pub(super) nodes: Vec<Node>,
    pub(super) stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// Number of values, sizes and bytes that operations have copied out of others, so that a
    /// short pickle cannot make much of little.
    pub(super) copied: usize,
}

impl<R: Read> Machine<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source: source.take(LARGEST),
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    pub(super) fn run(&mut self) -> Result<Value, Problem> {
        loop {
            let op = self.byte()?;
            if op == b'.' {
                return self.pop();
            }
            let kept = [self.nodes.len(), self.stack.len(), self.marks.len(), self.memo.len()];
            if kept.into_iter().any(|len| len > MOST_NODES) || self.copied > MOST_NODES {
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

    pub(super) fn push_node(&mut self, node: Node) {
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
                let global = format!("{}.{}", text(&module), text(&name));
                self.copied += global.len();
                self.stack.push(Value::Global(global.into()));
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

    pub(super) fn object(&mut self) {
        self.push_node(Node::Object { items: Vec::new(), list: Vec::new(), state: None });
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
