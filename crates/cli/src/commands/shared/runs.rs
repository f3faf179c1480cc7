//! Loads several folders, some of which may not be runs.

use std::path::PathBuf;

use crate::error::Result;

/// The results of `load` for each of `dirs`. A failure is a warning, unless there is only one
/// folder or all of them fail.
///
/// # Errors
/// The first failure where nothing was loaded.
pub fn passing_over<T>(dirs: &[PathBuf], load: impl Fn(&PathBuf) -> Result<T>) -> Result<Vec<T>> {
    let (mut found, mut first) = (Vec::new(), None);
    let mut passed = Vec::new();
    for dir in dirs {
        match load(dir) {
            Ok(one) => found.push(one),
            Err(failure) => {
                passed.push(crate::render::text(&failure));
                first.get_or_insert(failure);
            }
        }
    }
    if let (true, Some(failure)) = (found.is_empty(), first) {
        return Err(failure);
    }
    passed.iter().for_each(|text| tracing::warn!("{text}; passed over"));
    Ok(found)
}
