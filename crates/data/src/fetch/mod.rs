//! Downloading a data set's official files: resumed after a break, checked, and put in place only
//! when whole.

#[cfg(feature = "fetch")]
mod answer;
#[cfg(feature = "fetch")]
mod digest;
#[cfg(feature = "fetch")]
mod download;
mod options;
#[cfg(feature = "fetch")]
mod pace;

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::info::Info;

pub use options::{FetchOptions, FetchProgress};

/// Downloads the files of a set to its folder in `data_dir`, and returns their paths. Files that
/// are there and right are kept.
///
/// A download goes to `FILE.part`; a later call (or the next try) goes on where it stopped if the
/// server can (HTTP range requests), else from the start. The whole file's size and checksum are
/// checked before it gets its name.
///
/// Of a file whose size is not published no more is taken than twice what the set's pixels take,
/// and 1 GiB at least.
///
/// # Errors
/// [`DataError::Value`] when the set has nothing to download; [`DataError::Fetch`] for an HTTP
/// status, a broken network, a wrong size or checksum (the bad part file is removed), or another
/// fetch at work on the same file; [`DataError::Io`] for the disk; [`DataError::Feature`] in a build
/// without the feature `fetch`.
pub fn fetch(info: &Info, data_dir: &Path, options: &FetchOptions<'_>) -> Result<Vec<PathBuf>> {
    if info.sources.is_empty() {
        return Err(DataError::value(
            "data set",
            format!("'{}' has no files to download", info.name),
            format!("one that has; here, {}", info.get()),
        ));
    }
    download(info, data_dir, options)
}

#[cfg(not(feature = "fetch"))]
fn download(info: &Info, _: &Path, _: &FetchOptions<'_>) -> Result<Vec<PathBuf>> {
    let needed = format!("downloading {}", info.name);
    Err(DataError::Feature { feature: "fetch", needed })
}

#[cfg(feature = "fetch")]
fn download(info: &Info, data_dir: &Path, options: &FetchOptions<'_>) -> Result<Vec<PathBuf>> {
    let folder = data_dir.join(info.folder());
    std::fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
    let most = most(info);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(options.timeout))
        .timeout_recv_response(Some(options.timeout))
        .timeout_per_read(Some(options.timeout))
        .http_status_as_error(false)
        .user_agent(concat!("sora/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    info.sources
        .iter()
        .map(|source| download::Download::new(source, most, &folder, &agent, options).run())
        .collect()
}

/// Most bytes that are taken of a file whose size is not published: twice the set's pixels (the
/// validation images that some come with, a container), and 1 GiB at least.
#[cfg(feature = "fetch")]
fn most(info: &Info) -> u64 {
    let image = (info.channels * info.height * info.width) as u64;
    (2 * (info.train + info.test) as u64 * image).max(1 << 30)
}

#[cfg(all(test, feature = "fetch"))]
mod tests;
