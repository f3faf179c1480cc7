//! Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Progress of a known number of steps.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts at `done` of `total`.
    pub fn new(label: &str, done: u64, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done).with_prefix(label.to_owned());
            // A template that does not parse would be a mistake in this line; the bar then keeps
            // its default look.
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {bar:10} {pos}/{len} {eta} left {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        Self { bar, label: label.to_owned(), total, done, started: now, last_line: now }
    }

    /// One step further; `message` is asked for only when it is shown.
    pub fn advance(&mut self, by: u64, message: impl FnOnce() -> String) {
        self.done += by;
        match &self.bar {
            Some(bar) => {
                bar.set_message(message());
                bar.inc(by);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let left = self.started.elapsed().as_secs_f64() / self.done.max(1) as f64
                    * self.total.saturating_sub(self.done) as f64;
                tracing::info!(
                    "{} {}/{} about {left:.0} s left, {}",
                    self.label,
                    self.done,
                    self.total,
                    message()
                );
            }
            None => {}
        }
    }

    /// Goes back (or on) to `done`.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Prints a line without tearing the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::info!("{text}")),
            None => tracing::info!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
