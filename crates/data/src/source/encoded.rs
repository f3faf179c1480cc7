//! Image files in memory or on disk that are decoded on request.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};
use crate::options::Decoding;
use crate::picture::{Picture, Pictures, decode};

/// Largest image file in bytes that is accepted; a larger file is hardly meant.
pub(crate) const MAX_FILE: u64 = 256 << 20;

/// Raise it when decoding the same file gives another picture.
const DECODER: u8 = 1;

/// Image files in memory.
#[derive(Debug)]
pub(crate) struct InMemory {
    /// The archive that holds the files.
    pub archive: PathBuf,
    pub bytes: Vec<u8>,
    /// Name of each file, and its place in the bytes.
    pub files: Vec<(String, Range<usize>)>,
    pub decoding: Decoding,
}

impl InMemory {
    /// Name and bytes of a file.
    fn file(&self, i: usize) -> Result<(&str, &[u8])> {
        self.files
            .get(i)
            .and_then(|(name, range)| Some((name.as_str(), self.bytes.get(range.clone())?)))
            .ok_or_else(|| {
                DataError::value("image index", i, format!("below {}", self.files.len()))
            })
    }
}

impl Pictures for InMemory {
    fn picture(&self, i: usize) -> Result<Picture> {
        let (name, bytes) = self.file(i)?;
        let bad = |found: String| {
            DataError::bad(
                &self.archive,
                format!("{found} as {name}"),
                "a whole PNG or JPEG image",
                "get the archive again",
            )
        };
        decode(bytes, self.decoding, bad)
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        let (_, bytes) = self.file(i)?;
        Ok(file_digest(bytes, self.decoding))
    }
}

/// Image files on disk.
#[derive(Debug)]
pub(crate) struct OnDisk {
    pub paths: Vec<PathBuf>,
    pub decoding: Decoding,
}

impl OnDisk {
    fn path(&self, i: usize) -> Result<&Path> {
        let found = self.paths.get(i).map(PathBuf::as_path);
        found.ok_or_else(|| {
            DataError::value("image index", i, format!("below {}", self.paths.len()))
        })
    }
}

impl Pictures for OnDisk {
    fn picture(&self, i: usize) -> Result<Picture> {
        load(self.path(i)?, self.decoding)
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        Ok(file_digest(&read(self.path(i)?)?, self.decoding))
    }
}

/// Reads and decodes an image file.
pub(crate) fn load(path: &Path, decoding: Decoding) -> Result<Picture> {
    decode(&read(path)?, decoding, |found| bad(path, found))
}

/// The bytes of an image file.
fn read(path: &Path) -> Result<Vec<u8>> {
    let length = fs::metadata(path).map_err(DataError::io("read", path))?.len();
    if length > MAX_FILE {
        return Err(bad(path, format!("a file of {length} bytes")));
    }
    fs::read(path).map_err(DataError::io("read", path))
}

fn bad(path: &Path, found: String) -> DataError {
    DataError::bad(path, found, "a whole PNG or JPEG image", "repair the file or remove it")
}

/// A digest of the file's bytes and of the way they are decoded, which together decide the picture.
pub(crate) fn file_digest(bytes: &[u8], decoding: Decoding) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([DECODER]);
    hash.update(decoding.bytes());
    hash.update(bytes);
    hash.finalize().into()
}
