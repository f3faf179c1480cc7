//! The training loop, in one visible place.

mod observer;

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::{
    average::WeightAverage,
    checkpoint::{self, Checkpoint, Progress, State},
    config::{OnCo, TrainConfig},
    data::{self, Loader, LoaderOptions, Split},
    device,
    diagnose::{self, CoDetector, CoEvent},
    error::{Error, Result},
    evaluate::{self, EvalConfig},
    files,
    method::{self, Batch, Method, Passes, Place, StepContext, StepSettings},
    metrics::{EpochLine, EpochTotals, Rollback, StepLine, ValFigures},
    model::Model,
    nn::BnMode,
    noise::Noise,
    optim::{Optimizer, OptimizerKind},
    profile::{self, Stage},
    run::{RunDir, TrainData},
    tensorboard::EventWriter,
    ui,
};

pub use observer::{Event, Observer};

/// Batches prepared ahead of the step.
const PREFETCH: usize = 4;

/// The final figures of a run: `summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Method.
    pub method: String,
    /// Data set.
    pub dataset: String,
    /// Epochs trained.
    pub epochs: u64,
    /// Steps trained.
    pub steps: u64,
    /// Catastrophic overfitting found, since the rollback if there was one.
    pub co: Option<CoEvent>,
    /// The rollback of the run, if there was one.
    pub rollback: Option<Rollback>,
    /// The last epoch's line.
    pub last_epoch: Option<EpochLine>,
    /// Forward and backward passes of all training steps.
    pub passes: Passes,
    /// Number of trained values.
    pub parameters: u64,
    /// Seconds of training, without validation (wall clock).
    pub seconds: f64,
    /// Largest resident memory (MiB).
    pub peak_rss_mib: u64,
}

/// A run in memory.
struct Run<'a> {
    dir: &'a RunDir,
    config: &'a TrainConfig,
    device: Device,
    model: Model,
    method: Box<dyn Method>,
    attack_bn: BnMode,
    optimizer: Box<dyn Optimizer>,
    average: Option<WeightAverage>,
    progress: Progress,
    metrics: File,
    epochs: File,
    tensorboard: Option<EventWriter>,
    steps_per_epoch: u64,
    updates: u64,
}

/// Trains the run in `dir` from its newest checkpoint, or from the start, to its last epoch.
///
/// The same settings on the same machine give the same bits, whether or not the run was interrupted
/// in between.
///
/// # Errors
/// [`Error::Interrupted`] after `interrupt` was set and a checkpoint written; another process that
/// trains in `dir`; a loss that is not finite; a disk or device that fails.
pub fn train(
    dir: &RunDir,
    config: &TrainConfig,
    data: &TrainData,
    interrupt: &AtomicBool,
) -> Result<Summary> {
    let options = LoaderOptions {
        batch: config.batch,
        seed: config.seed,
        shuffle: true,
        // By default: a last batch of a few images spoils the batch statistics.
        drop_last: config.drop_last,
        augment: config.augment(),
        prefetch: PREFETCH,
        workers: 0,
    };
    let loader = Loader::new(data.train.clone(), options)?;
    let batches = loader.batches_per_epoch() as u64;
    let _lock = dir.lock()?;
    let mut run = Run::open(dir, config, batches)?;
    let updates = run.updates;
    let total = run.steps_per_epoch * config.epochs;
    let mut bar = ui::Progress::new("train", run.progress.step, total);

    'epochs: while run.progress.epoch < config.epochs {
        let epoch = run.progress.epoch;
        // Validation after the epoch's last step, if it was made there already.
        let mut last_val = None;
        let mut loaded = loader.epoch(epoch, run.progress.batch as usize);
        profile::take();
        while let Some(batch) = profile::time(Stage::Loader, || {
            loaded.next().map(|batch| Ok::<_, Error>(on_device(batch?, &run.device)))
        }) {
            let batch = batch?;
            let first = run.progress.step;
            let due = |every: Option<u64>, step: u64| {
                every.is_some_and(|every| step / every > first / every)
            };
            let mut fallen = None;
            for update in 1..=updates {
                let mut line = run.step(&batch, total)?;
                // While epsilon grows, PertAlign falls because of that.
                if !run.warming_up(line.step) {
                    line.co = run.progress.co.observe(&line, config.lr_max);
                }
                if update == updates {
                    run.progress.batch += 1;
                    let last = run.progress.batch == batches && config.val_steps.is_some();
                    if last || due(config.val_steps, run.progress.step) {
                        let started = Instant::now();
                        let figures = run.validate(&data.val)?;
                        run.progress.totals.val_seconds += started.elapsed().as_secs_f64();
                        line.co = line.co.or_else(|| run.observe_validation(line.step, &figures));
                        line.val = Some(figures);
                        last_val = last.then_some(figures);
                    }
                    bar.advance(updates, || step_text(&line));
                }
                fallen = fallen.or(line.co);
                run.log(&line)?;
            }
            if let Some(event) = fallen
                && run.react(&event, &mut bar)?
            {
                continue 'epochs;
            }
            let interrupted = interrupt.load(Ordering::Relaxed);
            // At an epoch's end the checkpoint follows the validation.
            if run.progress.batch < batches
                && (due(config.checkpoint_steps, run.progress.step) || interrupted)
            {
                run.checkpoint()?;
            }
            if interrupted && run.progress.batch < batches {
                return Err(interrupted_at(dir, &run.progress));
            }
        }
        tracing::debug!("where the epoch's time went, in seconds: {}", profile_text());
        let before = run.progress.co.event();
        let line = run.finish_epoch(&data.val, last_val)?;
        bar.line(&epoch_text(&line, config.epochs));
        if before.is_none()
            && let Some(event) = line.co
            && run.react(&event, &mut bar)?
        {
            continue;
        }
        run.checkpoint()?;
        if interrupt.load(Ordering::Relaxed) && run.progress.epoch < config.epochs {
            return Err(interrupted_at(dir, &run.progress));
        }
    }
    drop(bar);
    run.finish()
}

fn step_text(line: &StepLine) -> String {
    format!(
        "loss {:.3} adv acc {:.2} PertAlign {:.2} alpha {:.1}/255 {:.0} images/s",
        line.loss,
        line.adv_acc,
        line.pert_align,
        line.alpha * 255.0,
        line.images_per_s
    )
}

/// The batch as tensors on `device`.
fn on_device(batch: data::Batch, device: &Device) -> Batch {
    let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
    Batch {
        x: Tensor::from_data(TensorData::new(batch.images, batch.shape), device),
        labels: Tensor::from_data(labels.as_slice(), device),
        ids: batch.ids,
        draws: batch.draws,
    }
}

/// The parts of the work since the last look, longest first.
fn profile_text() -> String {
    let mut parts: Vec<_> =
        profile::take().into_iter().filter(|(_, seconds)| *seconds > 0.0).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts
        .into_iter()
        .map(|(name, seconds)| format!("{name} {seconds:.3}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn interrupted_at(dir: &RunDir, progress: &Progress) -> Error {
    Error::Interrupted { step: progress.step, run: Some(dir.path().to_owned()) }
}

fn epoch_text(line: &EpochLine, epochs: u64) -> String {
    let mut text = format!(
        "epoch {}/{epochs} loss {:.3} adv acc {:.3} PertAlign {:.2} in {:.1} s",
        line.epoch + 1,
        line.train.loss,
        line.train.adv_acc,
        line.train.pert_align,
        line.seconds
    );
    if let Some(val) = &line.val {
        text += &format!(
            "; validation (n {}): clean {:.3} fgsm {:.3} pgd-10 {:.3}",
            val.n, val.clean.accuracy, val.fgsm.accuracy, val.pgd.accuracy
        );
    }
    text
}

impl<'a> Run<'a> {
    fn open(dir: &'a RunDir, config: &'a TrainConfig, batches: u64) -> Result<Self> {
        let device = device::device(&config.device)?;
        let found = checkpoint::latest(&dir.checkpoints())?;
        let (metrics_bytes, epochs_bytes) =
            found.as_ref().map_or((0, 0), |c| (c.progress.metrics_bytes, c.progress.epochs_bytes));
        let mut model = Model::init(config.network()?.clone(), config.seed, &device)?;
        model.set_precision(config.precision);
        let method = method::method(&config.method)?.build(&config.options, config.threat())?;
        let updates = u64::from(method.updates_per_batch().max(1));
        let mut run = Self {
            optimizer: config.optimizer(&model.params),
            average: (config.ema > 0.0).then(|| WeightAverage::new(&model, config.ema)),
            dir,
            config,
            device,
            model,
            method,
            attack_bn: config.attack_bn,
            progress: Progress::default(),
            metrics: open_log(&dir.metrics(), metrics_bytes)?,
            epochs: open_log(&dir.epochs(), epochs_bytes)?,
            tensorboard: None,
            steps_per_epoch: batches * updates,
            updates,
        };
        if let Some(found) = &found {
            run.restore(found)?;
            if let Some(rollback) = run.progress.rollback.clone() {
                run.take_over(&rollback.method)?;
            }
            run.method.load_state(&found.method)?;
            tracing::info!(
                "going on from {}: epoch {}, step {}",
                found.path.display(),
                run.progress.epoch,
                run.progress.step
            );
        }
        if config.tensorboard {
            run.tensorboard = Some(EventWriter::create(&dir.tensorboard(), run.progress.step)?);
        }
        Ok(run)
    }

    fn warming_up(&self, step: u64) -> bool {
        self.config.warming_up(step, self.steps_per_epoch)
    }

    fn observe_validation(&mut self, step: u64, figures: &ValFigures) -> Option<CoEvent> {
        if self.warming_up(step) || self.config.method == "none" {
            None
        } else {
            self.progress.co.observe_validation(step, figures)
        }
    }

    /// Takes over everything of a checkpoint but the method's state.
    fn restore(&mut self, found: &Checkpoint) -> Result<()> {
        let origin = found.path.display().to_string();
        self.model.load(&found.model, &origin)?;
        self.optimizer.load_state(&found.optimizer, &origin)?;
        if let Some(average) = &mut self.average {
            average.load_state(&found.optimizer, &origin)?;
        }
        self.progress = found.progress.clone();
        Ok(())
    }

    /// Goes on with the method `name` and its default hyperparameters.
    fn take_over(&mut self, name: &str) -> Result<()> {
        let (before, after) = (method::method(&self.config.method)?, method::method(name)?);
        self.method = after.build(&(after.options)()?, self.config.threat())?;
        // A mode that was the method's default was not asked for.
        self.attack_bn = if self.config.attack_bn == before.attack_bn {
            after.attack_bn
        } else {
            self.config.attack_bn
        };
        Ok(())
    }

    /// Does what the run asks for when catastrophic overfitting is found; says whether training
    /// went back.
    fn react(&mut self, event: &CoEvent, bar: &mut ui::Progress) -> Result<bool> {
        bar.line(&event.to_string());
        match self.config.on_co {
            OnCo::Rollback if self.progress.rollback.is_none() => {
                let rollback = self.roll_back(event)?;
                bar.line(&format!(
                    "rolled back to step {}; going on with method {}",
                    rollback.to_step, rollback.method
                ));
                bar.set(self.progress.step);
                Ok(true)
            }
            OnCo::Stop => {
                self.checkpoint()?;
                Err(Error::CoStopped {
                    event: Box::new(*event),
                    run: Some(self.dir.path().to_owned()),
                })
            }
            // A second time there is nothing safer to go on with.
            OnCo::Warn | OnCo::Rollback => Ok(false),
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
        let (passes, seconds) = (self.progress.passes, self.progress.seconds);
        match &found {
            Some(found) => self.restore(found)?,
            None => {
                self.model =
                    Model::init(self.config.network()?.clone(), self.config.seed, &self.device)?;
                self.model.set_precision(self.config.precision);
                self.optimizer = self.config.optimizer(&self.model.params);
                self.average = (self.config.ema > 0.0)
                    .then(|| WeightAverage::new(&self.model, self.config.ema));
                self.progress = Progress::default();
            }
        }
        let rollback = Rollback {
            co: *event,
            to_step: self.progress.step,
            from_method: self.config.method.clone(),
            method: self.config.on_co_method.clone(),
        };
        self.take_over(&rollback.method)?;
        // What the abandoned steps cost stays in the account.
        (self.progress.passes, self.progress.seconds) = (passes, seconds);
        self.progress.co = CoDetector::default();
        self.progress.rollback = Some(rollback.clone());

        let path = self.dir.metrics();
        let lines = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        files::write_atomic(
            &self.dir.abandoned(),
            lines.get(self.progress.metrics_bytes as usize..).unwrap_or_default(),
        )?;
        checkpoint::discard_after(&self.dir.checkpoints(), target.as_deref())?;
        for (file, path, bytes) in [
            (&self.metrics, self.dir.metrics(), self.progress.metrics_bytes),
            (&self.epochs, self.dir.epochs(), self.progress.epochs_bytes),
        ] {
            file.set_len(bytes).map_err(|e| Error::io("cut off", &path, e))?;
        }
        self.checkpoint()?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.restart(self.progress.step)?;
        }
        Ok(rollback)
    }

    /// The newest checkpoint of at most `step` steps that every run with these settings writes,
    /// whether or not it was interrupted.
    fn regular_checkpoint(&self, step: u64) -> Result<Option<PathBuf>> {
        Ok(checkpoint::list(&self.dir.checkpoints())?.into_iter().rev().find(|path| {
            checkpoint::step(path, self.steps_per_epoch)
                .is_some_and(|at| at <= step && self.is_regular(at))
        }))
    }

    fn is_regular(&self, step: u64) -> bool {
        let due = |every: u64| step / every > step.saturating_sub(self.updates) / every;
        step.is_multiple_of(self.steps_per_epoch.max(1))
            || self.config.checkpoint_steps.is_some_and(due)
    }

    /// Appends to metrics.jsonl.
    fn log(&mut self, line: &StepLine) -> Result<()> {
        profile::time(Stage::Log, || append(&mut self.metrics, &self.dir.metrics(), line))?;
        self.tensorboard.as_mut().map_or(Ok(()), |tensorboard| tensorboard.step(line))
    }

    /// One step: attack, train, update.
    fn step(&mut self, batch: &Batch, total: u64) -> Result<StepLine> {
        let started = Instant::now();
        let Self { config, progress, .. } = self;
        let (epoch, step) = (progress.epoch, progress.step);
        self.model.begin_step(config.seed, step);
        let mut noise = Noise::training(config.seed, epoch, step, batch.ids.clone(), &self.device);
        let settings = StepSettings {
            threat: config.threat_at(step, self.steps_per_epoch),
            attack_bn: self.attack_bn,
            place: Place { epoch, epochs: config.epochs, step, steps: total },
            extras: config.extras(),
        };
        let mut cx = StepContext::new(&mut self.model, &mut noise, settings);
        let out = method::run_step(self.method.as_mut(), &mut cx, batch)?;
        let passes = cx.passes;
        let metrics = out.metrics;
        if !metrics.loss.is_finite() {
            let last = checkpoint::list(&self.dir.checkpoints())?.pop();
            return Err(Error::Diverged { step, figure: "the loss".into(), last_good: last });
        }
        let rates = config.rates().at(step, total);
        profile::time(Stage::Optimizer, || {
            self.optimizer.step(&mut self.model.params, out.gradients, rates)
        });
        if let Some(average) = &mut self.average
            && (step + 1).is_multiple_of(u64::from(config.accumulate))
        {
            average.update(&self.model);
        }

        let seconds = started.elapsed().as_secs_f64();
        let line = StepLine {
            step,
            epoch,
            loss: metrics.loss,
            adv_acc: metrics.adv_acc,
            lr: rates.lr,
            momentum: (config.optimizer == OptimizerKind::Sgd).then_some(rates.momentum),
            alpha: metrics.alpha,
            linearity: metrics.linearity,
            linearity_raw: Some(metrics.linearity_raw),
            linearity_of_sums: Some(metrics.linearity_of_sums),
            grad_ratio: Some(metrics.grad_ratio),
            abnormal: metrics.abnormal,
            pert_align: metrics.pert_align,
            delta_mean: metrics.delta_mean,
            images_per_s: (batch.ids.len() as f64 / seconds.max(1e-9)) as f32,
            val: None,
            co: None,
            rollback: progress.rollback.clone().filter(|rollback| rollback.to_step == step),
            method: progress.rollback.as_ref().map(|rollback| rollback.method.clone()),
        };
        progress.totals.add(&metrics, batch.ids.len(), seconds);
        progress.passes += passes;
        progress.seconds += seconds;
        progress.step += 1;
        Ok(line)
    }

    /// Validates, unless that gave `figures` already, and logs the epoch.
    fn finish_epoch(&mut self, val: &Split, figures: Option<ValFigures>) -> Result<EpochLine> {
        let started = Instant::now();
        let mut figures = figures;
        if figures.is_none() && !val.is_empty() {
            let new = self.validate(val)?;
            self.observe_validation(self.progress.step.saturating_sub(1), &new);
            figures = Some(new);
        }
        let line = EpochLine {
            epoch: self.progress.epoch,
            step: self.progress.step,
            train: self.progress.totals.means(),
            val: figures,
            co: self.progress.co.event(),
            rollback: self.progress.rollback.clone(),
            seconds: self.progress.totals.seconds,
            val_seconds: self.progress.totals.val_seconds + started.elapsed().as_secs_f64(),
            passes: self.progress.passes,
            peak_rss_mib: device::peak_rss_mib(),
        };
        append(&mut self.epochs, &self.dir.epochs(), &line)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.epoch(&line)?;
        }
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.totals = EpochTotals::default();
        Ok(line)
    }

    /// The network that the run is after: with averaged weights where they are kept.
    fn result(&self) -> Model {
        self.average
            .as_ref()
            .map_or_else(|| self.model.clone(), |average| average.applied(&self.model))
    }

    fn validate(&self, val: &Split) -> Result<ValFigures> {
        let config = EvalConfig {
            threat: self.config.threat(),
            seed: self.config.seed,
            batch: self.config.batch,
        };
        let names = ["clean", "fgsm", "pgd-10"];
        let outcome = evaluate::evaluate(&self.result().in_f32(), val, &names, config)?;
        match outcome.results.0.as_slice() {
            [(_, clean), (_, fgsm), (_, pgd)] => Ok(ValFigures {
                n: val.len() as u64,
                clean: clean.accuracy,
                fgsm: fgsm.accuracy,
                pgd: pgd.accuracy,
            }),
            other => {
                Err(Error::work(format!("validation gave {} figures instead of 3", other.len())))
            }
        }
    }

    /// Writes a checkpoint of where the run stands.
    fn checkpoint(&mut self) -> Result<()> {
        for (file, path, bytes) in [
            (&mut self.metrics, self.dir.metrics(), &mut self.progress.metrics_bytes),
            (&mut self.epochs, self.dir.epochs(), &mut self.progress.epochs_bytes),
        ] {
            file.sync_data().map_err(|e| Error::io("sync", &path, e))?;
            *bytes = file.metadata().map_err(|e| Error::io("look at", &path, e))?.len();
        }
        let mut optimizer = self.optimizer.state()?;
        if let Some(average) = &self.average {
            optimizer.extend(average.state()?);
        }
        let state = State { model: self.model.to_host()?, optimizer, method: self.method.state()? };
        let needed = self.needed()?;
        let metadata = self.weights_metadata()?;
        checkpoint::save(
            &self.dir.checkpoints(),
            &self.progress,
            &state,
            &metadata,
            self.config.keep,
            |path| needed(path),
        )
        .map(drop)
    }

    /// Whether a rollback that may still come could go back to a checkpoint.
    fn needed(&self) -> Result<impl Fn(&Path) -> bool + use<>> {
        let (now, steps_per_epoch) = (self.progress.step, self.steps_per_epoch);
        let guarded = self.config.on_co == OnCo::Rollback && self.progress.rollback.is_none();
        // The detector's safe points either stay or jump to within a window of the present.
        let recent = now.saturating_sub(diagnose::WINDOW as u64);
        let mut kept = Vec::new();
        if guarded {
            for step in self.progress.co.safe_points().into_iter().chain([recent]) {
                kept.extend(self.regular_checkpoint(step)?);
            }
        }
        Ok(move |path: &Path| {
            guarded
                && (kept.iter().any(|kept| kept == path)
                    || checkpoint::step(path, steps_per_epoch).is_some_and(|step| step > recent))
        })
    }

    /// What the weights say about themselves: after a rollback, both methods.
    fn weights_metadata(&self) -> Result<HashMap<String, String>> {
        match &self.progress.rollback {
            None => self.config.weights_metadata(),
            Some(Rollback { to_step, from_method, method, .. }) => TrainConfig {
                method: format!("{from_method}, from step {to_step} {method}"),
                ..self.config.clone()
            }
            .weights_metadata(),
        }
    }

    /// Writes the final weights and figures.
    fn finish(self) -> Result<Summary> {
        // A kill right after the last checkpoint has left what its removal of old ones would have
        // taken.
        checkpoint::prune(&self.dir.checkpoints(), self.config.keep, self.needed()?)?;
        let weights = files::to_safetensors(&self.result().to_host()?, self.weights_metadata()?)?;
        files::write_atomic(&self.dir.model(), &weights)?;
        let summary = Summary {
            method: self.config.method.clone(),
            dataset: self.config.dataset.clone(),
            epochs: self.progress.epoch,
            steps: self.progress.step,
            co: self.progress.co.event(),
            rollback: self.progress.rollback.clone(),
            last_epoch: last_line(&self.dir.epochs())?,
            passes: self.progress.passes,
            parameters: self.model.params.num_elements() as u64,
            seconds: self.progress.seconds,
            peak_rss_mib: device::peak_rss_mib(),
        };
        self.dir.write_json(&self.dir.summary(), &summary)?;
        Ok(summary)
    }
}

/// Opens a log for appending after its first `bytes`; what lies beyond was written after the
/// checkpoint that the run goes on from.
fn open_log(path: &Path, bytes: u64) -> Result<File> {
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        if len > bytes {
            file.set_len(bytes)?;
        }
        Ok((file, len))
    };
    let (file, len) = open().map_err(|e| Error::io("open", path, e))?;
    if len < bytes {
        return Err(Error::input(format!(
            "{}: {len} bytes, but the checkpoint was written after {bytes}; was it edited or cut off?",
            path.display()
        )));
    }
    Ok(file)
}

fn append(file: &mut File, path: &Path, line: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec(line)
        .map_err(|e| Error::work(format!("cannot serialise a line of {}: {e}", path.display())))?;
    json.push(b'\n');
    file.write_all(&json).map_err(|e| Error::io("append to", path, e))
}

fn last_line(path: &Path) -> Result<Option<EpochLine>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    text.lines()
        .last()
        .map(|line| {
            serde_json::from_str(line).map_err(|e| {
                Error::work(format!("{}: its last line is damaged: {e}", path.display()))
            })
        })
        .transpose()
}
