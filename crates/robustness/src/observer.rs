//! The events of a running evaluation.

use std::fmt::Debug;

/// Receives the events of an evaluation: a progress bar, a log, a callback.
pub trait EvalObserver: Debug + Send {
    /// Receives one event.
    fn on(&mut self, event: &EvalEvent<'_>);
}

/// An event of an evaluation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EvalEvent<'a> {
    /// Work of `total` units (images times rounds of an attack) begins.
    Started {
        /// The name of the attack or of the measurement.
        what: &'a str,
        /// Number of units of work.
        total: u64,
    },
    /// Some of the work is done.
    Advanced {
        /// The name of the attack or of the measurement.
        what: &'a str,
        /// Number of units of work that are done.
        done: u64,
        /// Number of units of work in total.
        total: u64,
        /// State of the attack; `None` outside of an attack.
        attack: Option<Standing>,
    },
    /// The state can no longer be written. The work continues, but a kill would lose it.
    StateLost {
        /// The reason.
        error: &'a crate::Error,
    },
    /// Work is done.
    Finished {
        /// The name of the attack or of the measurement.
        what: &'a str,
    },
}

/// The state of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The round, from 0.
    pub round: usize,
    /// Number of rounds of the attack.
    pub rounds: usize,
    /// Upper bound of the number of images that stand.
    pub standing: u64,
    /// Number of images evaluated, including those that are misclassified without attack.
    pub images: u64,
}

/// An optional observer, and the progress of the current work.
pub(crate) struct Progress<'a> {
    observer: Option<&'a mut dyn EvalObserver>,
    what: &'a str,
    total: u64,
    done: u64,
}

impl<'a> Progress<'a> {
    pub fn begin(
        mut observer: Option<&'a mut dyn EvalObserver>,
        what: &'a str,
        total: usize,
    ) -> Self {
        let total = total as u64;
        if let Some(observer) = &mut observer {
            observer.on(&EvalEvent::Started { what, total });
        }
        Self { observer, what, total, done: 0 }
    }

    /// Reports that `done` units are done; a smaller number than before is not reported.
    pub fn reach(&mut self, done: u64, attack: Option<Standing>) {
        self.done = self.done.max(done);
        if let Some(observer) = &mut self.observer {
            let (what, done, total) = (self.what, self.done, self.total);
            observer.on(&EvalEvent::Advanced { what, done, total, attack });
        }
    }

    /// Passes on another event.
    pub fn tell(&mut self, event: &EvalEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            observer.on(event);
        }
    }

    /// Reports that `by` more units are done.
    pub fn advance(&mut self, by: usize) {
        self.reach(self.done + by as u64, None);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(observer) = &mut self.observer {
            observer.on(&EvalEvent::Finished { what: self.what });
        }
    }
}
