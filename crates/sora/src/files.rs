//! Files that are never seen half-written, and safetensors in and out.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    error::{Error, Result},
    nn::HostTensor,
};

/// Writes `path` so that a reader, or a kill at any moment, finds the old file or the whole new
/// one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write_synced(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(|e| Error::io("rename into place", path, e))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Writes `figure` to `path`, all or nothing, in the format that the ending names (.svg or .png).
///
/// # Errors
/// Another ending, a figure too large, or a file that cannot be written.
pub fn write_figure(path: &Path, figure: &sora_plot::Figure) -> Result<()> {
    write_atomic(path, &figure.encode(sora_plot::Format::of(path)?)?)
}

/// Writes `path` and waits until it is on disk.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io("write", path, e))
}

/// Waits until the entries of a folder (a rename into it) are on disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", path, e))
}

/// The tensors and the metadata of a safetensors file.
pub type Loaded = (BTreeMap<String, HostTensor>, HashMap<String, String>);

/// Serialises f32 tensors.
pub fn to_safetensors(
    tensors: &[HostTensor],
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>> {
    let failed =
        |e: safetensors::SafeTensorError| Error::work(format!("cannot serialise the weights: {e}"));
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
    // The crate writes a malformed header for empty metadata without tensors.
    safetensors::serialize(views, (!metadata.is_empty()).then_some(metadata)).map_err(failed)
}

/// Reads a safetensors file of f32 tensors.
///
/// # Errors
/// A file that cannot be read, is no safetensors file, or holds another dtype.
pub fn read_safetensors(path: &Path) -> Result<Loaded> {
    let bytes =
        fs::read(path).map_err(|e| Error::input(format!("cannot read {}: {e}", path.display())))?;
    let wrong = |e: safetensors::SafeTensorError| {
        Error::input(format!(
            "{}: not a whole safetensors file ({e}); expected one that `sora train` or `sora export` wrote",
            path.display()
        ))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(Error::input(format!(
                "{}: tensor '{name}' has dtype {:?}, expected F32",
                path.display(),
                view.dtype()
            )));
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
        assert_eq!(back.into_values().collect::<Vec<_>>(), tensors);
        assert_eq!(metadata["k"], "v");
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(read_safetensors(&path), Err(Error::Input(_))), "cut at {cut}");
        }
    }
}
