//! Finds a set's files and reads them to the last byte.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::info::Info;
use crate::text::shown_all;

/// Whether the decoder's error means damaged content, not a disk that cannot be read. (The tar
/// reader reports damage as `Other`.)
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
}

/// Reads the next `want` bytes, which must be the last; otherwise describes what was found instead.
/// Reading past them makes decoders check their checksums.
pub(crate) fn read_exactly(
    data: &mut impl Read,
    want: usize,
) -> io::Result<Result<Vec<u8>, String>> {
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

/// Most bytes of image files that may come out of an archive of `length` bytes. Image files hardly
/// shrink when they are packed.
pub(crate) fn most_unpacked(length: u64) -> u64 {
    (16 << 20) + length.saturating_mul(8)
}

/// Finds a file of the set in its folders.
pub(crate) fn find_file(info: &Info, data_dir: &Path, file: &str) -> Option<PathBuf> {
    info.folders(data_dir).into_iter().map(|folder| folder.join(file)).find(|path| path.is_file())
}

/// Finds a folder of the set in its folders.
pub(crate) fn find_folder(info: &Info, data_dir: &Path, name: &str) -> Option<PathBuf> {
    info.folders(data_dir).into_iter().map(|folder| folder.join(name)).find(|path| path.is_dir())
}

/// The error for a set whose files are in none of its folders.
pub(crate) fn missing(info: &Info, data_dir: &Path) -> DataError {
    let file = info.sources.first().map_or_else(|| "train".to_owned(), |s| s.file.clone());
    DataError::Missing {
        name: info.name.clone(),
        file,
        looked: shown_all(&info.folders(data_dir)),
        get: info.get(),
    }
}
