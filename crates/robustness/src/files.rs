//! Files that are never seen half-written and that never overwrite another file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Suffix of the names of files that are being written.
const UNFINISHED: &str = ".tmp";

/// A file that has a temporary name until it is whole; it is removed if it is not kept.
pub(crate) struct NewFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl NewFile {
    /// Begins the file that will become `path`. It is locked while it is open, which tells other
    /// processes that this one is alive; what killed processes have left of `path` is removed.
    pub fn create(path: &Path) -> io::Result<Self> {
        // With what is added, the longest name that a file may have has no room.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{}.", &name[..name.floor_char_boundary(200)]);
        sweep(folder(path), &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(UNFINISHED);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The file gets the permissions of any new file; the umask removes its share.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        loop {
            let file = builder.tempfile_in(folder(path))?;
            // Another process may have removed it as a leftover before it was locked.
            if file.as_file().lock().is_err() || file.path().exists() {
                return Ok(Self { path: path.to_owned(), file });
            }
        }
    }

    /// The open file, at its current position.
    pub fn writer(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Puts the file in its place.
    pub fn keep(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|e| e.error)?;
        // The folder is synchronised too, so that the file's entry survives a crash.
        #[cfg(unix)]
        File::open(folder(&self.path)).and_then(|dir| dir.sync_all())?;
        Ok(())
    }
}

/// Removes the unfinished files in `folder` with this prefix whose processes are gone. The crates of
/// the data sets and of the training do so with names of their own: these crates are used alone, and
/// a crate below all of them for twenty lines would be one more to publish.
fn sweep(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let middle = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(UNFINISHED));
        if !middle.is_some_and(|middle| middle.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            continue;
        }
        let file = File::options().write(true).open(entry.path());
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adv.npz");
        let names = [".adv.npz.a1b2c3.tmp", ".adv.npz.x.y.tmp", ".other.npz.a1b2c3.tmp"];
        for name in names {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let first = NewFile::create(&path).unwrap();
        let second = NewFile::create(&path).unwrap();
        let left = |name: &&str| dir.path().join(name).exists();
        assert_eq!(names.iter().filter(|name| left(name)).count(), 2);
        assert!(first.file.path().exists() && second.file.path().exists());
        first.keep().unwrap();
        drop(second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
