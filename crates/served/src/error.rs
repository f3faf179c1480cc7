//! What goes wrong with a model that runs elsewhere, in one line.

use std::{io, time::Duration};

/// Result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model that cannot be asked, or an answer that is none. `who` is the command or the URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command line that is no list of words.
    #[error(
        "command '{0}': expected a program and its arguments; a quote is open, or there is nothing"
    )]
    Command(String),
    /// A program that does not start.
    #[error("{who}: cannot start it: {source}")]
    Start {
        /// The command.
        who: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A model that does not say, or says wrongly, what it takes and gives.
    #[error("{who}: its description {problem}")]
    Description {
        /// The command or URL.
        who: String,
        /// What is wrong with it, to follow "its description".
        problem: String,
    },
    /// An option that does not fit the model.
    #[error("{who}: {problem}")]
    Option {
        /// The command or URL.
        who: String,
        /// Which, and what it should be.
        problem: String,
    },
    /// No answer in time.
    #[error("{who}: no answer within {} seconds", after.as_secs_f64())]
    Late {
        /// The command or URL.
        who: String,
        /// How long was waited.
        after: Duration,
    },
    /// A program that ended, or a connection that broke, before the answer came.
    #[error("{who}: {how} before it answered")]
    Gone {
        /// The command or URL.
        who: String,
        /// What happened, such as "ended (exit status: 1)".
        how: String,
    },
    /// A server that is busy or not ready.
    #[error("{who}: it is busy ({status})")]
    Busy {
        /// The URL.
        who: String,
        /// Status of the answer.
        status: String,
        /// How long it asks to be left alone.
        wait: Option<Duration>,
    },
    /// The model says that it failed.
    #[error("{who}: it failed: {text}")]
    Failed {
        /// The command or URL.
        who: String,
        /// Its words, one line.
        text: String,
    },
    /// An answer of the wrong form.
    #[error("{who}: its answer {problem}")]
    Answer {
        /// The command or URL.
        who: String,
        /// What is wrong with it, to follow "its answer".
        problem: String,
    },
    /// As often as was asked, nothing came.
    #[error("{last} (asked {times} times)")]
    Exhausted {
        /// What happened at last.
        last: Box<Error>,
        /// How often it was asked.
        times: u32,
    },
}

impl Error {
    /// Whether the next try may do better.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Gone { .. } | Self::Busy { .. })
    }

    /// Whether the call is wrong, or the model not what it says; else the work failed.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Command(_)
                | Self::Start { .. }
                | Self::Description { .. }
                | Self::Option { .. }
                | Self::Answer { .. }
        )
    }
}

/// The first line of what a model says, short and without control characters.
pub(crate) fn line_of(text: &str) -> String {
    const LONGEST: usize = 200;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(no words)");
    line.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
