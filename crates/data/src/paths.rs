//! Where data sets live on this machine.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use crate::error::{DataError, Result};

/// The data folder: `option` if given, else the environment variable `SORA_DATA`, else `sora` in
/// the platform's cache folder. It need not exist.
///
/// # Errors
/// [`DataError::NoDataFolder`] when none of these gives a folder (no home folder).
pub fn data_dir(option: Option<&Path>) -> Result<PathBuf> {
    resolve(option, std::env::var_os("SORA_DATA").map(PathBuf::from))
}

fn resolve(option: Option<&Path>, variable: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(dir) = option {
        return Ok(dir.to_path_buf());
    }
    // An empty variable is the same as none, as for XDG_CACHE_HOME.
    if let Some(dir) = variable.filter(|v| !v.as_os_str().is_empty()) {
        return Ok(dir);
    }
    etcetera::choose_base_strategy()
        .map(|base| base.cache_dir().join("sora"))
        .map_err(|_| DataError::NoDataFolder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_over_the_variable_over_the_platform() {
        let variable = || Some(PathBuf::from("/env"));
        assert_eq!(resolve(Some(Path::new("/opt")), variable()).unwrap(), Path::new("/opt"));
        assert_eq!(resolve(None, variable()).unwrap(), Path::new("/env"));
        assert!(resolve(None, Some(PathBuf::new())).unwrap().ends_with("sora"));
        assert!(resolve(None, None).unwrap().ends_with("sora"));
    }
}
