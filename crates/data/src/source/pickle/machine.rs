//! The opcodes of a pickle, and the values that they build.

use std::collections::HashMap;
use std::ops::Range;

/// Largest number of values at a time; the largest official file (CIFAR-100's training part) makes
/// about 200,000.
pub(super) const MAX_VALUES: usize = 1 << 20;

/// The index of a value in [`Machine::values`].
pub(super) type Id = usize;

#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Int(i64),
    /// Bytes or text: a range of the input.
    Text(Range<usize>),
    /// Text whose characters stand for bytes: Python 3 writes bytes this way in protocol 2.
    Latin1(Range<usize>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// An array's element type, such as `u1`.
    Type(Range<usize>),
    Array(Option<Array>),
    /// A value that the reader does not need, such as a floating-point number.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    Ndarray,
    Dtype,
    Reconstruct,
    FromBuffer,
    Encode,
}

#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) shape: Id,
    pub(super) element: Id,
    pub(super) data: Id,
}

/// A stack machine over the opcodes that build plain values.
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, values: vec![], stack: vec![], marks: vec![], memo: HashMap::new() }
    }

    /// Reads to the end mark and returns the value that is left on the stack.
    pub(super) fn run(&mut self) -> Result<Id, String> {
        loop {
            if self.values.len().max(self.stack.len()).max(self.marks.len()).max(self.memo.len())
                > MAX_VALUES
            {
                return Err(format!("a pickle of more than {MAX_VALUES} values"));
            }
            let opcode = self.byte()?;
            match opcode {
                // The arguments of PROTO and FRAME are not needed.
                0x80 => drop(self.byte()?),
                0x95 => {
                    self.take(8)?;
                }
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'N' => self.push(Value::None),
                b'}' => self.push(Value::Dict(vec![])),
                b']' => self.push(Value::List(vec![])),
                b')' => self.push(Value::Tuple(vec![])),
                0x88 => self.push(Value::Int(1)),
                0x89 => self.push(Value::Int(0)),
                b'K' => {
                    let n = self.number(1)?;
                    self.push(Value::Int(n as i64));
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.push(Value::Int(n as i64));
                }
                b'J' => {
                    let n = self.number(4)? as u32;
                    self.push(Value::Int(i64::from(n.cast_signed())));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other);
                }
                0x8a => self.long()?,
                b'U' | b'C' | 0x8c => self.text(1)?,
                b'T' | b'X' | b'B' => self.text(4)?,
                0x8d | 0x8e | 0x96 => self.text(8)?,
                b'q' => {
                    let key = self.number(1)? as u32;
                    self.memorize(key)?;
                }
                b'r' => {
                    let key = self.number(4)? as u32;
                    self.memorize(key)?;
                }
                0x94 => self.memorize(self.memo.len() as u32)?,
                b'h' => {
                    let key = self.number(1)? as u32;
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number(4)? as u32;
                    self.recall(key)?;
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items));
                }
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push(Value::Tuple(items));
                }
                b'l' => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items));
                }
                b'd' => {
                    let items = self.since_mark()?;
                    let pairs = pairs(&items)?;
                    self.push(Value::Dict(pairs));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend_list(&[item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.extend_list(&items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.extend_dict(&items)?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.extend_dict(&items)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) =
                        (self.value(module)?, self.value(name)?)
                    else {
                        return Err("a pickle that names a function by no text".into());
                    };
                    self.global(module.clone(), name.clone())?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    return Err(format!(
                        "a pickle with opcode {other:#04x}, which no CIFAR batch has"
                    ));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.input.get(self.at).copied().ok_or_else(|| self.ends())?;
        self.at += 1;
        Ok(byte)
    }

    fn ends(&self) -> String {
        format!("a pickle that breaks off after {} bytes", self.input.len())
    }

    fn take(&mut self, n: usize) -> Result<Range<usize>, String> {
        let end = self
            .at
            .checked_add(n)
            .filter(|&end| end <= self.input.len())
            .ok_or_else(|| self.ends())?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    /// A little-endian unsigned number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Result<u64, String> {
        let range = self.take(n)?;
        Ok(self.input[range].iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b)))
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), String> {
        let n = usize::try_from(self.number(length_bytes)?).map_err(|_| self.ends())?;
        let range = self.take(n)?;
        self.push(Value::Text(range));
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
        let n = usize::from(self.byte()?);
        let range = self.take(n)?;
        let bytes = &self.input[range];
        let mut wide = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
        let value = wide
            .get_mut(..n)
            .map(|low| low.copy_from_slice(bytes))
            .map(|()| i64::from_le_bytes(wide));
        self.push(value.map_or(Value::Other, Value::Int));
        Ok(())
    }

    fn line(&mut self) -> Result<Range<usize>, String> {
        let n =
            self.input[self.at..].iter().position(|&b| b == b'\n').ok_or_else(|| self.ends())?;
        let range = self.take(n)?;
        self.at += 1;
        Ok(range)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| "a pickle that takes from an empty stack".into())
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>, String> {
        let from =
            self.stack.len().checked_sub(n).ok_or("a pickle that takes from an empty stack")?;
        Ok(self.stack.split_off(from))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self
            .marks
            .pop()
            .filter(|&m| m <= self.stack.len())
            .ok_or("a pickle without a mark where one is needed")?;
        Ok(self.stack.split_off(mark))
    }

    fn memorize(&mut self, key: u32) -> Result<(), String> {
        let id = *self.stack.last().ok_or("a pickle that takes from an empty stack")?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self
            .memo
            .get(&key)
            .ok_or_else(|| format!("a pickle that recalls value {key}, which it never stored"))?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn value(&self, id: Id) -> Result<&Value, String> {
        self.values.get(id).ok_or_else(|| "a pickle that takes from an empty stack".into())
    }

    pub(super) fn int(&self, id: Id) -> Result<i64, String> {
        match self.value(id)? {
            Value::Int(n) => Ok(*n),
            _ => Err("no whole number".into()),
        }
    }

    fn extend_list(&mut self, items: &[Id]) -> Result<(), String> {
        match self.stack.last().and_then(|&id| self.values.get_mut(id)) {
            Some(Value::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("a pickle that appends to no list".into()),
        }
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let pairs = pairs(items)?;
        match self.stack.last().and_then(|&id| self.values.get_mut(id)) {
            Some(Value::Dict(dict)) => {
                dict.extend(pairs);
                Ok(())
            }
            _ => Err("a pickle that sets an item of no dictionary".into()),
        }
    }

    fn global(&mut self, module: Range<usize>, name: Range<usize>) -> Result<(), String> {
        let (module, name) = (&self.input[module], &self.input[name]);
        let global = match (module, name) {
            (b"numpy", b"ndarray") => Global::Ndarray,
            (b"numpy", b"dtype") => Global::Dtype,
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Global::Reconstruct
            }
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Global::FromBuffer,
            (b"_codecs", b"encode") => Global::Encode,
            _ => {
                let shown = |text: &[u8]| {
                    String::from_utf8_lossy(&text[..text.len().min(40)]).escape_debug().to_string()
                };
                return Err(format!(
                    "a pickle that asks for {}.{}, which was not run",
                    shown(module),
                    shown(name)
                ));
            }
        };
        self.push(Value::Global(global));
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), &Value::Global(function)) =
            (self.value(arguments)?, self.value(function)?)
        else {
            return Err("a pickle that calls what is no function".into());
        };
        let argument = |i: usize| {
            arguments.get(i).copied().ok_or("a pickle that calls NumPy without arguments")
        };
        let value = match function {
            Global::Reconstruct => Value::Array(None),
            Global::Dtype => match self.value(argument(0)?)? {
                Value::Text(name) => Value::Type(name.clone()),
                _ => return Err("an array with an element type that is no text".into()),
            },
            Global::FromBuffer => Value::Array(Some(Array {
                data: argument(0)?,
                element: argument(1)?,
                shape: argument(2)?,
            })),
            Global::Encode => match self.value(argument(0)?)? {
                Value::Text(text) => Value::Latin1(text.clone()),
                _ => return Err("bytes that are no text".into()),
            },
            Global::Ndarray => return Err("a pickle that calls what is no function".into()),
        };
        self.push(value);
        Ok(())
    }

    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let target = *self.stack.last().ok_or("a pickle that takes from an empty stack")?;
        match (self.value(target)?, self.value(state)?) {
            // The state of an element type gives its byte order, which single bytes do not have.
            (Value::Type(_), Value::Tuple(_)) => Ok(()),
            (Value::Array(_), Value::Tuple(state)) => {
                let [_, shape, element, fortran, data] = state[..] else {
                    return Err("an array with an unknown state".into());
                };
                if self.int(fortran)? != 0 {
                    return Err("an array in Fortran order".into());
                }
                self.values[target] = Value::Array(Some(Array { shape, element, data }));
                Ok(())
            }
            _ => Err("a pickle that sets the state of what has none".into()),
        }
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a pickle with a key without value".into())
    }
}
