//! Image files kept in memory as they are, or on disk, and decoded when asked for.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::options::Channels;
use crate::picture::{Picture, Pictures, decode};

/// Largest image file that is taken; larger ones are hardly meant.
pub(crate) const MAX_FILE: u64 = 256 << 20;

/// Image files in memory.
#[derive(Debug)]
pub(crate) struct InMemory {
    /// The archive that they come from.
    pub archive: PathBuf,
    pub bytes: Vec<u8>,
    /// Name and place of each.
    pub files: Vec<(String, Range<usize>)>,
}

impl Pictures for InMemory {
    fn picture(&self, i: usize) -> Result<Picture> {
        let found = self
            .files
            .get(i)
            .and_then(|(name, range)| Some((name, self.bytes.get(range.clone())?)));
        let (name, bytes) = found.ok_or_else(|| {
            DataError::value("image index", i, format!("below {}", self.files.len()))
        })?;
        let bad = |found: String| {
            DataError::bad(
                &self.archive,
                format!("{found} as {name}"),
                "a whole PNG or JPEG image",
                "get the archive again",
            )
        };
        decode(bytes, Channels::Rgb, bad)
    }
}

/// Image files on disk.
#[derive(Debug)]
pub(crate) struct OnDisk {
    pub paths: Vec<PathBuf>,
    pub channels: Channels,
}

impl Pictures for OnDisk {
    fn picture(&self, i: usize) -> Result<Picture> {
        let path = self.paths.get(i).ok_or_else(|| {
            DataError::value("image index", i, format!("below {}", self.paths.len()))
        })?;
        load(path, self.channels)
    }
}

/// Reads and decodes an image file.
pub(crate) fn load(path: &Path, channels: Channels) -> Result<Picture> {
    let bad = |found: String| {
        DataError::bad(path, found, "a whole PNG or JPEG image", "repair the file or remove it")
    };
    let length = fs::metadata(path).map_err(DataError::io("read", path))?.len();
    if length > MAX_FILE {
        return Err(bad(format!("a file of {length} bytes")));
    }
    let bytes = fs::read(path).map_err(DataError::io("read", path))?;
    decode(&bytes, channels, bad)
}
