//! A reader of the pickles that CIFAR's Python archives hold: a dictionary with one NumPy array of
//! bytes and a list of labels.
//!
//! A pickle is a program, but this reader never runs it. The reader knows only the opcodes that
//! build plain values; it records NumPy's array constructors by name and calls nothing; anything
//! else is an error. Strings and arrays stay ranges of the input and values are shared by number,
//! so that memory is bounded by a small multiple of the input's length. It reads protocols 2
//! (Python 2, the official archives) to 5. The opcodes: CPython's `Lib/pickletools.py`.

mod machine;

use machine::{Machine, Value};

/// The content of a batch file.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    /// Number of rows and columns of the array.
    pub shape: [usize; 2],
    /// The array's bytes.
    pub data: Vec<u8>,
    /// The list of labels.
    pub labels: Vec<i64>,
}

/// Reads a batch file, whose labels have the key `labels` or `fine_labels`. The error describes
/// what was found.
pub(crate) fn read_batch(input: &[u8]) -> Result<Batch, String> {
    let mut machine = Machine::new(input);
    let root = machine.run()?;
    let Value::Dict(pairs) = machine.value(root)? else {
        return Err("a pickle of something else than a dictionary".into());
    };
    let entry = |names: &[&str]| {
        let is_one = |text: &[u8]| names.iter().any(|name| name.as_bytes() == text);
        pairs.iter().find(|(key, _)| {
            matches!(machine.value(*key), Ok(Value::Text(range)) if is_one(&input[range.clone()]))
        })
    };
    let (_, data) = entry(&["data"]).ok_or("a pickle without 'data'")?;
    let (_, labels) =
        entry(&["labels", "fine_labels"]).ok_or("a pickle without 'labels' or 'fine_labels'")?;
    let Value::List(labels) = machine.value(*labels)? else {
        return Err("labels that are no list".into());
    };
    let labels = labels
        .iter()
        .map(|&id| machine.int(id))
        .collect::<Result<_, _>>()
        .map_err(|_| "a label that is no whole number")?;
    let Value::Array(Some(array)) = machine.value(*data)? else {
        return Err("'data' that is no NumPy array".into());
    };
    let Value::Type(element) = machine.value(array.element)? else {
        return Err("an array without element type".into());
    };
    let element = &input[element.clone()];
    if !matches!(element, b"u1" | b"|u1") {
        return Err(format!(
            "an array of '{}'",
            String::from_utf8_lossy(&element[..element.len().min(20)]).escape_debug()
        ));
    }
    let Value::Tuple(shape) = machine.value(array.shape)? else {
        return Err("an array without shape".into());
    };
    let [rows, columns] = shape[..] else {
        return Err(format!("an array of {} dimensions", shape.len()));
    };
    let size = |id| {
        machine
            .int(id)
            .ok()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or("an array with an impossible shape")
    };
    let shape = [size(rows)?, size(columns)?];
    let data = match machine.value(array.data)? {
        Value::Text(range) => input[range.clone()].to_vec(),
        Value::Latin1(range) => latin1(&input[range.clone()])?,
        _ => return Err("an array without data".into()),
    };
    if shape[0].checked_mul(shape[1]) != Some(data.len()) {
        return Err(format!("an array of {} x {} with {} bytes", shape[0], shape[1], data.len()));
    }
    Ok(Batch { shape, data, labels })
}

/// The characters of a UTF-8 text as bytes.
fn latin1(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")?;
    text.chars()
        .map(|c| u8::try_from(c).map_err(|_| "bytes with a character over 255".to_owned()))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
