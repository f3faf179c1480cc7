//! One file per kind of source. Each gives the two splits; limits are applied afterwards, but a
//! source may stop early.

pub(crate) mod cache;
pub(crate) mod cifar;
pub(crate) mod encoded;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod imagenet;
pub(crate) mod imagenette;
pub(crate) mod mat;
pub(crate) mod npz;
pub(crate) mod parquet;
pub(crate) mod pickle;
pub(crate) mod synthetic;
pub(crate) mod tiny_imagenet;
pub(crate) mod tree;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{DataError, shown_all};
use crate::info::Info;
use crate::split::Split;

/// What a source reads.
pub(crate) struct Parts {
    pub train: Split,
    pub test: Split,
}

/// Whether an error is the decoder's word for damaged content, as against a disk that cannot be
/// read. (`Other` is what the tar reader uses.)
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
}

/// The next `want` bytes, which must be the last; otherwise what was found instead. Reading past
/// them makes decoders check their checksums.
fn read_exactly(data: &mut impl Read, want: usize) -> io::Result<Result<Vec<u8>, String>> {
    let mut bytes = Vec::with_capacity(want);
    data.by_ref().take(want as u64).read_to_end(&mut bytes)?;
    if bytes.len() < want {
        return Ok(Err(format!("the data end after {} bytes", bytes.len())));
    }
    if data.read(&mut [0])? > 0 {
        return Ok(Err(format!("more than {want} bytes")));
    }
    Ok(Ok(bytes))
}

/// A file of the set, in one of its folders.
fn find_file(info: &Info, data_dir: &Path, file: &str) -> Option<PathBuf> {
    info.folders(data_dir).into_iter().map(|folder| folder.join(file)).find(|path| path.is_file())
}

/// A folder of the set, in one of its folders.
fn find_folder(info: &Info, data_dir: &Path, name: &str) -> Option<PathBuf> {
    info.folders(data_dir).into_iter().map(|folder| folder.join(name)).find(|path| path.is_dir())
}

/// The set's files are in none of its folders.
fn missing(info: &Info, data_dir: &Path) -> DataError {
    let file = info.sources.first().map_or_else(|| "train".to_owned(), |s| s.file.clone());
    DataError::Missing {
        name: info.name.clone(),
        file,
        looked: shown_all(&info.folders(data_dir)),
        get: info.how_to_get(),
    }
}
