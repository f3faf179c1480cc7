//! How a session starts: a new training, or a run that continues, in one process or in several.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Event, Observer, OtherWorld, Ranks, Session, TensorBoard, Trained,
    checkpointing::{Folder, extend, same_settings},
    learner::Learner,
    memory, world,
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
    pub(super) ranks: Arc<Ranks>,
    pub(super) interrupt: &'a AtomicBool,
}

/// What may be changed of a run that goes on.
#[derive(Clone, Copy)]
pub(super) struct GoingOn {
    pub(super) epochs: Option<u64>,
    pub(super) other_world: OtherWorld,
}

impl Rest<'_> {
    /// Begins a new training. Everything that can be refused is refused before a folder is made.
    pub(super) fn begin(
        mut self,
        mut config: TrainConfig,
        path: Option<PathBuf>,
        data: &Dataset,
    ) -> Result<Trained> {
        let ranks = Arc::clone(&self.ranks);
        let in_folder = path.is_some();
        let dir = path.filter(|_| ranks.writes()).map(|path| RunDir::at(&path));
        let ready = ready(&mut config, dir.as_ref(), in_folder, data, &ranks);
        let (plan, learner, init) = world::agreed(ranks.link(), ready)?;
        world::same_everywhere(&ranks, &config, &plan, init.as_deref(), data)?;
        let made = dir.map(|dir| self.new_folder(dir, &config, &plan, init, data)).transpose();
        let folder = world::agreed(ranks.link(), made)?;
        let begun = Begun { learner, progress: Position::default(), folder, in_folder };
        self.session(&config, &plan, begun).run()
    }

    /// Makes the folder of a new run.
    fn new_folder(
        &mut self,
        dir: RunDir,
        config: &TrainConfig,
        plan: &TrainPlan,
        init_sha256: Option<String>,
        data: &Dataset,
    ) -> Result<Folder> {
        let run = RunConfig {
            settings: config.clone(),
            steps_per_epoch: plan.steps_per_epoch,
            extended: Vec::new(),
            init_sha256,
            world: self.ranks.world(),
            worlds: Vec::new(),
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
        Ok(folder)
    }

    /// Continues a run.
    pub(super) fn go_on(
        mut self,
        dir: RunDir,
        mut config: RunConfig,
        change: GoingOn,
        data: &Dataset,
    ) -> Result<Trained> {
        let ranks = Arc::clone(&self.ranks);
        let mut told = Vec::new();
        let mut tell = |line: &str| told.push(line.to_owned());
        let lock = ranks.writes().then(|| dir.lock(&mut tell)).transpose();
        let lock = world::agreed(ranks.link(), lock)?;
        let ready = ready_again(&dir, &mut config, data, change.other_world, &ranks, &mut tell);
        let (plan, mut learner, other_world) = world::agreed(ranks.link(), ready)?;
        let init = config.init_sha256.as_deref();
        world::same_everywhere(&ranks, &config.settings, &plan, init, data)?;
        let found = take_newest(&dir, &config, &mut learner, &ranks, &mut tell)?;
        if found.is_none() && config.settings.init.is_some() {
            learner = world::agreed(ranks.link(), with_initial_weights(&config, &plan))?;
        }
        let progress = found.as_ref().map_or_else(Position::default, |c| c.progress.clone());
        if let Some(epochs) = change.epochs {
            extend(&mut config, epochs, progress.epoch)?;
        }
        let opened = lock
            .map(|lock| reopen(dir, lock, &config, found.as_ref(), other_world, &mut tell))
            .transpose();
        let folder = world::agreed(ranks.link(), opened)?;
        self.warn(&told)?;
        if let Some(found) = &found {
            let Position { epoch, step, .. } = found.progress;
            let path = found.path.display();
            let text = format!("going on from {path}: epoch {epoch}, step {step}");
            self.observers.observe(&Event::Message(&text))?;
        }
        drop(found);
        let begun = Begun { learner, progress, folder, in_folder: true };
        self.session(&config.settings, &plan, begun).run()
    }

    fn warn(&mut self, lines: &[String]) -> Result<()> {
        lines.iter().try_for_each(|line| self.observers.observe(&Event::Warning(line)))
    }

    fn session<'s>(self, config: &'s TrainConfig, plan: &'s TrainPlan, begun: Begun) -> Session<'s>
    where
        Self: 's,
    {
        let Begun { learner, progress, folder, in_folder } = begun;
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
            in_folder,
            observers,
            ranks: self.ranks,
            interrupt: self.interrupt,
            updates,
            batches: plan.steps_per_epoch / updates,
            steps_per_epoch: plan.steps_per_epoch,
            issued: None,
            validated: None,
            last_epoch: None,
            best: None,
        }
    }
}

/// What a session starts with.
struct Begun {
    learner: Learner,
    progress: Position,
    folder: Option<Folder>,
    in_folder: bool,
}

/// Settles the settings of a new training and makes what learns, or refuses them; the last value is
/// the digest of the weights that it begins with, if those are not random.
fn ready(
    config: &mut TrainConfig,
    dir: Option<&RunDir>,
    in_folder: bool,
    data: &Dataset,
    ranks: &Ranks,
) -> Result<(TrainPlan, Learner, Option<String>)> {
    config.check()?;
    if let Some(dir) = dir {
        dir.check_free()?;
    } else if !in_folder && config.on_co == crate::config::OnCo::Rollback {
        let problem = "needs a folder with checkpoints to go back to";
        return Err(Error::setting("on_co", config.on_co, problem));
    }
    let [_, height, width] = data.train.shape();
    let initial = InitialWeights::of(config, [height, width])?;
    if let Some(note) = initial.as_ref().and_then(InitialWeights::note) {
        tracing::info!("{note}");
    }
    let plan = TrainPlan::begin(config, data, initial.as_ref())?;
    world::check(config, &plan, ranks.world())?;
    let learner = Learner::new(config, &plan.network, initial.as_ref())?;
    memory::check(config, &plan, &learner.model, ranks.world())?;
    Ok((plan, learner, initial.as_ref().map(InitialWeights::sha256)))
}

/// The same for a run that goes on; the last value says whether the number of ranks has changed.
fn ready_again(
    dir: &RunDir,
    config: &mut RunConfig,
    data: &Dataset,
    other_world: OtherWorld,
    ranks: &Ranks,
    tell: &mut dyn FnMut(&str),
) -> Result<(TrainPlan, Learner, bool)> {
    let world = ranks.world();
    let changed = world::take(config, world, other_world)?;
    config.check_data(data)?;
    let file = dir.config();
    let plan = TrainPlan::again(config, data).map_err(|e| e.in_file(&file))?;
    world::check(&config.settings, &plan, world)?;
    let here = Provenance::here(&config.settings.device)?;
    let then = &config.provenance.instruction_set;
    if !then.is_empty() && *then != here.instruction_set {
        tell(&format!(
            "the run began with instruction set {then} and goes on with {}: the last bits differ \
             from those of an unbroken run",
            here.instruction_set
        ));
    }
    if let (true, Some(before)) = (changed, config.worlds.last()) {
        tell(&format!(
            "the run goes on with {world} processes instead of {before}: the last bits differ \
             from those of an unbroken run"
        ));
    }
    let learner =
        Learner::new(&config.settings, &plan.network, None).map_err(|e| e.in_file(&file))?;
    memory::check(&config.settings, &plan, &learner.model, world)?;
    Ok((plan, learner, changed))
}

/// Takes over the newest checkpoint on every rank: the first finds it, the others read it.
fn take_newest(
    dir: &RunDir,
    config: &RunConfig,
    learner: &mut Learner,
    ranks: &Arc<Ranks>,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<Checkpoint>> {
    let digest = dir.config_digest()?;
    let mut take = |found: Checkpoint| {
        same_settings(&found, &digest, config)?;
        ranks.enter(|| learner.restore(&config.settings, &found))??;
        Ok(found)
    };
    let found = match ranks.writes() {
        true => checkpoint::newest(&dir.checkpoints(), &mut take, |line| tell(line)),
        false => Ok(None),
    };
    let found = world::agreed(ranks.link(), found)?;
    if ranks.world() == 1 {
        return Ok(found);
    }
    let path = found.as_ref().map(|found| found.path.display().to_string());
    let all = ranks.link().gather_each(path.unwrap_or_default().as_bytes())?;
    let path = String::from_utf8_lossy(&all[0]);
    let read = match ranks.writes() || path.is_empty() {
        true => Ok(found),
        false => checkpoint::load(Path::new(&*path)).and_then(&mut take).map(Some),
    };
    world::agreed(ranks.link(), read)
}

/// The state at the start of a run that began with the weights of another one.
fn with_initial_weights(config: &RunConfig, plan: &TrainPlan) -> Result<Learner> {
    let initial = config.initial_weights()?;
    Learner::new(&config.settings, &plan.network, initial.as_ref())
}

/// Opens the folder of a run for what follows the checkpoint `found`, and writes down what has
/// changed of its settings. The summary of a run that is not, or no longer, finished goes.
fn reopen(
    dir: RunDir,
    lock: fs::File,
    config: &RunConfig,
    found: Option<&Checkpoint>,
    other_world: bool,
    tell: &mut dyn FnMut(&str),
) -> Result<Folder> {
    // Newer checkpoints that were skipped are useless and would stand in the way of later ones.
    checkpoint::discard_after(&dir.checkpoints(), found.map(|found| &*found.path))?;
    let (_, before) = RunDir::open(dir.path())?;
    let extended = before.settings.epochs != config.settings.epochs;
    if extended || other_world {
        dir.write_config(config)?;
    }
    let all = config.settings.epochs;
    let unfinished = found.is_none_or(|found| {
        found.progress.epoch < all && found.progress.stopped_early != Some(all)
    });
    if unfinished {
        match fs::remove_file(dir.summary()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &dir.summary(), e));
            }
            _ => {}
        }
    }
    let digest = dir.config_digest()?;
    Folder::open(dir, digest, lock, found, tell)
}
