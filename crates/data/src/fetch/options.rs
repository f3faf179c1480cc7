//! Options and progress of a download.

use std::time::Duration;

/// Options of [`fetch`](crate::fetch()).
#[derive(Clone)]
pub struct FetchOptions<'a> {
    /// Take the files from `BASE_URL/FILE` instead of their official addresses (a mirror).
    pub base_url: Option<String>,
    /// Called repeatedly while a download proceeds.
    pub progress: Option<&'a dyn Fn(FetchProgress<'_>)>,
    /// Number of attempts in a row that may bring no new byte.
    pub attempts: u32,
    /// Pause before the second attempt; each further pause is twice as long.
    pub backoff: Duration,
    /// How long to wait for a connection, an answer, or the next bytes.
    pub timeout: Duration,
    /// Least bytes a second on average over four times `timeout`. A slower attempt is stopped and
    /// counts as one that brought nothing. 0 accepts any pace.
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

/// Progress of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Number of bytes on disk, including those of an earlier, broken download.
    pub done: u64,
    /// Number of bytes of the whole file, if known.
    pub total: Option<u64>,
}
