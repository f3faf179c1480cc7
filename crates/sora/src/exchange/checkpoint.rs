//! The tensors of a file that PyTorch wrote, or of a safetensors file, without reading more than is
//! asked for.
//!
//! A `.pt` file is a pickle. Its reader is a stack machine that knows dictionaries, lists, numbers
//! and tensors and nothing else: what a pickle would call in Python stays an unopened name, so no
//! code runs. It bounds nesting, copies and sizes by what the file holds.

use std::{fs::File, io::Read, ops::Range, path::Path, sync::Arc};

use burn::tensor::{bf16, f16};
use burn_store::pytorch::PytorchReader;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// Longest header of a safetensors file, the format's own bound.
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor in a file, not yet read.
#[derive(Debug)]
pub struct Entry {
    /// Name in the file; of nested dictionaries the keys, joined by dots.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    dtype: Kind,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Pytorch(Box<dyn Bytes>),
    Memory(Arc<Vec<u8>>, Range<usize>),
}

/// Reads a tensor's bytes from its checkpoint.
trait Bytes: std::fmt::Debug + Send {
    fn bytes(&self) -> std::io::Result<Vec<u8>>;
}

/// Types of numbers that weights come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// Counters and the like: listed, never weights.
    Other,
}

impl Entry {
    /// Number of elements; `None` where it is beyond what a machine can count.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether it holds floating-point numbers.
    pub fn is_float(&self) -> bool {
        self.dtype != Kind::Other
    }

    /// The values, in single precision.
    ///
    /// # Errors
    /// A file that is cut off or does not hold what it says; integers; values that are not finite.
    pub fn values(&self) -> Result<Vec<f32>> {
        let damaged = |what: String| {
            Error::input(format!("tensor '{}': {what}; is the file damaged?", self.name))
        };
        let bytes = match &self.source {
            Source::Pytorch(source) => {
                source.bytes().map_err(|e| damaged(one_line(&e.to_string())))?
            }
            Source::Memory(file, range) => file
                .get(range.clone())
                .ok_or_else(|| damaged("ends beyond the file".into()))?
                .to_vec(),
        };
        let values: Vec<f32> = match self.dtype {
            Kind::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Kind::F64 => {
                bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
            }
            Kind::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            Kind::Bf16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            Kind::Other => return Err(damaged("integers where weights are expected".into())),
        };
        if Some(values.len()) != self.len() {
            return Err(damaged(format!("{} values for the shape {:?}", values.len(), self.shape)));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::input(format!(
                "tensor '{}': holds {value}; expected finite weights",
                self.name
            )));
        }
        Ok(values)
    }
}

fn one_line(text: &str) -> String {
    let line: String = crate::config::one_line(text).chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(300) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

/// Every tensor of a `.pt`, `.pth` or `.safetensors` file, and the metadata that a safetensors file
/// has under `key`.
///
/// # Errors
/// A file that is neither, or is damaged.
pub fn read(path: &Path, key: &str) -> Result<(Vec<Entry>, Option<String>)> {
    let mut start = [0; 9];
    let read = File::open(path).and_then(|mut file| {
        let mut filled = 0;
        while filled < start.len() {
            match file.read(start.get_mut(filled..).unwrap_or_default())? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    });
    let filled = read.map_err(|e| Error::input(format!("cannot read {}: {e}", path.display())))?;
    let length = u64::from_le_bytes(*start.first_chunk().unwrap_or(&[0; 8]));
    if filled == start.len() && start.last() == Some(&b'{') && length <= LONGEST_HEADER {
        safetensors(path, key)
    } else {
        Ok((pytorch(path)?, None))
    }
}

fn safetensors(path: &Path, key: &str) -> Result<(Vec<Entry>, Option<String>)> {
    let wrong = |what: String| {
        Error::input(format!("{}: not a whole safetensors file ({what})", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let (header, metadata) =
        SafeTensors::read_metadata(&bytes).map_err(|e| wrong(one_line(&e.to_string())))?;
    let (bytes, data) = (Arc::new(bytes), 8 + header);
    let about = metadata.metadata().as_ref().and_then(|map| map.get(key)).cloned();
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let (from, to) = info.data_offsets;
        let dtype = match info.dtype {
            Dtype::F32 => Kind::F32,
            Dtype::F64 => Kind::F64,
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::Bf16,
            _ => Kind::Other,
        };
        let source =
            Source::Memory(bytes.clone(), data.saturating_add(from)..data.saturating_add(to));
        entries.push(Entry { name, shape: info.shape.clone(), dtype, source });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((entries, about))
}

struct Lazy<F>(F);

impl<F> std::fmt::Debug for Lazy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lazy")
    }
}

impl<F: Fn() -> std::io::Result<Vec<u8>> + Send> Bytes for Lazy<F> {
    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        (self.0)()
    }
}

fn pytorch(path: &Path) -> Result<Vec<Entry>> {
    let reader = PytorchReader::new(path).map_err(|e| {
        Error::input(format!(
            "{}: {}; expected a checkpoint that torch.save wrote, or a safetensors file",
            path.display(),
            one_line(&e.to_string())
        ))
    })?;
    let mut entries: Vec<Entry> = reader
        .into_tensors()
        .into_iter()
        .map(|(name, tensor)| {
            // The reader's type of numbers is not exported by name; the name it prints is.
            let dtype = match format!("{:?}", tensor.dtype()).as_str() {
                "F32" => Kind::F32,
                "F64" => Kind::F64,
                "F16" => Kind::F16,
                "BF16" => Kind::Bf16,
                _ => Kind::Other,
            };
            let shape = tensor.shape().to_vec();
            Entry {
                name,
                shape,
                dtype,
                source: Source::Pytorch(Box::new(Lazy(move || tensor.read()))),
            }
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
