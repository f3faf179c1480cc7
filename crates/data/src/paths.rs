//! The folders of data sets on this machine.

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
    // An empty variable counts as unset, as for XDG_CACHE_HOME.
    if let Some(dir) = variable.filter(|v| !v.as_os_str().is_empty()) {
        return Ok(dir);
    }
    etcetera::choose_base_strategy()
        .map(|base| base.cache_dir().join("sora"))
        .map_err(|_| DataError::NoDataFolder)
}

/// `path` with the home folder in place of a leading `~/`, unless a folder of that very name
/// exists. A shell does not expand `~` behind a colon (`folder:~/images`).
pub fn expand_home(path: &Path) -> PathBuf {
    expand(path, etcetera::home_dir().ok())
}

fn expand(path: &Path, home: Option<PathBuf>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if !path.exists() => home.join(rest),
        _ => path.to_owned(),
    }
}

/// The data set `spec` without the place where a folder of one's own lies, for files that are passed
/// on: `folder:/home/me/pets` becomes `folder:pets`. A registered name stays as it is.
#[must_use]
pub fn without_place(spec: &str) -> String {
    let (kind, path) = match spec.split_once(':') {
        Some((kind @ ("folder" | "imagefolder"), path)) => (kind, path),
        _ if spec.contains(['/', '\\']) => ("folder", spec),
        _ => return spec.to_owned(),
    };
    let last = path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default();
    format!("{kind}:{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_does_not_say_where_a_folder_lies() {
        for (spec, expected) in [
            ("folder:/home/me/my pets", "folder:my pets"),
            ("imagefolder:/a/b/", "imagefolder:b"),
            ("folder:C:\\me\\pets", "folder:pets"),
            ("a/b", "folder:b"),
            ("folder:b", "folder:b"),
            ("cifar10", "cifar10"),
            ("synthetic:100", "synthetic:100"),
            ("", ""),
        ] {
            assert_eq!(without_place(spec), expected, "{spec}");
        }
    }

    #[test]
    fn the_option_wins_over_the_variable_over_the_platform() {
        let variable = || Some(PathBuf::from("/env"));
        assert_eq!(resolve(Some(Path::new("/opt")), variable()).unwrap(), Path::new("/opt"));
        assert_eq!(resolve(None, variable()).unwrap(), Path::new("/env"));
        assert!(resolve(None, Some(PathBuf::new())).unwrap().ends_with("sora"));
        assert!(resolve(None, None).unwrap().ends_with("sora"));
    }

    #[test]
    fn a_leading_tilde_is_the_home_folder() {
        let home = || Some(PathBuf::from("/home/me"));
        assert_eq!(expand(Path::new("~/x/y"), home()), Path::new("/home/me/x/y"));
        assert_eq!(expand(Path::new("~"), home()), Path::new("/home/me"));
        for other in ["/a/~/b", "~other/x", "a~", "./~/x"] {
            assert_eq!(expand(Path::new(other), home()), Path::new(other));
        }
        assert_eq!(expand(Path::new("~/x"), None), Path::new("~/x"));
    }
}
