//! Reads files: the model's bytes, and tensors inside the model and beside it.

use std::{
    cell::RefCell,
    collections::HashMap,
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

/// Most bytes that the tensors of a model take from all data files beside it.
const MOST_BESIDE: u64 = 32 << 30;
/// How many times the bytes of a data file may be taken: tensors may share them, and some are read
/// once more for the structure. It keeps what is read in proportion to the files.
const TIMES: u64 = 4;
/// Bytes of the widest element.
const WIDEST: u64 = 8;

/// A model, and the place of the data beside it.
pub(crate) struct Model {
    pub proto: ModelProto,
    pub beside: Beside,
}

/// The folder of a model, with the data files that its tensors name.
pub(crate) struct Beside {
    /// `None`: there is none.
    folder: Option<PathBuf>,
    digest: RefCell<Sha256>,
    /// Bytes that were taken from each data file.
    taken: RefCell<HashMap<PathBuf, u64>>,
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
        let digest = RefCell::new(Sha256::new_with_prefix(bytes));
        Ok(Self { proto, beside: Beside { folder, digest, taken: RefCell::default() } })
    }
}

impl Beside {
    /// Reads the bytes `offset` to `offset + length` of the file `location`, `most` bytes at most.
    fn read(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        most: u64,
    ) -> Outcome<Vec<u8>> {
        let path = self.find(location)?;
        let failed = |e: std::io::Error| Problem::new(format!("{}: {e}", path.display()));
        let mut file = File::open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            problem!("{}: {size} bytes, its data ends at {offset} + {length}", path.display());
        }
        if length > most {
            problem!("{}: {length} bytes for its shape, at most {most} fit it", path.display());
        }
        self.take(&path, size, length)?;
        let mut bytes = vec![0; length as usize];
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        self.digest.borrow_mut().update(&bytes);
        Ok(bytes)
    }

    /// The file `location`, without links. A model must not make its reader open files in other
    /// folders, by a name or by a link.
    fn find(&self, location: &str) -> Outcome<PathBuf> {
        let relative = Path::new(location);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            problem!("its data lies in '{location}': expected a file beside the model");
        }
        let Some(folder) = &self.folder else {
            problem!("its data lies in '{location}': expected a model that holds all of it");
        };
        // The folder of a bare file name is the empty path.
        let folder = Path::new(".").join(folder);
        let real = |path: &Path| {
            let failed = |e: std::io::Error| Problem::new(format!("{}: {e}", path.display()));
            fs::canonicalize(path).map_err(failed)
        };
        let (file, folder) = (real(&folder.join(relative))?, real(&folder)?);
        if !file.starts_with(&folder) {
            problem!(
                "its data '{location}' is a link to {}, which lies outside of the model's folder {}: \
                 put a copy of that file in the place of the link",
                file.display(),
                folder.display()
            );
        }
        if !file.is_file() {
            problem!("its data lies in '{location}', which is no file");
        }
        Ok(file)
    }

    /// Counts `length` more bytes of the data file `path` of `size` bytes.
    fn take(&self, path: &Path, size: u64, length: u64) -> Outcome<()> {
        let mut taken = self.taken.borrow_mut();
        let of_file = taken.entry(path.to_owned()).or_default();
        *of_file = of_file.saturating_add(length);
        if *of_file > size.saturating_mul(TIMES) {
            problem!(
                "{}: the tensors take more than {TIMES} times its {size} bytes; expected data of \
                 their own for each",
                path.display()
            );
        }
        if taken.values().fold(0, |all: u64, of_file| all.saturating_add(*of_file)) > MOST_BESIDE {
            problem!("the data beside the model: more than {} GiB", MOST_BESIDE >> 30);
        }
        Ok(())
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
    // The length is believed only as far as the shape goes.
    let most = elements(&crate::value::to_shape(&tensor.dims)?)? as u64 * WIDEST;
    beside.read(location, number("offset")?.unwrap_or(0), number("length")?, most)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::StringStringEntryProto;

    /// A folder with the file `w.bin` of `count` numbers from 0, for a model in it.
    fn folder(count: usize) -> (tempfile::TempDir, Beside) {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..count).flat_map(|v| (v as f32).to_le_bytes()).collect();
        fs::write(dir.path().join("w.bin"), bytes).unwrap();
        let model = Model::parse(&[], Some(dir.path().to_owned())).unwrap();
        (dir, model.beside)
    }

    /// Reads a tensor of `count` numbers in the file `location`.
    fn read(
        beside: &Beside,
        location: &str,
        count: i64,
        place: &[(&str, u64)],
    ) -> Result<Value, String> {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        let mut external_data = vec![entry("location", location.into())];
        external_data.extend(place.iter().map(|&(key, value)| entry(key, value.to_string())));
        let proto = TensorProto {
            dims: vec![count],
            data_type: data_type::FLOAT,
            data_location: 1,
            external_data,
            ..TensorProto::default()
        };
        tensor(&proto, Some(beside)).map_err(|Problem(text)| text)
    }

    fn numbers(data: &[f32]) -> Result<Value, String> {
        Ok(Value::Float(array(&[data.len()], data.to_vec()).unwrap()))
    }

    #[test]
    fn data_beside_the_model_are_read_in_its_folder_only() {
        let (dir, beside) = folder(4);
        assert_eq!(read(&beside, "w.bin", 4, &[]), numbers(&[0.0, 1.0, 2.0, 3.0]));
        let place = [("offset", 4), ("length", 8)];
        assert_eq!(read(&beside, "./w.bin", 2, &place), numbers(&[1.0, 2.0]));
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::copy(dir.path().join("w.bin"), dir.path().join("data/v.bin")).unwrap();
        assert_eq!(read(&beside, "data/v.bin", 2, &place), numbers(&[1.0, 2.0]));
        for (location, said) in [
            ("../w.bin", "beside the model"),
            ("data/../w.bin", "beside the model"),
            ("/etc/hostname", "beside the model"),
            ("v.bin", "v.bin"),
            ("data", "no file"),
            ("", "no file"),
        ] {
            let error = read(&beside, location, 2, &[]).unwrap_err();
            assert!(error.contains(said), "{location}: {error}");
        }
    }

    #[test]
    fn a_tensor_takes_no_more_than_its_shape() {
        let (_dir, beside) = folder(100);
        let error = read(&beside, "w.bin", 1, &[]).unwrap_err();
        assert!(error.contains("400 bytes for its shape"), "{error}");
        let error = read(&beside, "w.bin", 4, &[("length", 400)]).unwrap_err();
        assert!(error.contains("at most 32"), "{error}");
        let error = read(&beside, "w.bin", 4, &[("length", 20)]).unwrap_err();
        assert!(error.contains("5 numbers"), "{error}");
        let error = read(&beside, "w.bin", 100, &[("offset", 4), ("length", 400)]).unwrap_err();
        assert!(error.contains("its data ends at"), "{error}");
    }

    #[test]
    fn tensors_share_the_bytes_of_a_file_a_few_times() {
        let (_dir, beside) = folder(8);
        for _ in 0..TIMES {
            assert!(read(&beside, "w.bin", 8, &[]).is_ok());
        }
        let error = read(&beside, "./w.bin", 8, &[]).unwrap_err();
        assert!(error.contains("more than 4 times its 32 bytes"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused_and_named() {
        use std::os::unix::fs::symlink;

        let (dir, beside) = folder(2);
        let (other, _) = folder(2);
        let outside = other.path().canonicalize().unwrap();
        symlink("w.bin", dir.path().join("inside.bin")).unwrap();
        symlink(outside.join("w.bin"), dir.path().join("outside.bin")).unwrap();
        symlink(&outside, dir.path().join("folder")).unwrap();
        assert_eq!(read(&beside, "inside.bin", 2, &[]), numbers(&[0.0, 1.0]));
        for location in ["outside.bin", "folder/w.bin"] {
            let error = read(&beside, location, 2, &[]).unwrap_err();
            let real = outside.join("w.bin").display().to_string();
            assert!(error.contains(&real) && error.contains("outside of"), "{error}");
        }
        // The folder itself may be reached by a link.
        let way = other.path().join("way");
        symlink(dir.path(), &way).unwrap();
        let model = Model::parse(&[], Some(way)).unwrap();
        assert_eq!(read(&model.beside, "w.bin", 2, &[]), numbers(&[0.0, 1.0]));
    }
}
