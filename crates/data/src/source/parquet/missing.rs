//! Stands in for the Parquet reader in a build without the feature `parquet`.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::error::{DataError, Result};
use crate::options::Decoding;
use crate::picture::{Picture, Pictures};

/// The shards of a split; this build cannot make one.
#[derive(Debug)]
pub(crate) struct Shards(Infallible);

impl Shards {
    /// Returns the error that names the missing feature.
    pub(crate) fn open(paths: Vec<PathBuf>) -> Result<(Self, Vec<u32>)> {
        let first = paths.first().map(|path| crate::text::shown(path)).unwrap_or_default();
        Err(DataError::Feature { feature: "parquet", needed: format!("reading {first}") })
    }

    pub(crate) fn check(&self, _: &[u32], _: usize) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn class_names(&self) -> Option<&[String]> {
        match self.0 {}
    }

    pub(crate) fn rows(self, _: Vec<u32>, _: Decoding) -> Self {
        match self.0 {}
    }
}

impl Pictures for Shards {
    fn picture(&self, _: usize) -> Result<Picture> {
        match self.0 {}
    }
}
