//! Options of a download, and how far it is.

use std::time::Duration;

/// Options of [`fetch`](crate::fetch()).
#[derive(Clone)]
pub struct FetchOptions<'a> {
    /// Take the files from `BASE_URL/FILE` instead of their official addresses (a mirror).
    pub base_url: Option<String>,
    /// Called as a download goes on.
    pub progress: Option<&'a dyn Fn(FetchProgress<'_>)>,
    /// Tries in a row that bring no new byte before giving up.
    pub attempts: u32,
    /// Pause before the second try; doubled every time.
    pub backoff: Duration,
    /// How long to wait for a connection, an answer, or the next bytes.
    pub timeout: Duration,
    /// Bytes a second that must come on average over four times `timeout`; a try that is slower is
    /// given up and counts as one that brought nothing. 0: any pace.
    pub min_pace: u64,
}

impl Default for FetchOptions<'_> {
    fn default() -> Self {
        Self {
            base_url: None,
            progress: None,
            attempts: 4,
            backoff: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            min_pace: 1024,
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Bytes on disk, with those of an earlier, broken download.
    pub done: u64,
    /// Bytes in all, if known.
    pub total: Option<u64>,
}
