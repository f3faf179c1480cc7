//! The training loop: [`Trainer`] sets it up, a session runs it.
//!
//! `step` makes one step; `validation` handles validation and the best weights, `checkpointing` the
//! run folder, and `rollback` the reaction to catastrophic overfitting. [`Observer`]s receive
//! everything that is shown or logged, and a [`Communicator`] connects the processes of a
//! data-parallel training.

mod average;
mod checkpointing;
mod issued;
mod learner;
mod memory;
mod observer;
mod rollback;
mod start;
mod step;
mod summary;
mod tensorboard;
mod trainer;
mod validation;
mod world;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::{
    average::WeightAverage,
    observer::{Event, Observer, Progress},
    summary::{Summary, Trained},
    tensorboard::TensorBoard,
    trainer::{Chosen, Trainer},
    world::OtherWorld,
};
use self::{checkpointing::Folder, issued::Issued, learner::Learner, validation::due};
pub use crate::ranks::{Alone, BatchNormScope, Communicator, Ranks, Threads};
use crate::{
    config::TrainConfig,
    data::{Loader, LoaderOptions, Share},
    diagnose::CoEvent,
    error::{Error, Result},
    method::TrainBatch,
    model::Model,
    profile::{self, Stage},
    run::{TrainPlan, checkpoint, log::EpochLine, log::ValFigures},
};

/// Number of batches prepared before the step that uses them.
const PREFETCH: usize = 4;

/// Whether training continues or has returned to an earlier step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Back,
}

/// A training in progress.
struct Session<'a> {
    config: &'a TrainConfig,
    plan: &'a TrainPlan,
    learner: Learner,
    progress: checkpoint::Position,
    /// The last step, while its figures are coming.
    issued: Option<Issued>,
    /// The run folder, where there is one and this rank writes it.
    folder: Option<Folder>,
    /// Whether a rank writes one.
    in_folder: bool,
    observers: Vec<Box<dyn Observer + 'a>>,
    ranks: Arc<Ranks>,
    interrupt: &'a AtomicBool,
    /// Number of updates that the method makes on each batch.
    updates: u64,
    /// Number of batches of an epoch.
    batches: u64,
    steps_per_epoch: u64,
    /// The validation made by the epoch's last step, if there was one.
    validated: Option<ValFigures>,
    last_epoch: Option<EpochLine>,
    /// Weights of the best validation, if no folder keeps them.
    best: Option<Model>,
}

impl Session<'_> {
    /// Trains to the last epoch.
    fn run(mut self) -> Result<Trained> {
        let loader = self.loader()?;
        let (step, total) = (self.progress.step, self.plan.steps(self.config));
        self.tell(&Event::Started { step, total, epochs: self.config.epochs })?;
        while !self.is_done() {
            if self.epoch(&loader)? == Flow::Back {
                continue;
            }
            self.checkpoint()?;
            if self.interrupted()? && !self.is_done() {
                return Err(self.interruption());
            }
        }
        self.finish()
    }

    /// Trains the rest of an epoch, and validates.
    fn epoch(&mut self, loader: &Loader) -> Result<Flow> {
        let mut loaded = loader.epoch(self.progress.epoch, self.progress.batch as usize);
        let device = self.learner.device.clone();
        let mut next =
            || loaded.next().map(|batch| Ok::<_, Error>(step::on_device(batch?, &device)));
        self.validated = None;
        profile::take();
        while let Some(batch) = profile::time(Stage::Loader, &mut next) {
            let first = self.progress.step;
            if let Some(event) = self.batch(&batch?)?
                && self.react(&event)? == Flow::Back
            {
                return Ok(Flow::Back);
            }
            // At the end of an epoch the checkpoint follows the validation.
            if self.progress.batch < self.batches {
                let interrupted = self.interrupted()?;
                if interrupted || due(self.config.checkpoint_steps, first, self.progress.step) {
                    if self.catch_up()? == Flow::Back {
                        return Ok(Flow::Back);
                    }
                    self.checkpoint()?;
                }
                if interrupted {
                    return Err(self.interruption());
                }
            }
        }
        if self.catch_up()? == Flow::Back {
            return Ok(Flow::Back);
        }
        tracing::debug!("where the epoch's time went, in seconds: {}", profile_text());
        let before = self.progress.co.event();
        self.finish_epoch()?;
        match self.progress.co.event() {
            Some(event) if before.is_none() => self.react(&event),
            _ => Ok(Flow::On),
        }
    }

    /// Makes all updates on one batch; returns the first event that the figures show which have come.
    fn batch(&mut self, batch: &TrainBatch) -> Result<Option<CoEvent>> {
        let first = self.progress.step;
        let mut noticed = None;
        for update in 1..=self.updates {
            let issued = self.step(batch)?;
            if let Some(before) = self.issued.take() {
                noticed = noticed.or(self.settle(before, None)?);
            }
            let last = update == self.updates;
            self.progress.batch += u64::from(last);
            if issued.metrics.known().is_some() || last && self.validation_due(first) {
                noticed = noticed.or(self.settle(issued, last.then_some(first))?);
            } else {
                self.issued = Some(issued);
            }
        }
        Ok(noticed)
    }

    fn loader(&self) -> Result<Loader> {
        let options = LoaderOptions {
            batch: self.config.batch,
            seed: self.config.seed,
            shuffle: true,
            // The default is true, because a last batch of a few images distorts the batch
            // statistics.
            drop_last: self.config.drop_last,
            augment: self.config.augment(),
            prefetch: PREFETCH,
            workers: 0,
            share: Share { rank: self.ranks.link().rank(), world: self.ranks.world() },
        };
        let TrainPlan { train, extra, .. } = self.plan;
        Ok(Loader::with_extra(train.clone(), extra.clone(), options)?)
    }

    fn is_done(&self) -> bool {
        self.progress.epoch >= self.config.epochs
            || self.progress.stopped_early == Some(self.config.epochs)
    }

    fn warming_up(&self, step: u64) -> bool {
        self.config.warming_up(step, self.steps_per_epoch)
    }

    fn tell(&mut self, event: &Event<'_>) -> Result<()> {
        self.observers.observe(event)
    }

    fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.dir.path().to_owned())
    }

    fn interrupted(&self) -> Result<bool> {
        self.ranks.link().any(self.interrupt.load(Ordering::Relaxed))
    }

    fn interruption(&self) -> Error {
        Error::Interrupted { step: self.progress.step, run: self.path() }
    }
}

/// The stages of the work since the last call, the longest first.
fn profile_text() -> String {
    let mut parts: Vec<_> =
        profile::take().into_iter().filter(|(_, seconds)| *seconds > 0.0).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let text: Vec<_> =
        parts.into_iter().map(|(name, seconds)| format!("{name} {seconds:.3}")).collect();
    text.join(", ")
}
