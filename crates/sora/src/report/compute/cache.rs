//! Keeps computed results in the run folder, so that each is computed only once.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    files,
};

/// Reads an earlier result; `None` if it does not exist or cannot be read, so that it is computed
/// again.
pub(super) fn known<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Keeps a result. If the run folder cannot be written, the result is only computed again later.
pub(super) fn keep(file: &Path, value: &impl Serialize) {
    let write = || -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        let json = serde_json::to_vec(value)
            .map_err(|e| Error::defect(format!("cannot serialise {}: {e}", file.display())))?;
        files::write_atomic(file, &json)
    };
    if let Err(e) = write() {
        tracing::warn!("{e}; it will be computed again next time");
    }
}
