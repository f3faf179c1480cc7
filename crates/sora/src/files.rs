//! Writes files that are never seen half-written, and reads and writes safetensors.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Result},
    nn::HostTensor,
};

/// Suffix of the names of files that are being written.
const TEMPORARY: &str = ".sora-tmp";

/// Writes `path` so that a reader, or a kill at any moment, finds the old file or the whole new
/// file. Other files beside `path` are not touched, except for the unfinished ones that killed
/// writes of `path` have left, and a symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be written or a full disk; `path` is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let (temporary, mut file) = create_beside(path)?;
    let written = fill(&mut file, bytes).map_err(|e| Error::io("write", path, e)).and_then(|()| {
        fs::rename(&temporary, path).map_err(|e| Error::io("rename into place", path, e))
    });
    if written.is_err() {
        // The failure is reported; a leftover file is not worth a second message.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a file beside `path` with a name that no other file has. The file is locked while it is
/// open, which tells other processes that this one is alive; the unfinished files of `path` whose
/// processes are gone are removed.
fn create_beside(path: &Path) -> Result<(PathBuf, File)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    sweep_beside(path, &name.to_string_lossy());
    loop {
        let mut hidden = name.clone();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        hidden.push(format!(".{}-{count}{TEMPORARY}", std::process::id()));
        let temporary = path.with_file_name(hidden);
        match File::create_new(&temporary) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("write", path, e)),
            // Another process may have removed it as a leftover before it was locked.
            Ok(file) if file.lock().is_ok() && !temporary.exists() => {}
            Ok(file) => return Ok((temporary, file)),
        }
    }
}

/// Removes the unfinished files of `path`, called `name.PROCESS-COUNT.sora-tmp`, whose processes
/// are gone. A file that cannot be opened or removed stays; it does no harm.
fn sweep_beside(path: &Path, name: &str) {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return };
    for entry in entries.filter_map(std::result::Result::ok) {
        let belongs = |found: &str| {
            let middle = found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(TEMPORARY)?;
            let (process, count) = middle.split_once('-')?;
            Some(process.parse::<u32>().is_ok() && count.parse::<u32>().is_ok())
        };
        if !entry.file_name().to_str().and_then(belongs).unwrap_or(false) {
            continue;
        }
        let file = File::options().write(true).open(entry.path());
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether `name` is that of a file that a process is writing, or was writing when it was killed.
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Removes the unfinished files that killed processes have left in `dir`. The folder must have no
/// other writer.
///
/// # Errors
/// [`Error`] for a folder that cannot be read or written.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = entry.map_err(|e| Error::io("list", dir, e))?.path();
        if is_unfinished(path.file_name().unwrap_or_default()) {
            fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Writes `value` as pretty JSON to `path`, completely or not at all.
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_atomic(path, &json(value)?)
}

/// `value` as pretty JSON with a line feed at its end.
///
/// # Errors
/// [`Error::Defect`] for a value that cannot be serialised.
pub fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::defect(format!("cannot serialise a record: {e}")))?;
    json.push(b'\n');
    Ok(json)
}

/// Writes `figure` to `path`, completely or not at all, in the format of the ending (.svg or .png).
///
/// # Errors
/// [`Error`] for another ending, a figure that is too large, or a file that cannot be written.
pub fn write_figure(path: &Path, figure: &sora_plot::Figure) -> Result<()> {
    write_atomic(path, &figure.encode(sora_plot::Format::of(path)?)?)
}

/// Writes the new file `path` and waits until it is on disk.
///
/// # Errors
/// [`Error`] for a file that exists already, or a disk that fails.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create_new(path)
        .and_then(|mut file| fill(&mut file, bytes))
        .map_err(|e| Error::io("write", path, e))
}

fn fill(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the entries of a folder (a rename into it) are on disk.
///
/// # Errors
/// [`Error`] for a folder that cannot be opened or synchronised.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", path, e))
}

/// The SHA-256 of what was added so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In lower-case hexadecimal.
    pub(crate) fn text(&self) -> String {
        hex(self.0.clone().finalize())
    }
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of tensors: names, shapes and values, in the order of the names.
pub fn digest<'a>(tensors: impl IntoIterator<Item = &'a HostTensor>) -> String {
    let mut sorted: Vec<_> = tensors.into_iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for tensor in sorted {
        hash.update((tensor.name.len() as u64).to_le_bytes());
        hash.update(tensor.name.as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for side in &tensor.shape {
            hash.update((*side as u64).to_le_bytes());
        }
        for values in tensor.data.chunks(1 << 14) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(bytes);
        }
    }
    hex(hash.finalize())
}

/// The name of the first of `tensors` with a value that is not finite.
pub fn not_finite<'a>(tensors: impl IntoIterator<Item = &'a HostTensor>) -> Option<&'a str> {
    tensors
        .into_iter()
        .find(|tensor| !tensor.data.iter().all(|value| value.is_finite()))
        .map(|tensor| tensor.name.as_str())
}

/// The tensors and the metadata of a safetensors file.
pub type Loaded = (BTreeMap<String, HostTensor>, HashMap<String, String>);

/// Serialises f32 tensors.
///
/// # Errors
/// [`Error::Defect`] for a tensor whose shape and data do not fit.
pub fn to_safetensors(
    tensors: &[HostTensor],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| {
        Error::defect(format!("cannot serialise the weights: {e}"))
    };
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| {
            Ok((
                tensor.name.as_str(),
                TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(failed)?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    // The safetensors crate writes a malformed header for empty metadata without tensors.
    safetensors::serialize(views, (!metadata.is_empty()).then_some(metadata)).map_err(failed)
}

/// Reads a safetensors file of f32 tensors.
///
/// # Errors
/// [`Error`] for a file that cannot be read, is not a safetensors file, or holds another dtype.
pub fn read_safetensors(path: &Path) -> Result<Loaded> {
    parse_safetensors(path, &fs::read(path).map_err(|e| Error::read(path, e))?)
}

/// Reads the tensors in the bytes of the safetensors file `path`.
///
/// # Errors
/// Those of [`read_safetensors`].
pub fn parse_safetensors(path: &Path, bytes: &[u8]) -> Result<Loaded> {
    let wrong = |e: safetensors::SafeTensorError| {
        Error::damaged(
            path,
            format!(
                "not a whole safetensors file ({e}); expected one that a training or an export wrote"
            ),
        )
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            let problem = format!("tensor '{name}' has dtype {:?}, expected F32", view.dtype());
            return Err(Error::mismatch(path, problem));
        }
        let (chunks, _) = view.data().as_chunks::<4>();
        let data = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        tensors.insert(
            name.to_owned(),
            HostTensor { name: name.to_owned(), shape: view.shape().to_vec(), data },
        );
    }
    Ok((tensors, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_round_trip_to_the_bit_and_refuse_what_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let tensors = vec![
            HostTensor { name: "a".into(), shape: vec![2, 1], data: vec![1.5, f32::MIN_POSITIVE] },
            HostTensor { name: "b".into(), shape: vec![0], data: vec![] },
        ];
        let bytes = to_safetensors(&tensors, [("k".to_owned(), "v".to_owned())].into()).unwrap();
        write_atomic(&path, &bytes).unwrap();
        let (back, metadata) = read_safetensors(&path).unwrap();
        assert_eq!(digest(back.values()), digest(&tensors));
        assert_eq!(back.into_values().collect::<Vec<_>>(), tensors);
        assert_eq!(metadata["k"], "v");
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(read_safetensors(&path), Err(Error::Damaged { .. })), "cut at {cut}");
        }
    }

    #[test]
    fn an_atomic_write_touches_nothing_beside_its_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        // Names that another writer could choose for its temporary file.
        let others = ["summary.tmp", "summary.json.tmp", ".summary.json.tmp"];
        for other in others {
            fs::write(dir.path().join(other), "mine").unwrap();
        }
        write_atomic(&path, b"{}").unwrap();
        write_atomic(&path, b"{1}").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{1}");
        for other in others {
            assert_eq!(fs::read(dir.path().join(other)).unwrap(), b"mine");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1 + others.len());
        assert!(write_atomic(&dir.path().join("no/file"), b"x").is_err());
        let left = dir.path().join(".w.safetensors.1-2.sora-tmp");
        fs::write(&left, "half").unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert!(!left.exists() && dir.path().join("summary.tmp").exists());
    }

    #[test]
    fn what_a_killed_write_left_goes_with_the_next_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        // Of a killed process, of one that is writing, and of another file.
        let names = [".summary.json.1-2", ".summary.json.1-3", ".summary.json.x.1-2"];
        let [gone, alive, other] = names.map(|name| dir.path().join(format!("{name}{TEMPORARY}")));
        for path in [&gone, &alive, &other] {
            fs::write(path, "half").unwrap();
        }
        let writing = File::options().write(true).open(&alive).unwrap();
        writing.lock().unwrap();
        write_atomic(&path, b"{}").unwrap();
        assert!(!gone.exists() && alive.exists() && other.exists());
        drop(writing);
        write_atomic(&path, b"{}").unwrap();
        assert!(!alive.exists() && other.exists());
    }

    #[test]
    fn a_digest_hangs_on_every_value_name_and_shape() {
        let tensor = |name: &str, shape: &[usize], data: &[f32]| HostTensor {
            name: name.into(),
            shape: shape.into(),
            data: data.into(),
        };
        let of = |tensor: HostTensor| digest([&tensor]);
        let one = of(tensor("a", &[2], &[1.0, 0.0]));
        assert_ne!(one, of(tensor("a", &[2], &[1.0, -0.0])));
        assert_ne!(one, of(tensor("a", &[2, 1], &[1.0, 0.0])));
        assert_ne!(one, of(tensor("b", &[2], &[1.0, 0.0])));
        let (a, b) = (tensor("a", &[1], &[1.0]), tensor("b", &[1], &[2.0]));
        assert_eq!(digest([&a, &b]), digest([&b, &a]), "the order of a file does not matter");
        assert_eq!(not_finite([&a, &tensor("c", &[1], &[f32::INFINITY])]), Some("c"));
        assert_eq!(not_finite([&a, &b]), None);
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
