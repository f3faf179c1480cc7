//! The tensors of a file that PyTorch wrote, or of a safetensors file. Only the requested tensors
//! are read.
//!
//! A `.pt` file is a pickle, which is read but never run (`pickle.rs`). The content of the file
//! bounds nesting, copies and sizes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use burn::tensor::{bf16, f16};
use burn_store::pytorch::PytorchReader;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// Longest header of a safetensors file in bytes, the format's own bound.
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor in a file whose values have not been read yet.
#[derive(Debug)]
pub struct StoredTensor {
    /// Name in the file; in nested dictionaries, the keys joined by dots.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    pub(super) dtype: Kind,
    pub(super) source: Source,
}

/// The place of a tensor's numbers.
#[derive(Debug)]
pub(super) enum Source {
    /// A file of PyTorch.
    File(Strided),
    /// A file from before PyTorch 0.4.
    Ancient(Box<dyn Bytes>),
    /// A safetensors file.
    Memory(Arc<Vec<u8>>, Range<usize>),
}

/// A view of numbers in a file.
#[derive(Debug, PartialEq)]
pub(super) struct Strided {
    pub(super) path: Arc<Path>,
    /// Offset of the storage in the file, in bytes.
    pub(super) start: u64,
    /// Length of the storage in bytes.
    pub(super) len: u64,
    /// Offset of the view in the storage, in elements.
    pub(super) offset: usize,
    /// Distance between neighbours in elements, one number per dimension.
    pub(super) stride: Vec<usize>,
}

/// Reads a tensor's bytes from its checkpoint.
pub(super) trait Bytes: std::fmt::Debug + Send {
    fn bytes(&self) -> std::io::Result<Vec<u8>>;
}

/// The number types of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// Counters, complex or quantised numbers and the like; they are listed but never taken as
    /// weights.
    Other,
}

impl Kind {
    /// Number of bytes of one number.
    fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other => 1,
        }
    }

    fn floats(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F64 => {
                bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
            }
            Self::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            Self::Bf16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            Self::Other => Vec::new(),
        }
    }
}

impl Strided {
    /// Reads the numbers of a tensor of `shape`, row by row.
    fn floats(&self, shape: &[usize], dtype: Kind) -> Result<Vec<f32>, String> {
        const BEYOND: &str = "reaches beyond its storage";
        let count = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
        let count = count.ok_or(BEYOND)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let reach = shape.iter().zip(&self.stride).try_fold(1usize, |reach, (&size, &stride)| {
            reach.checked_add(stride.checked_mul(size.saturating_sub(1))?)
        });
        let (first, reach) = (self.offset as u64, reach.ok_or(BEYOND)? as u64);
        let size = dtype.size() as u64;
        let end = first.checked_add(reach).and_then(|end| end.checked_mul(size)).ok_or(BEYOND)?;
        // A view that repeats its numbers must not take more memory than the storage has.
        if end > self.len || count as u64 > reach {
            return Err(BEYOND.into());
        }
        let mut file = File::open(&self.path).map_err(|e| e.to_string())?;
        file.seek(SeekFrom::Start(self.start + first * size)).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        let read = file.take(reach * size).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if read as u64 != reach * size {
            return Err("ends beyond the file".into());
        }
        let storage = dtype.floats(&bytes);
        if count as u64 == reach && self.is_row_major(shape) {
            return Ok(storage);
        }
        let mut values = Vec::with_capacity(count);
        let mut at = vec![0; shape.len()];
        for _ in 0..count {
            let index: usize = at.iter().zip(&self.stride).map(|(at, stride)| at * stride).sum();
            values.push(storage.get(index).copied().unwrap_or_default());
            for (at, &size) in at.iter_mut().zip(shape).rev() {
                *at += 1;
                if *at < size {
                    break;
                }
                *at = 0;
            }
        }
        Ok(values)
    }

    fn is_row_major(&self, shape: &[usize]) -> bool {
        let mut expected = 1;
        shape.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }
}

impl StoredTensor {
    /// Number of elements; `None` where it exceeds `usize`.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether the tensor holds floating-point numbers.
    pub fn is_float(&self) -> bool {
        self.dtype != Kind::Other
    }

    /// Whether the tensor has the same numbers of the same file as `other`, under another name.
    pub(super) fn is_alias_of(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Source::File(a), Source::File(b)) => a == b && self.shape == other.shape,
            _ => false,
        }
    }

    /// Reads the values in single precision.
    ///
    /// # Errors
    /// [`Error`] for a file that is cut off or contradicts its header, for integers, and for values
    /// that are not finite.
    pub fn values(&self) -> Result<Vec<f32>> {
        let damaged = |what: String| {
            Error::unfit(format!("tensor '{}'", self.name), format!("{what}; is the file damaged?"))
        };
        if self.dtype == Kind::Other {
            return Err(damaged("no floating-point numbers where weights are expected".into()));
        }
        let values = match &self.source {
            Source::File(strided) => {
                strided.floats(&self.shape, self.dtype).map_err(|e| damaged(one_line(&e)))?
            }
            Source::Ancient(source) => {
                let bytes = source.bytes().map_err(|e| damaged(one_line(&e.to_string())))?;
                self.dtype.floats(&bytes)
            }
            Source::Memory(file, range) => {
                let bytes = file.get(range.clone());
                self.dtype.floats(bytes.ok_or_else(|| damaged("ends beyond the file".into()))?)
            }
        };
        if Some(values.len()) != self.len() {
            return Err(damaged(format!("{} values for the shape {:?}", values.len(), self.shape)));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            let problem = format!("holds {value}; expected finite weights");
            return Err(Error::unfit(format!("tensor '{}'", self.name), problem));
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

/// Lists every tensor of a `.pt`, `.pth` or `.safetensors` file, and the metadata that a
/// safetensors file has under `key`.
///
/// # Errors
/// [`Error`] for a file of neither format, or a damaged file.
pub fn read(path: &Path, key: &str) -> Result<(Vec<StoredTensor>, Option<String>)> {
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
    let filled = read.map_err(|e| Error::read(path, e))?;
    let length = u64::from_le_bytes(*start.first_chunk().unwrap_or(&[0; 8]));
    if filled == start.len() && start.last() == Some(&b'{') && length <= LONGEST_HEADER {
        safetensors(path, key)
    } else {
        Ok((pytorch(path)?, None))
    }
}

fn safetensors(path: &Path, key: &str) -> Result<(Vec<StoredTensor>, Option<String>)> {
    let wrong =
        |what: String| Error::damaged(path, format!("not a whole safetensors file ({what})"));
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
        entries.push(StoredTensor { name, shape: info.shape.clone(), dtype, source });
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

fn pytorch(path: &Path) -> Result<Vec<StoredTensor>> {
    let wrong = |what: String| {
        let what = one_line(&what);
        let problem =
            format!("{what}; expected a checkpoint that torch.save wrote, or a safetensors file");
        Error::damaged(path, problem)
    };
    match super::pytorch::read(path).map_err(wrong)? {
        Some(entries) => Ok(entries),
        None => ancient(path).map_err(wrong),
    }
}

/// Reads the tar format of PyTorch before 0.4, and plain pickles.
fn ancient(path: &Path) -> Result<Vec<StoredTensor>, String> {
    let reader = PytorchReader::new(path).map_err(|e| e.to_string())?;
    let mut entries: Vec<StoredTensor> = reader
        .into_tensors()
        .into_iter()
        .map(|(name, tensor)| {
            // The reader does not export its number type by name, but prints the name.
            let dtype = match format!("{:?}", tensor.dtype()).as_str() {
                "F32" => Kind::F32,
                "F64" => Kind::F64,
                "F16" => Kind::F16,
                "BF16" => Kind::Bf16,
                _ => Kind::Other,
            };
            let shape = tensor.shape().to_vec();
            StoredTensor {
                name,
                shape,
                dtype,
                source: Source::Ancient(Box::new(Lazy(move || tensor.read()))),
            }
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
