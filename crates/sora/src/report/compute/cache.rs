//! Keeps computed results in the run folder, so that each is computed only once.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    run::RunDir,
    sealed,
};

/// Reads an earlier result; `None` if it does not exist, was changed or cannot be read, so that it is
/// computed again.
pub(super) fn known<T: DeserializeOwned>(file: &Path) -> Option<T> {
    sealed::read(file).ok()
}

/// Keeps a result. If the run folder cannot be written, the result is only computed again later.
pub(super) fn keep(file: &Path, value: &impl Serialize) {
    let write = || -> Result<()> {
        if let Some(dir) = file.parent() {
            RunDir::refuse_link(dir)?;
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        sealed::write(file, value)
    };
    if let Err(e) = write() {
        tracing::warn!("{e}; it will be computed again next time");
    }
}
