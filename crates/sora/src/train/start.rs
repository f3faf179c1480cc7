//! Begins a training or goes on with one: checks the settings against the data, opens the folder, and
//! hands over to the loop.

use std::{fs, path::PathBuf, sync::atomic::AtomicBool};

use super::{
    Communicator, Event, Observer, Session, TensorBoard, Trained,
    checkpointing::{Folder, extend, same_settings},
    learner::Learner,
    memory,
};
use crate::{
    config::TrainConfig,
    data::Dataset,
    error::{Error, Result},
    run::{
        InitialWeights, Provenance, RunConfig, RunDir, TrainPlan,
        checkpoint::{self, Checkpoint, Position},
    },
};

/// The parts of a session besides its settings.
pub(super) struct Rest<'a> {
    pub(super) observers: Vec<Box<dyn Observer + 'a>>,
    pub(super) communicator: &'a dyn Communicator,
    pub(super) interrupt: &'a AtomicBool,
}

impl Rest<'_> {
    /// Begins a new training. Everything that can be refused is refused before a folder is made.
    pub(super) fn begin(
        mut self,
        mut config: TrainConfig,
        path: Option<PathBuf>,
        data: &Dataset,
    ) -> Result<Trained> {
        config.check()?;
        let dir = path.map(|path| RunDir::at(&path));
        if let Some(dir) = &dir {
            dir.check_free()?;
        } else if config.on_co == crate::config::OnCo::Rollback {
            let problem = "needs a folder with checkpoints to go back to";
            return Err(Error::setting("on_co", config.on_co, problem));
        }
        let initial = config.init.as_deref().map(InitialWeights::read).transpose()?;
        let mut plan = TrainPlan::new(&mut config, data)?;
        if let Some(initial) = &initial {
            initial.normalise(&mut plan.network);
        }
        let learner = Learner::new(&config, &plan.network, initial.as_ref())?;
        memory::check(&config, &plan, &learner.model)?;
        let folder = match dir {
            None => None,
            Some(dir) => {
                let run = RunConfig {
                    settings: config.clone(),
                    steps_per_epoch: plan.steps_per_epoch,
                    extended: Vec::new(),
                    init_sha256: initial.as_ref().map(InitialWeights::sha256),
                    network: plan.network.clone(),
                    data: Some(data.identity()?),
                    extra: plan.extra_identity()?,
                    provenance: Provenance::here(&config.device)?,
                    sealed: true,
                };
                let mut told = Vec::new();
                let mut tell = |line: &str| told.push(line.to_owned());
                let (dir, lock) = RunDir::create(dir.path(), &run, &mut tell)?;
                let digest = dir.config_digest()?;
                let folder = Folder::open(dir, digest, lock, None, &mut tell)?;
                self.warn(&told)?;
                Some(folder)
            }
        };
        self.session(&config, &plan, learner, Position::default(), folder).run()
    }

    /// Continues a run.
    pub(super) fn go_on(
        mut self,
        dir: RunDir,
        mut config: RunConfig,
        epochs: Option<u64>,
        data: &Dataset,
    ) -> Result<Trained> {
        let mut told = Vec::new();
        let mut tell = |line: &str| told.push(line.to_owned());
        let lock = dir.lock(&mut tell)?;
        config.check_data(data)?;
        let file = dir.config();
        let plan = TrainPlan::again(&mut config, data).map_err(|e| e.in_file(&file))?;
        let here = Provenance::here(&config.settings.device)?;
        let then = &config.provenance.instruction_set;
        if !then.is_empty() && *then != here.instruction_set {
            tell(&format!(
                "the run began with instruction set {then} and goes on with {}: the last bits \
                 differ from those of an unbroken run",
                here.instruction_set
            ));
        }
        let mut learner =
            Learner::new(&config.settings, &plan.network, None).map_err(|e| e.in_file(&file))?;
        memory::check(&config.settings, &plan, &learner.model)?;
        let digest = dir.config_digest()?;
        let take = |found: Checkpoint| {
            same_settings(&found, &digest, &config)?;
            learner.restore(&config.settings, &found)?;
            Ok(found)
        };
        let found = checkpoint::newest(&dir.checkpoints(), take, &mut tell)?;
        if found.is_none()
            && let Some(initial) = config.initial_weights()?
        {
            learner = Learner::new(&config.settings, &plan.network, Some(&initial))?;
        }
        // Newer checkpoints that were skipped are useless and would stand in the way of later ones.
        checkpoint::discard_after(&dir.checkpoints(), found.as_ref().map(|found| &*found.path))?;
        let progress = found.as_ref().map_or_else(Position::default, |c| c.progress.clone());
        if let Some(epochs) = epochs {
            extend_run(&dir, &mut config, epochs, progress.epoch)?;
        }
        let digest = dir.config_digest()?;
        let folder = Folder::open(dir, digest, lock, found.as_ref(), &mut tell)?;
        self.warn(&told)?;
        if let Some(found) = &found {
            let Position { epoch, step, .. } = found.progress;
            let path = found.path.display();
            let text = format!("going on from {path}: epoch {epoch}, step {step}");
            self.observers.observe(&Event::Message(&text))?;
        }
        drop(found);
        self.session(&config.settings, &plan, learner, progress, Some(folder)).run()
    }

    fn warn(&mut self, lines: &[String]) -> Result<()> {
        lines.iter().try_for_each(|line| self.observers.observe(&Event::Warning(line)))
    }

    fn session<'s>(
        self,
        config: &'s TrainConfig,
        plan: &'s TrainPlan,
        learner: Learner,
        progress: Position,
        folder: Option<Folder>,
    ) -> Session<'s>
    where
        Self: 's,
    {
        let mut observers: Vec<Box<dyn Observer + 's>> = Vec::new();
        if let Some(folder) = folder.as_ref().filter(|_| config.tensorboard) {
            observers.push(Box::new(TensorBoard::new(folder.dir.tensorboard())));
        }
        observers.extend(self.observers.into_iter().map(|o| o as Box<dyn Observer + 's>));
        let updates = learner.updates;
        Session {
            config,
            plan,
            learner,
            progress,
            folder,
            observers,
            communicator: self.communicator,
            interrupt: self.interrupt,
            updates,
            batches: plan.steps_per_epoch / updates,
            steps_per_epoch: plan.steps_per_epoch,
            validated: None,
            last_epoch: None,
            best: None,
        }
    }
}

/// Gives a run more epochs, so that its final figures are no longer final.
fn extend_run(dir: &RunDir, config: &mut RunConfig, epochs: u64, done: u64) -> Result<()> {
    let before = config.settings.epochs;
    extend(config, epochs, done)?;
    if config.settings.epochs == before {
        return Ok(());
    }
    dir.write_config(config)?;
    match fs::remove_file(dir.summary()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &dir.summary(), e))
        }
        _ => Ok(()),
    }
}
