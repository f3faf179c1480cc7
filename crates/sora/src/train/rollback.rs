//! What a run does when catastrophic overfitting is found.

use super::{Event, Flow, Session, learner::Learner};
use crate::{
    config::OnCo,
    diagnose::{CoDetector, CoEvent},
    error::{Error, Result},
    files,
    run::{
        checkpoint::{self, Position},
        log::Rollback,
    },
};

impl Session<'_> {
    /// Does what the run asks for when catastrophic overfitting is found; says whether training
    /// went back.
    ///
    /// # Errors
    /// [`Error::CoStopped`] where that is asked for; a folder that cannot be written.
    pub(super) fn react(&mut self, event: &CoEvent) -> Result<Flow> {
        self.tell(&Event::Overfitting(event))?;
        match self.config.on_co {
            OnCo::Rollback if self.progress.rollback.is_none() => {
                let rollback = self.roll_back(event)?;
                self.tell(&Event::RolledBack(&rollback))?;
                Ok(Flow::Back)
            }
            OnCo::Stop => {
                self.checkpoint()?;
                Err(Error::CoStopped { event: Box::new(*event), run: self.path() })
            }
            // A second time there is nothing safer to go on with.
            OnCo::Warn | OnCo::Rollback => Ok(Flow::On),
        }
    }

    /// Goes back to the last regular checkpoint before the onset, or to the start, and on with
    /// another method.
    ///
    /// A kill at any point leaves a folder from which a resumed run goes back in the same way:
    /// nothing is cut off before the newer checkpoints are gone, and what is gone is trained again.
    fn roll_back(&mut self, event: &CoEvent) -> Result<Rollback> {
        let target = self.regular_checkpoint(event.onset)?;
        let found = target.as_deref().map(checkpoint::load).transpose()?;
        let before = std::mem::take(&mut self.progress);
        match found {
            Some(found) => {
                self.learner.restore_weights(&found)?;
                self.progress = found.progress;
            }
            None => self.learner = Learner::new(self.config, &self.plan.network)?,
        }
        let rollback = Rollback {
            co: *event,
            to_step: self.progress.step,
            from_method: self.config.method.clone(),
            method: self.config.on_co_method.clone(),
        };
        self.learner.take_over(self.config, &rollback.method)?;
        let progress = &mut self.progress;
        // What the abandoned steps cost stays in the account.
        (progress.passes, progress.seconds) = (before.passes, before.seconds);
        progress.co = CoDetector::default();
        progress.rollback = Some(rollback.clone());
        // Weights of an abandoned step are not the run's best.
        progress.best = before.best.filter(|best| best.step <= rollback.to_step);
        self.cut_off(target.as_deref(), &before)?;
        self.checkpoint()?;
        Ok(rollback)
    }

    /// Sets the lines and checkpoints of the abandoned steps aside.
    fn cut_off(&mut self, target: Option<&std::path::Path>, before: &Position) -> Result<()> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let progress = &self.progress;
        let lines = folder.metrics.after(progress.metrics_bytes)?;
        files::write_atomic(&folder.dir.abandoned(), &lines)?;
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
