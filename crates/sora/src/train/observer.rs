//! What a training tells while it goes on, and who listens.
//!
//! The library shows and logs nothing by itself: progress bars, a table in a terminal, event files
//! of TensorBoard, a callback in another language are all [`Observer`]s.

use std::{fmt, path::Path};

use crate::{
    diagnose::CoEvent,
    error::Result,
    run::log::{EpochLine, Rollback, StepLine, ValFigures},
};

/// Something that happened.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training begins, or goes on from a checkpoint.
    Started {
        /// Steps that are complete.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// Epochs of the whole run.
        epochs: u64,
    },
    /// A step is complete.
    Step(&'a StepLine),
    /// A validation is complete.
    Validation {
        /// Steps complete before it.
        step: u64,
        /// What it found.
        figures: &'a ValFigures,
    },
    /// An epoch is complete.
    Epoch(&'a EpochLine),
    /// Catastrophic overfitting was noticed.
    Overfitting(&'a CoEvent),
    /// Training went back to an earlier step and goes on with another method.
    RolledBack(&'a Rollback),
    /// A checkpoint was written.
    Checkpoint(&'a Path),
    /// Something that a user should know.
    Warning(&'a str),
    /// Something that a user may want to know.
    Message(&'a str),
    /// Part of a longer work, such as an attack of an evaluation.
    Progress(Progress<'a>),
}

/// How far a longer work has come.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    /// Its name, such as the attack's.
    pub task: &'a str,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What there is to say besides; it is formatted only when it is shown.
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

/// Listens to a training or an evaluation.
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
    /// Takes `event` in.
    ///
    /// # Errors
    /// What ends the training: a log that must be kept and cannot be written. An observer that only
    /// shows something should drop what it cannot show.
    fn observe(&mut self, event: &Event<'_>) -> Result<()>;
}

/// Listens to nothing.
impl Observer for () {
    fn observe(&mut self, _: &Event<'_>) -> Result<()> {
        Ok(())
    }
}

/// Each in turn.
impl Observer for Vec<Box<dyn Observer + '_>> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.observe(event))
    }
}
