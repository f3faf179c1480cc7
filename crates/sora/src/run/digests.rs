//! Digests of a run's logs. A checkpoint holds those of the lines before it, summary.json those of
//! the whole files, so that a changed byte of a figure is said to whoever reads the logs.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use super::{RunDir, checkpoint};
use crate::{files, sealed, train::Summary};

/// SHA-256 of logs in hexadecimal, by file name.
pub type LogDigests = BTreeMap<String, String>;

/// The logs of the run in `dir` that were changed since it wrote them, one line each without the
/// machine's paths, as far as its summary or its newest checkpoint tells.
pub fn changed_logs(dir: &RunDir) -> Vec<String> {
    let summary = sealed::read::<Summary>(&dir.summary()).ok().map(|summary| summary.logs);
    if let Some(logs) = summary {
        return logs.iter().filter_map(|(name, sum)| changed(dir, name, None, sum)).collect();
    }
    let newest = checkpoint::list(&dir.checkpoints()).ok().and_then(|mut all| all.pop());
    let Some((position, logs)) = newest.and_then(|path| checkpoint::logs(&path).ok()) else {
        return Vec::new();
    };
    let length = |path: &Path| match path {
        path if path == dir.metrics() => Some(position.metrics_bytes),
        path if path == dir.epochs() => Some(position.epochs_bytes),
        _ => None,
    };
    logs.iter()
        .filter_map(|(name, sum)| changed(dir, name, length(&dir.path().join(name)), sum))
        .collect()
}

/// A line where the log `name`, or its first `length` bytes, has another digest than `sum`. One that
/// is missing or shorter is no affair of this module: readers say so.
fn changed(dir: &RunDir, name: &str, length: Option<u64>, sum: &str) -> Option<String> {
    // The names stand in a file that may have come from others.
    let known = [dir.metrics(), dir.epochs(), dir.abandoned()];
    let path = known.into_iter().find(|path| path.file_name() == Some(OsStr::new(name)))?;
    let bytes = fs::read(path).ok()?;
    let length = length.map_or(bytes.len(), |length| usize::try_from(length).unwrap_or(usize::MAX));
    let written = bytes.get(..length)?;
    (files::sha256(written) != sum).then(|| changed_line(name))
}

/// What is said of the log `name` whose digest is another.
pub(crate) fn changed_line(name: &str) -> String {
    format!(
        "{name} was changed since the run wrote it (damaged or edited): its figures may be others"
    )
}
