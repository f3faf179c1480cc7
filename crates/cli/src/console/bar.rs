//! Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{duration, settings, style::can_redraw};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Progress of a known amount of work.
#[derive(Debug)]
pub struct Bar {
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
    /// Where this process began and where it is.
    first: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Bar {
    /// Starts at `done` of `total`.
    pub fn new(label: &str, done: u64, total: u64) -> Self {
        Self::with_template(label, done, total, "{prefix} {bar:10} {pos}/{len} {wide_msg}")
    }

    /// Bytes of a download.
    pub fn bytes(label: &str, total: Option<u64>) -> Self {
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        Self::with_template(label, 0, total.unwrap_or(0), template)
    }

    fn with_template(label: &str, done: u64, total: u64, template: &str) -> Self {
        let bar = can_redraw().then(|| {
            let bar = ProgressBar::new(total).with_position(done).with_prefix(label.to_owned());
            // A template that does not parse leaves the bar with its usual look.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        let label = label.to_owned();
        Self { bar, label, total, first: done, done, started: now, last_line: now }
    }

    /// Goes on (or back) to `done`; `message` is asked for only when it is shown.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        if done < self.done {
            (self.first, self.started) = (done, Instant::now());
        }
        self.done = done;
        let left = self.left();
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{left}{}", message()));
                bar.set_position(done);
            }
            None if !settings().quiet && self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                tracing::info!("{} {done}/{} {left}{}", self.label, self.total, message());
            }
            None => {}
        }
    }

    /// `3 min 05 s left, `, once something was done.
    fn left(&self) -> String {
        let done = self.done.saturating_sub(self.first);
        if done == 0 || self.total == 0 {
            return String::new();
        }
        let seconds = self.started.elapsed().as_secs_f64() / done as f64;
        format!("{} left, ", duration(seconds * self.total.saturating_sub(self.done) as f64))
    }

    /// Logs something without tearing the bar.
    pub fn suspend(&self, log: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(log),
            None => log(),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
