//! Measures the pace of a download.

use std::time::{Duration, Instant};

use super::options::FetchOptions;

/// Checks that enough bytes arrive in each span of time.
pub(super) struct Pace {
    least: u64,
    span: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(options: &FetchOptions<'_>) -> Self {
        Self {
            least: options.min_pace,
            span: options.timeout.saturating_mul(4),
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Counts `n` bytes that arrived; the error says that they arrive too slowly.
    pub(super) fn check(&mut self, n: u64) -> Result<(), String> {
        self.bytes += n;
        let elapsed = self.since.elapsed();
        if elapsed < self.span {
            return Ok(());
        }
        if (self.bytes as f64) < self.least as f64 * elapsed.as_secs_f64() {
            let seconds = elapsed.as_secs();
            return Err(format!("only {} bytes came in {seconds} seconds", self.bytes));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}
