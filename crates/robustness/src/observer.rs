//! What an evaluation says while it runs.

use std::fmt::Debug;

/// Is told how an evaluation goes: a progress bar, a log, a callback.
pub trait EvalObserver: Debug + Send {
    /// Something happened.
    fn on(&mut self, event: &EvalEvent<'_>);
}

/// What happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EvalEvent<'a> {
    /// Work of `total` units (images times rounds of an attack) begins.
    Started {
        /// The attack, or what is measured.
        what: &'a str,
        /// Units of work.
        total: u64,
    },
    /// Work goes on.
    Advanced {
        /// The attack, or what is measured.
        what: &'a str,
        /// Units of work that are done.
        done: u64,
        /// Units of work.
        total: u64,
        /// Where an attack stands; `None` outside of one.
        attack: Option<Standing>,
    },
    /// The state can no longer be written: the work goes on, but a kill would lose it.
    StateLost {
        /// Why.
        error: &'a crate::Error,
    },
    /// Work is done.
    Finished {
        /// The attack, or what is measured.
        what: &'a str,
    },
}

/// Where an attack stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The round, from 0.
    pub round: usize,
    /// Rounds of the attack.
    pub rounds: usize,
    /// Images that stand at most.
    pub standing: u64,
    /// Images evaluated, the misclassified ones with them.
    pub images: u64,
}

/// An observer that may not be there, and the work at hand.
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

    /// `done` units are done; going back is not said.
    pub fn reach(&mut self, done: u64, attack: Option<Standing>) {
        self.done = self.done.max(done);
        if let Some(observer) = &mut self.observer {
            let (what, done, total) = (self.what, self.done, self.total);
            observer.on(&EvalEvent::Advanced { what, done, total, attack });
        }
    }

    /// Tells something else.
    pub fn tell(&mut self, event: &EvalEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            observer.on(event);
        }
    }

    /// `by` units more are done.
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
