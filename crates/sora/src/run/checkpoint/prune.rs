//! Checkpoints that go.

use std::{fs, path::Path};

use super::list;
use crate::{
    error::{Error, Result},
    files,
};

/// Removes all checkpoints except the newest `keep` and those that are `needed`, and the remains of
/// a write or a removal that a kill interrupted.
///
/// # Errors
/// [`Error`] for a folder that cannot be read or written.
pub fn prune(dir: &Path, keep: usize, needed: impl Fn(&Path) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".epoch-")) {
            remove(&path)?;
        }
    }
    let all = list(dir)?;
    let surplus = all.len().saturating_sub(keep.max(1));
    all.iter().take(surplus).filter(|path| !needed(path)).try_for_each(|path| discard(path))
}

/// Removes a checkpoint.
pub(super) fn discard(path: &Path) -> Result<()> {
    // The folder is renamed first, because a kill during the removal must not leave a checkpoint
    // that looks whole.
    let hidden = path
        .with_file_name(format!(".{}.old", path.file_name().unwrap_or_default().to_string_lossy()));
    remove(&hidden)?;
    fs::rename(path, &hidden).map_err(|e| Error::io("rename", path, e))?;
    remove(&hidden)
}

/// Removes the checkpoints that are newer than `path` (all for `None`), the newest first, so that a
/// kill in between leaves a run that can continue.
///
/// # Errors
/// [`Error`] for a folder that cannot be written.
pub fn discard_after(dir: &Path, path: Option<&Path>) -> Result<()> {
    for newer in list(dir)?.iter().rev().take_while(|newer| Some(newer.as_path()) != path) {
        discard(newer)?;
    }
    files::sync_dir(dir)
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
