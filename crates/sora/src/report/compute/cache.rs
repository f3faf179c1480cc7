//! What was computed is kept in the run folder, so that it is computed once.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    files,
};

/// What was computed earlier; `None` if it is not there or cannot be read: it is then computed
/// again.
pub(super) fn known<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Keeps what was computed; a run folder that cannot be written only costs the time to compute it
/// again.
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
