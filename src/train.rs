//! The training loop, in one visible place.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::{
    average::WeightAverage,
    checkpoint::{self, Progress, State},
    config::{OnCo, TrainConfig},
    data::{self, Loader, LoaderOptions, Split},
    device,
    error::{Error, Result},
    evaluate::{self, EvalConfig},
    files,
    method::{self, Batch, Method, Passes, StepContext},
    metrics::{EpochLine, EpochTotals, StepLine, ValFigures},
    model::Model,
    noise::Noise,
    optim::Optimizer,
    profile::{self, Part},
    run::{RunDir, TrainData},
    ui,
};

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
    optimizer: Box<dyn Optimizer>,
    average: Option<WeightAverage>,
    progress: Progress,
    metrics: File,
    epochs: File,
}

/// Trains the run in `dir` from its newest checkpoint, or from the start, to its last epoch.
///
/// The same settings on the same machine give the same bits, whether or not the run was interrupted in between.
///
/// # Errors
/// [`Error::Interrupted`] after `interrupt` was set and a checkpoint written; a loss that is not finite; a disk or device that fails.
pub fn train(dir: &RunDir, config: &TrainConfig, data: &TrainData, interrupt: &AtomicBool) -> Result<Summary> {
    let options = LoaderOptions {
        batch: config.batch,
        seed: config.seed,
        shuffle: true,
        // A last batch of a few images would spoil the batch statistics.
        drop_last: true,
        augment: config.augment(),
        prefetch: PREFETCH,
    };
    let loader = Loader::new(data.train.clone(), options)?;
    let batches = loader.batches_per_epoch() as u64;
    let mut run = Run::open(dir, config)?;
    let updates = u64::from(run.method.updates_per_batch().max(1));
    let total = batches * config.epochs * updates;
    let mut bar = ui::Progress::new("train", run.progress.step, total);

    while run.progress.epoch < config.epochs {
        let epoch = run.progress.epoch;
        let mut loaded = loader.epoch(epoch, run.progress.batch as usize);
        profile::take();
        while let Some(batch) = profile::time(Part::Loader, || loaded.next().map(|batch| Ok::<_, Error>(on_device(batch?, &run.device)))) {
            let batch = batch?;
            let first = run.progress.step;
            let mut line = run.step(&batch, total)?;
            let mut fallen = run.progress.co.observe(line.step, line.pert_align);
            for _ in 1..updates {
                line = run.step(&batch, total)?;
                fallen = fallen.or(run.progress.co.observe(line.step, line.pert_align));
            }
            run.progress.batch += 1;
            bar.advance(updates, || {
                format!(
                    "loss {:.3} adv acc {:.2} PertAlign {:.2} alpha {:.1}/255 {:.0} images/s",
                    line.loss,
                    line.adv_acc,
                    line.pert_align,
                    line.alpha * 255.0,
                    line.images_per_s
                )
            });
            if let Some(event) = fallen {
                let text = format!(
                    "catastrophic overfitting at step {}: PertAlign fell from {:.2} to {:.2}; robustness against multi-step attacks is collapsing",
                    event.step, event.from, event.to
                );
                bar.line(&text);
                if config.on_co == OnCo::Stop {
                    run.checkpoint()?;
                    return Err(Error::work(format!("{text}; stopped by --on-co stop with a checkpoint in {}", dir.path().display())));
                }
            }
            let due = config.checkpoint_steps.is_some_and(|every| run.progress.step / every > first / every);
            let interrupted = interrupt.load(Ordering::Relaxed);
            // At an epoch's end the checkpoint follows the validation.
            if run.progress.batch < batches && (due || interrupted) {
                run.checkpoint()?;
            }
            if interrupted && run.progress.batch < batches {
                return Err(interrupted_at(dir, &run.progress));
            }
        }
        tracing::debug!("where the epoch's time went, in seconds: {}", profile_text());
        let line = run.finish_epoch(&data.val)?;
        bar.line(&epoch_text(&line, config.epochs));
        run.checkpoint()?;
        if interrupt.load(Ordering::Relaxed) && run.progress.epoch < config.epochs {
            return Err(interrupted_at(dir, &run.progress));
        }
    }
    drop(bar);
    run.finish()
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
    let mut parts: Vec<_> = profile::take().into_iter().filter(|(_, seconds)| *seconds > 0.0).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts.into_iter().map(|(name, seconds)| format!("{name} {seconds:.3}")).collect::<Vec<_>>().join(", ")
}

fn interrupted_at(dir: &RunDir, progress: &Progress) -> Error {
    Error::Interrupted(format!(
        "interrupted after step {}; a checkpoint is written, go on with `sora resume {}`",
        progress.step,
        dir.path().display()
    ))
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
    fn open(dir: &'a RunDir, config: &'a TrainConfig) -> Result<Self> {
        let device = device::device(&config.device)?;
        let mut model = Model::init(config.network()?.clone(), config.seed, &device)?;
        model.set_precision(config.precision);
        let mut method = method::method(&config.method)?.build(&config.options, config.threat())?;
        let mut optimizer = config.optimizer(&model.params);
        let mut average = (config.ema > 0.0).then(|| WeightAverage::new(&model, config.ema));
        let mut progress = Progress::default();
        if let Some(found) = checkpoint::latest(&dir.checkpoints())? {
            let origin = found.path.display().to_string();
            model.load(&found.model, &origin)?;
            optimizer.load_state(&found.optimizer, &origin)?;
            method.load_state(&found.method)?;
            if let Some(average) = &mut average {
                average.load_state(&found.optimizer, &origin)?;
            }
            progress = found.progress;
            tracing::info!("going on from {origin}: epoch {}, step {}", progress.epoch, progress.step);
        }
        let metrics = open_log(&dir.metrics(), progress.metrics_bytes)?;
        let epochs = open_log(&dir.epochs(), progress.epochs_bytes)?;
        Ok(Self { dir, config, device, model, method, optimizer, average, progress, metrics, epochs })
    }

    /// One step: attack, train, update, log.
    fn step(&mut self, batch: &Batch, total: u64) -> Result<StepLine> {
        let started = Instant::now();
        let Self { config, progress, .. } = self;
        let (epoch, step) = (progress.epoch, progress.step);
        let mut noise = Noise::training(config.seed, epoch, step, batch.ids.clone(), &self.device);
        let mut cx = StepContext {
            model: &mut self.model,
            threat: config.threat_at(step, total / config.epochs.max(1)),
            attack_bn: config.attack_bn,
            noise: &mut noise,
            epoch,
            passes: progress.passes,
            extras: config.extras(),
        };
        let out = profile::time(Part::Perturbation, || self.method.step(&mut cx, batch))?;
        let passes = cx.passes;
        let metrics = out.metrics;
        if !metrics.loss.is_finite() {
            let last = checkpoint::list(&self.dir.checkpoints())?.pop();
            return Err(Error::work(format!(
                "the loss is {} at step {step}: training has diverged; try a smaller --lr-max. {}",
                metrics.loss,
                last.map_or("No checkpoint was written before.".into(), |path| format!("The last good checkpoint is {}.", path.display()))
            )));
        }
        let lr = config.schedule.at(config.lr_max, step, total);
        profile::time(Part::Optimizer, || self.optimizer.step(&mut self.model.params, out.gradients, lr));
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
            lr,
            alpha: metrics.alpha,
            linearity: metrics.linearity,
            pert_align: metrics.pert_align,
            delta_mean: metrics.delta_mean,
            images_per_s: (batch.ids.len() as f64 / seconds.max(1e-9)) as f32,
        };
        profile::time(Part::Log, || append(&mut self.metrics, &self.dir.metrics(), &line))?;
        progress.totals.add(&metrics, batch.ids.len(), seconds);
        progress.passes = passes;
        progress.seconds += seconds;
        progress.step += 1;
        Ok(line)
    }

    /// Validates and logs the epoch.
    fn finish_epoch(&mut self, val: &Split) -> Result<EpochLine> {
        let started = Instant::now();
        let figures = if val.is_empty() { None } else { Some(self.validate(val)?) };
        let line = EpochLine {
            epoch: self.progress.epoch,
            step: self.progress.step,
            train: self.progress.totals.means(),
            val: figures,
            co: self.progress.co.event(),
            seconds: self.progress.totals.seconds,
            val_seconds: started.elapsed().as_secs_f64(),
            passes: self.progress.passes,
            peak_rss_mib: device::peak_rss_mib(),
        };
        append(&mut self.epochs, &self.dir.epochs(), &line)?;
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.totals = EpochTotals::default();
        Ok(line)
    }

    /// The network that the run is after: with averaged weights where they are kept.
    fn result(&self) -> Model {
        self.average.as_ref().map_or_else(|| self.model.clone(), |average| average.applied(&self.model))
    }

    fn validate(&self, val: &Split) -> Result<ValFigures> {
        let config = EvalConfig {
            attacks: ["clean", "fgsm", "pgd-10"].map(String::from).to_vec(),
            threat: self.config.threat(),
            seed: self.config.seed,
            batch: self.config.batch,
            progress: false,
        };
        let (results, _) = evaluate::evaluate(&self.result(), val, &config)?;
        match results.0.as_slice() {
            [(_, clean), (_, fgsm), (_, pgd)] => {
                Ok(ValFigures { n: val.len() as u64, clean: clean.accuracy, fgsm: fgsm.accuracy, pgd: pgd.accuracy })
            }
            other => Err(Error::work(format!("validation gave {} figures instead of 3", other.len()))),
        }
    }

    /// Writes a checkpoint of where the run stands.
    fn checkpoint(&mut self) -> Result<()> {
        for (file, path, bytes) in [
            (&mut self.metrics, self.dir.metrics(), &mut self.progress.metrics_bytes),
            (&mut self.epochs, self.dir.epochs(), &mut self.progress.epochs_bytes),
        ] {
            file.sync_data().map_err(|e| Error::io("sync", &path, &e))?;
            *bytes = file.metadata().map_err(|e| Error::io("look at", &path, &e))?.len();
        }
        let mut optimizer = self.optimizer.state()?;
        if let Some(average) = &self.average {
            optimizer.extend(average.state()?);
        }
        let state = State { model: self.model.to_host()?, optimizer, method: self.method.state()? };
        checkpoint::save(&self.dir.checkpoints(), &self.progress, &state, &self.config.weights_metadata()?, self.config.keep).map(drop)
    }

    /// Writes the final weights and figures.
    fn finish(self) -> Result<Summary> {
        let weights = files::to_safetensors(&self.result().to_host()?, self.config.weights_metadata()?)?;
        files::write_atomic(&self.dir.model(), &weights)?;
        let summary = Summary {
            method: self.config.method.clone(),
            dataset: self.config.dataset.clone(),
            epochs: self.progress.epoch,
            steps: self.progress.step,
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

/// Opens a log for appending after its first `bytes`; what lies beyond was written after the checkpoint that the run goes on from.
fn open_log(path: &Path, bytes: u64) -> Result<File> {
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        if len > bytes {
            file.set_len(bytes)?;
        }
        Ok((file, len))
    };
    let (file, len) = open().map_err(|e| Error::io("open", path, &e))?;
    if len < bytes {
        return Err(Error::input(format!(
            "{}: {len} bytes, but the checkpoint was written after {bytes}; was it edited or cut off?",
            path.display()
        )));
    }
    Ok(file)
}

fn append(file: &mut File, path: &Path, line: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec(line).map_err(|e| Error::work(format!("cannot serialise a line of {}: {e}", path.display())))?;
    json.push(b'\n');
    file.write_all(&json).map_err(|e| Error::io("append to", path, &e))
}

fn last_line(path: &Path) -> Result<Option<EpochLine>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    text.lines()
        .last()
        .map(|line| serde_json::from_str(line).map_err(|e| Error::work(format!("{}: its last line is damaged: {e}", path.display()))))
        .transpose()
}
