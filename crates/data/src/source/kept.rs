//! Files that are made once and kept in the data folder. They are written beside their place,
//! whoever may read the folder may read them, and leftovers of killed runs are removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::text::shown;

/// Prefixes of the names of unfinished files.
pub(super) const DECODED: &str = ".decoded-";
pub(super) const UNPACKED: &str = ".unpacked-";

/// Age after which an unfinished file is removed where the file system has no locks.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// Makes a new file in `folder` (and the folder, if need be), to be written and then renamed.
/// Unfinished files of processes that have ended are removed.
///
/// The file is locked while it is open, which tells other processes that its writer is alive.
pub(super) fn unfinished(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    fs::create_dir_all(folder)?;
    sweep(folder);
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default, but a data folder may be shared (the umask still
    // applies).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.prefix(prefix).tempfile_in(folder)?;
        if let Err(error) = file.as_file().lock() {
            tracing::debug!("no lock on {}: {error}", shown(file.path()));
            return Ok(file);
        }
        // Another process may have removed the file as a leftover before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the unfinished files of processes that have ended.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(DECODED) && !name.starts_with(UNPACKED) {
            continue;
        }
        let path = entry.path();
        // The file is opened for writing, because some file systems lock only such files.
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        let gone = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => is_old(&file),
        };
        if gone && fs::remove_file(&path).is_ok() {
            tracing::info!("removed {}, which an earlier run left unfinished", shown(&path));
        }
    }
}

fn is_old(file: &File) -> bool {
    let changed = file.metadata().and_then(|m| m.modified()).ok();
    changed.and_then(|t| SystemTime::now().duration_since(t).ok()).is_some_and(|age| age > OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_files_in_the_making_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".decoded-a1b2c3", ".unpacked-x", "kept.raw", ".other"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let one = unfinished(dir.path(), DECODED).unwrap();
        let two = unfinished(dir.path(), UNPACKED).unwrap();
        assert!(one.path().exists() && two.path().exists());
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(DECODED) && !name.starts_with(UNPACKED))
            .collect();
        names.sort();
        assert_eq!(names, [".other", "kept.raw"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        two.persist(dir.path().join("new.raw")).unwrap();
        drop(one);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_them_as_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        // A plain new file has the permissions that the umask leaves.
        let plain = File::create(dir.path().join("plain")).unwrap().metadata().unwrap();
        let made = unfinished(dir.path(), DECODED).unwrap().as_file().metadata().unwrap();
        assert_eq!(made.permissions().mode(), plain.permissions().mode());
    }
}
