//! Reads files: the model's bytes, and tensors inside the model and beside it.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use half::{bf16, f16};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Outcome, Problem, Result, problem},
    proto::{ModelProto, TensorProto, data_type},
    value::{Value, array, elements},
};

/// Largest model file in bytes, without data beside it: the format's own limit.
const LARGEST: u64 = 2 << 30;

/// A model, and the place of the data beside it.
pub(crate) struct Model {
    pub proto: ModelProto,
    pub beside: Beside,
}

/// The folder of a model, with the data files that its tensors name.
pub(crate) struct Beside {
    /// `None`: there is none.
    folder: Option<PathBuf>,
    digest: std::cell::RefCell<Sha256>,
}

impl Model {
    /// Reads the file `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
        let size = fs::metadata(path).map_err(io)?.len();
        if size > LARGEST {
            return Err(damaged(format!("{size} bytes; an ONNX file has at most 2 GiB")));
        }
        let bytes = fs::read(path).map_err(io)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&bytes, Some(folder)).map_err(damaged)
    }

    /// Reads the bytes of a file; data beside it are in `folder`.
    ///
    /// # Errors
    /// Bytes that are no ONNX model; what is wrong.
    pub fn parse(bytes: &[u8], folder: Option<PathBuf>) -> Result<Self, String> {
        let proto = ModelProto::decode(bytes).map_err(|e| format!("not an ONNX model: {e}"))?;
        let digest = std::cell::RefCell::new(Sha256::new_with_prefix(bytes));
        Ok(Self { proto, beside: Beside { folder, digest } })
    }
}

impl Beside {
    /// Reads the bytes `offset` to `offset + length` of the file `location`.
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Outcome<Vec<u8>> {
        let relative = Path::new(location);
        // A model must not make its reader open files in other folders.
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            problem!("its data lies in '{location}': expected a file beside the model");
        }
        let Some(folder) = &self.folder else {
            problem!("its data lies in '{location}': expected a model that holds all of it");
        };
        let path = folder.join(relative);
        let failed = |e: std::io::Error| Problem::new(format!("{}: {e}", path.display()));
        let mut file = File::open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            problem!("{}: {size} bytes, its data ends at {offset} + {length}", path.display());
        }
        let mut bytes = vec![0; length as usize];
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        self.digest.borrow_mut().update(&bytes);
        Ok(bytes)
    }

    /// SHA-256 of the model's bytes and of the data that was read beside it, in hexadecimal.
    pub fn digest(&self) -> String {
        let digest = self.digest.borrow().clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads the content of a tensor.
pub(crate) fn tensor(tensor: &TensorProto, beside: Option<&Beside>) -> Outcome<Value> {
    let shape = crate::value::to_shape(&tensor.dims)?;
    let count = elements(&shape)?;
    let raw = match (tensor.data_location, beside) {
        (0, _) => tensor.raw_data.clone(),
        (1, Some(beside)) => external(tensor, beside)?,
        _ => problem!("data outside the file in a place where none can be"),
    };
    let content = content(tensor, &raw)?;
    let len = match &content {
        Content::Float(data) => data.len(),
        Content::Int(data) => data.len(),
        Content::Bool(data) => data.len(),
    };
    if len != count {
        problem!("{len} numbers for shape {shape:?}");
    }
    Ok(match content {
        Content::Float(data) => Value::Float(array(&shape, data)?),
        Content::Int(data) => Value::Int(array(&shape, data)?),
        Content::Bool(data) => Value::Bool(array(&shape, data)?),
    })
}

enum Content {
    Float(Vec<f32>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
}

/// Reads the bytes of a tensor that lie beside the file.
pub(crate) fn external(tensor: &TensorProto, beside: &Beside) -> Outcome<Vec<u8>> {
    let find = |key: &str| {
        tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    };
    let number = |key: &str| match find(key).map(|text| text.parse::<u64>()) {
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => problem!("its data's {key} is no number"),
        None => Ok(None),
    };
    let Some(location) = find("location") else { problem!("data in a file without a name") };
    beside.read(location, number("offset")?.unwrap_or(0), number("length")?)
}

/// Reads the elements from the bytes if there are any, else from the typed lists.
fn content(tensor: &TensorProto, raw: &[u8]) -> Outcome<Content> {
    let from_bytes = !raw.is_empty();
    let ints = || tensor.int32_data.iter();
    macro_rules! parse {
        ($type:ty, $map:expr) => {{
            const SIZE: usize = size_of::<$type>();
            if !raw.len().is_multiple_of(SIZE) {
                problem!("{} bytes are no whole number of elements", raw.len());
            }
            raw.as_chunks::<SIZE>().0.iter().map(|b| <$type>::from_le_bytes(*b)).map($map).collect()
        }};
    }
    Ok(match tensor.data_type {
        data_type::FLOAT if from_bytes => Content::Float(parse!(f32, |v| v)),
        data_type::FLOAT => Content::Float(tensor.float_data.clone()),
        data_type::DOUBLE if from_bytes => Content::Float(parse!(f64, |v| v as f32)),
        data_type::DOUBLE => Content::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        data_type::FLOAT16 if from_bytes => {
            Content::Float(parse!(u16, |v| f16::from_bits(v).to_f32()))
        }
        data_type::FLOAT16 => {
            Content::Float(ints().map(|&v| f16::from_bits(v as u16).to_f32()).collect())
        }
        data_type::BFLOAT16 if from_bytes => {
            Content::Float(parse!(u16, |v| bf16::from_bits(v).to_f32()))
        }
        data_type::BFLOAT16 => {
            Content::Float(ints().map(|&v| bf16::from_bits(v as u16).to_f32()).collect())
        }
        data_type::BOOL if from_bytes => Content::Bool(raw.iter().map(|&b| b != 0).collect()),
        data_type::BOOL => Content::Bool(ints().map(|&v| v != 0).collect()),
        data_type::INT64 if from_bytes => Content::Int(parse!(i64, |v| v)),
        data_type::INT64 => Content::Int(tensor.int64_data.clone()),
        data_type::UINT64 if from_bytes => Content::Int(parse!(u64, |v| v as i64)),
        data_type::UINT64 => Content::Int(tensor.uint64_data.iter().map(|&v| v as i64).collect()),
        data_type::UINT32 if from_bytes => Content::Int(parse!(u32, i64::from)),
        data_type::UINT32 => Content::Int(tensor.uint64_data.iter().map(|&v| v as i64).collect()),
        data_type::INT32 if from_bytes => Content::Int(parse!(i32, i64::from)),
        data_type::INT16 if from_bytes => Content::Int(parse!(i16, i64::from)),
        data_type::UINT16 if from_bytes => Content::Int(parse!(u16, i64::from)),
        data_type::INT8 if from_bytes => Content::Int(parse!(i8, i64::from)),
        data_type::UINT8 if from_bytes => Content::Int(raw.iter().map(|&b| i64::from(b)).collect()),
        data_type::INT32
        | data_type::INT16
        | data_type::UINT16
        | data_type::INT8
        | data_type::UINT8 => Content::Int(ints().map(|&v| i64::from(v)).collect()),
        other => problem!("elements of type {other} are not supported"),
    })
}
