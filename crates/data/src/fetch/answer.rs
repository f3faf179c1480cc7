//! Reads a server's answers and describes them.

use ureq::http::{HeaderMap, StatusCode};

use crate::text::one_line;

pub(super) fn network(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the host name is not known (no network?)".into(),
        ureq::Error::ConnectionFailed => "no connection to the host".into(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        other => format!("network error ({})", one_line(&other.to_string())),
    }
}

pub(super) fn spoken(status: StatusCode) -> String {
    format!("the server answers HTTP {status}")
}

pub(super) fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The first byte that a header such as `Content-Range: bytes 100-199/200` announces.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim().split_once('-')?.0.parse().ok()
}
