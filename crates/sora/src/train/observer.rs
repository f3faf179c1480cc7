//! The events of a training, and their observers.
//!
//! The library shows and logs nothing by itself. Progress bars, a table in a terminal, event files
//! of TensorBoard and a callback in another language are all [`Observer`]s.

use std::{fmt, path::Path};

use crate::{
    diagnose::CoEvent,
    error::Result,
    run::log::{EpochLine, Rollback, StepLine, ValFigures},
};

/// An event of a training or an evaluation.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training begins, or continues from a checkpoint.
    Started {
        /// Number of completed steps.
        step: u64,
        /// Number of steps of the whole run.
        total: u64,
        /// Number of epochs of the whole run.
        epochs: u64,
    },
    /// A step is complete.
    Step(&'a StepLine),
    /// A validation is complete.
    Validation {
        /// Number of steps completed before it.
        step: u64,
        /// The figures of the validation.
        figures: &'a ValFigures,
    },
    /// An epoch is complete.
    Epoch(&'a EpochLine),
    /// Catastrophic overfitting was noticed.
    Overfitting(&'a CoEvent),
    /// Training returned to an earlier step and continues with another method.
    RolledBack(&'a Rollback),
    /// A checkpoint was written.
    Checkpoint(&'a Path),
    /// A warning for the user.
    Warning(&'a str),
    /// Information for the user.
    Message(&'a str),
    /// Progress of a longer work, such as an attack of an evaluation.
    Progress(Progress<'a>),
}

/// Progress of a longer work.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    /// Its name, such as the attack's.
    pub task: &'a str,
    /// Number of units done.
    pub done: u64,
    /// Number of units in total.
    pub total: u64,
    /// A remark; it is formatted only if it is shown.
    pub note: &'a dyn fmt::Display,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} {}", self.task, self.done, self.total, self.note)
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { step, total, epochs } => {
                write!(f, "Started at {step} of {total} steps, {epochs} epochs")
            }
            Self::Step(line) => line.fmt(f),
            Self::Validation { step, figures } => write!(f, "Validation at {step}: {figures:?}"),
            Self::Epoch(line) => line.fmt(f),
            Self::Overfitting(event) => event.fmt(f),
            Self::RolledBack(rollback) => rollback.fmt(f),
            Self::Checkpoint(path) => write!(f, "Checkpoint {}", path.display()),
            Self::Warning(text) => write!(f, "Warning: {text}"),
            Self::Message(text) => write!(f, "Message: {text}"),
            Self::Progress(progress) => progress.fmt(f),
        }
    }
}

/// Receives the events of a training or an evaluation.
///
/// ```
/// use sora::train::{Event, Observer};
///
/// /// Keeps the loss of every step.
/// struct Losses(Vec<f32>);
///
/// impl Observer for Losses {
///     fn observe(&mut self, event: &Event<'_>) -> sora::Result<()> {
///         if let Event::Step(line) = event {
///             self.0.push(line.loss);
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Observer {
    /// Receives `event`.
    ///
    /// # Errors
    /// An error ends the training: for example, a log that must be kept cannot be written. An
    /// observer that only shows something should ignore failures to show it.
    fn observe(&mut self, event: &Event<'_>) -> Result<()>;
}

/// Ignores every event.
impl Observer for () {
    fn observe(&mut self, _: &Event<'_>) -> Result<()> {
        Ok(())
    }
}

/// Passes every event to each observer in turn.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.observe(event))
    }
}
