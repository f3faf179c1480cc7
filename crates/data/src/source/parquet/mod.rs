//! Hugging Face image sets in Parquet shards: a column `image` of structures with the file's
//! `bytes`, and a column `label`.
//!
//! Rows are read at random. The first access to a row group notes where its pages begin; each image
//! then takes one page (about 1 MB). The reader looks at a page's header before the page is
//! decoded, because the header says how much memory to take. The format:
//! <https://parquet.apache.org/docs/file-format/>; the names of the classes: `ClassLabel` in the
//! key `huggingface` of the file's metadata.

mod file;
mod names;
mod shard;
mod thrift;

use std::path::PathBuf;

use parquet::data_type::ByteArray;

use super::encoded::file_digest;
use crate::error::{DataError, Result};
use crate::options::Decoding;
use crate::picture::{Picture, Pictures, decode};
use names::class_names;
use shard::Shard;

/// The shards of a split.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
    names: Option<Vec<String>>,
}

impl Shards {
    /// Opens the shards in order and reads all labels.
    pub(crate) fn open(paths: Vec<PathBuf>) -> Result<(Self, Vec<u32>)> {
        let mut labels = Vec::new();
        let mut names = None;
        let mut shards = Vec::with_capacity(paths.len());
        for path in paths {
            let shard = Shard::open(path, &mut labels)?;
            if shards.is_empty() {
                names = class_names(&shard.metadata);
            }
            shards.push(shard);
        }
        Ok((Self { shards, names }, labels))
    }

    /// Checks that the labels of the split are below `classes`.
    ///
    /// # Errors
    /// [`DataError::Bad`] for the first label that is not.
    pub(crate) fn check(&self, labels: &[u32], classes: usize) -> Result<()> {
        let wrong = labels.iter().position(|&label| label as usize >= classes);
        match (wrong, self.shards.first()) {
            (Some(i), Some(shard)) => Err(shard.bad(
                format!("label {} of row {i} of the split", labels[i]),
                format!("below {classes}, the number of classes"),
            )),
            _ => Ok(()),
        }
    }

    /// Names of the classes, if the files have them.
    pub(crate) fn class_names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The pictures of these rows of the split.
    pub(crate) fn rows(self, rows: Vec<u32>, decoding: Decoding) -> Rows {
        Rows { shards: self.shards, rows, decoding }
    }
}

/// Rows of shards, decoded on demand.
#[derive(Debug)]
pub(crate) struct Rows {
    shards: Vec<Shard>,
    rows: Vec<u32>,
    decoding: Decoding,
}

impl Rows {
    /// The shard and the row of image `i`, and the image file in that row.
    fn file(&self, i: usize) -> Result<(&Shard, usize, ByteArray)> {
        let missing = || DataError::value("image index", i, format!("below {}", self.rows.len()));
        let row = *self.rows.get(i).ok_or_else(missing)? as usize;
        let first = |shard: &Shard| shard.groups.first().map_or(usize::MAX, |g| g.0);
        let at =
            self.shards.partition_point(|s| first(s) <= row).checked_sub(1).ok_or_else(missing)?;
        let shard = &self.shards[at];
        let group =
            shard.groups.partition_point(|g| g.0 <= row).checked_sub(1).ok_or_else(missing)?;
        Ok((shard, row, shard.image(group, row - shard.groups[group].0)?))
    }
}

impl Pictures for Rows {
    fn picture(&self, i: usize) -> Result<Picture> {
        let (shard, row, bytes) = self.file(i)?;
        decode(bytes.data(), self.decoding, |found| {
            shard.bad(
                format!("{found} in row {row} of the split"),
                "a whole PNG or JPEG image".into(),
            )
        })
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        Ok(file_digest(self.file(i)?.2.data(), self.decoding))
    }
}

#[cfg(test)]
mod tests;
