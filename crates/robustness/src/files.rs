//! Files that are never seen half-written and that never overwrite another file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A file that has a temporary name until it is whole; it is removed if it is not kept.
pub(crate) struct NewFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl NewFile {
    /// Begins the file that will become `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The file gets the permissions of any new file; the umask removes its share.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        Ok(Self { path: path.to_owned(), file: builder.tempfile_in(folder(path))? })
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

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
