//! Downloads a data set's official files. A download resumes after a break, and a file is checked
//! and put in place only when it is whole.

#[cfg(feature = "fetch")]
mod answer;
#[cfg(feature = "fetch")]
mod digest;
#[cfg(feature = "fetch")]
mod download;
mod options;
#[cfg(feature = "fetch")]
mod pace;
#[cfg(feature = "fetch")]
mod resolver;

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::info::Info;

pub use options::{FetchOptions, FetchProgress};

/// Downloads the files of a set to its folder in `data_dir`, and returns their paths. Files that
/// are there with the right content are kept.
///
/// A download writes to `FILE.part`. A later attempt or call continues where it stopped if the
/// server supports HTTP range requests, else it starts again. The whole file's size and checksum
/// are checked before it gets its name.
///
/// A file whose size is not published may take twice the bytes of the set's pixels, but at least 1
/// GiB.
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
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(options.timeout))
        .timeout_recv_response(Some(options.timeout))
        .timeout_per_read(Some(options.timeout))
        .http_status_as_error(false)
        .user_agent(concat!("sora/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = agent(config);
    info.sources
        .iter()
        .map(|source| download::Download::new(source, most, &folder, &agent, options).run())
        .collect()
}

/// An agent whose name look-ups work however the program is linked.
#[cfg(feature = "fetch")]
fn agent(config: ureq::config::Config) -> ureq::Agent {
    if cfg!(all(target_env = "gnu", target_feature = "crt-static")) {
        let connector = ureq::unversioned::transport::DefaultConnector::default();
        ureq::Agent::with_parts(config, connector, resolver::FileResolver::default())
    } else {
        config.into()
    }
}

/// Most bytes that a file of unpublished size may have: twice the set's pixels (some files hold
/// validation images and a container too), and at least 1 GiB.
#[cfg(feature = "fetch")]
fn most(info: &Info) -> u64 {
    let image = (info.channels * info.height * info.width) as u64;
    (2 * (info.train + info.test) as u64 * image).max(1 << 30)
}

#[cfg(all(test, feature = "fetch"))]
mod tests;
