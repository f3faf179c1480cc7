//! The reaction of a run to catastrophic overfitting.

use std::path::PathBuf;

use super::{Event, Flow, Session, learner::Learner, world};
use crate::{
    config::OnCo,
    diagnose::{CoDetector, CoEvent},
    error::{Error, Result},
    model::Shape,
    run::{
        InitialWeights, RunDir,
        checkpoint::{self, Position},
        log::Rollback,
    },
};

impl Session<'_> {
    /// Reacts to catastrophic overfitting as the settings ask; returns whether training went back.
    ///
    /// # Errors
    /// [`Error::CoStopped`] where the settings ask to stop; [`Error`] for a folder that cannot be
    /// written.
    pub(super) fn react(&mut self, event: &CoEvent) -> Result<Flow> {
        self.tell(&Event::Overfitting(event))?;
        match self.config.on_co {
            OnCo::Rollback if self.progress.rollback.is_none() => {
                let rollback = self.roll_back(event)?;
                self.tell(&Event::RolledBack(&rollback))?;
                Ok(Flow::Back)
            }
            OnCo::Stop => {
                if let Some(issued) = self.issued.take() {
                    // The detector tells of one event.
                    self.settle(issued, None)?;
                }
                self.checkpoint()?;
                Err(Error::CoStopped { event: Box::new(*event), run: self.path() })
            }
            // After a first rollback there is no safer method to continue with.
            OnCo::Warn | OnCo::Rollback => Ok(Flow::On),
        }
    }

    /// Returns to the last regular checkpoint before the onset, or to the start, and continues with
    /// another method.
    ///
    /// A kill at any point leaves a folder from which a resumed run goes back in the same way:
    /// lines are removed only after the newer checkpoints, and removed steps are trained again.
    fn roll_back(&mut self, event: &CoEvent) -> Result<Rollback> {
        let target = self.of_writer(self.regular_checkpoint(event.onset)?)?;
        let found = target.as_deref().map(checkpoint::load).transpose();
        // Everybody has read it before anything goes.
        let found = world::agreed(self.ranks.link(), found)?;
        // A step that was made meanwhile is one of those that are abandoned.
        self.issued = None;
        let before = std::mem::take(&mut self.progress);
        match found {
            Some(found) => {
                self.learner.restore_weights(&found)?;
                self.progress = found.progress;
            }
            None => {
                let initial = world::agreed(self.ranks.link(), self.initial_weights())?;
                self.learner = Learner::new(self.config, &self.plan.network, initial.as_ref())?;
            }
        }
        let rollback = Rollback {
            co: *event,
            to_step: self.progress.step,
            from_method: self.config.method.clone(),
            method: self.config.on_co_method.clone(),
        };
        self.learner.take_over(self.config, &rollback.method)?;
        let progress = &mut self.progress;
        // The cost of the abandoned steps stays in the account.
        (progress.passes, progress.seconds) = (before.passes, before.seconds);
        progress.co = CoDetector::default();
        progress.rollback = Some(rollback.clone());
        // The weights of an abandoned step cannot be the run's best.
        progress.best = before.best.filter(|best| best.step <= rollback.to_step);
        self.cut_off(target.as_deref(), &before)?;
        self.checkpoint()?;
        Ok(rollback)
    }

    /// The weights that the run began with, if they were not random.
    fn initial_weights(&self) -> Result<Option<InitialWeights>> {
        match &self.folder {
            Some(folder) => RunDir::open(folder.dir.path())?.1.initial_weights(),
            // The rank that writes compares them with those of the begin.
            None if self.in_folder => {
                let Shape { height, width, .. } = self.plan.network.shape;
                InitialWeights::of(self.config, [height, width])
            }
            None => Ok(None),
        }
    }

    /// The path that the rank with the folder has found.
    fn of_writer(&self, path: Option<PathBuf>) -> Result<Option<PathBuf>> {
        if self.ranks.world() == 1 {
            return Ok(path);
        }
        let text = path.map(|path| path.display().to_string()).unwrap_or_default();
        let all = self.ranks.link().gather_each(text.as_bytes())?;
        let text = all.first().map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(text.filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    /// Moves the lines of the abandoned steps aside and removes their checkpoints.
    fn cut_off(&mut self, target: Option<&std::path::Path>, before: &Position) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let progress = &self.progress;
        let lines = folder.metrics.after(progress.metrics_bytes)?;
        folder.abandon(&lines)?;
        checkpoint::discard_after(&folder.dir.checkpoints(), target)?;
        folder.metrics.cut(progress.metrics_bytes)?;
        folder.epochs.cut(progress.epochs_bytes)?;
        let best = folder.dir.best();
        if before.best.is_some() && progress.best.is_none() && best.exists() {
            std::fs::remove_file(&best).map_err(|e| Error::io("remove", &best, e))?;
        }
        Ok(())
    }
}
