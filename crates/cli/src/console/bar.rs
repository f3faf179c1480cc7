//! Progress on standard error: a bar on a terminal, and occasional plain lines elsewhere.

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
    /// The value at which this process began, and the current value.
    first: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Bar {
    /// A bar that starts at `done` of `total`.
    pub fn new(label: &str, done: u64, total: u64) -> Self {
        Self::with_template(label, done, total, "{prefix} {bar:10} {percent:>3} % {wide_msg}")
    }

    /// A bar for the bytes of a download.
    pub fn bytes(label: &str, total: Option<u64>) -> Self {
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        Self::with_template(label, 0, total.unwrap_or(0), template)
    }

    fn with_template(label: &str, done: u64, total: u64, template: &str) -> Self {
        let bar = can_redraw().then(|| {
            let bar = ProgressBar::new(total).with_position(done).with_prefix(label.to_owned());
            // If the template does not parse, the bar keeps its default look.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        let label = label.to_owned();
        Self { bar, label, total, first: done, done, started: now, last_line: now }
    }

    /// Moves to `done`, forwards or backwards; `message` is called only when it is shown.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        if done < self.done {
            (self.first, self.started) = (done, Instant::now());
        }
        self.done = done;
        self.tell(done, self.left(), message);
    }

    /// Does what [`set`](Self::set) does, with the caller's better estimate of the seconds left.
    pub fn tell(&mut self, done: u64, left: Option<f64>, message: impl FnOnce() -> String) {
        self.done = done;
        let text = || {
            let left = left.map(|seconds| format!("{} left", duration(seconds)));
            let parts = [left.unwrap_or_default(), message()];
            parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
        };
        match &self.bar {
            Some(bar) => {
                bar.set_message(text());
                bar.set_position(done);
            }
            None if !settings().quiet && self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let percent = 100.0 * done as f64 / self.total.max(1) as f64;
                tracing::info!("{} {percent:.0} %, {}", self.label, text());
            }
            None => {}
        }
    }

    /// Seconds left at the pace so far, once something was done.
    fn left(&self) -> Option<f64> {
        let done = self.done.saturating_sub(self.first);
        let pace = self.started.elapsed().as_secs_f64() / done as f64;
        let left = self.total.saturating_sub(self.done) as f64;
        (done > 0 && self.total > 0).then_some(pace * left)
    }

    /// Changes the label.
    pub fn relabel(&mut self, label: &str) {
        self.label = label.to_owned();
        if let Some(bar) = &self.bar {
            bar.set_prefix(label.to_owned());
        }
    }

    /// Runs `log`, which writes lines, without damaging the bar.
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
