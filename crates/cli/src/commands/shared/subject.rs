//! What is measured, on which images, under which threat.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sora::{
    attack::{self, Entry},
    config::TrainConfig,
    data::{self, Dataset},
    device,
    evaluate::{self, EvalConfig, Identity, Ledger, OnSplit},
    robustness::{Samples, sanity},
    run::{self, Subject},
    threat::{Epsilon, Norm, Threat},
};

use super::Machine;
use crate::{
    complete,
    console::duration,
    error::{Failure, Result},
    progress::{Plan, Speed},
    values::{NORMS, one_of},
};

/// Images that the sanity checks look at.
const PROBED: usize = 64;
/// Seconds of an evaluation that are worth a word before it starts.
const LONG: f64 = 20.0;

/// What is measured, and on which images.
#[derive(Debug, clap::Args)]
pub struct SubjectArgs {
    /// Run folder or weights file
    #[arg(add = complete::runs())]
    pub subject: PathBuf,
    /// Radius in pixel units, such as 8/255 [default: the one trained with]
    #[arg(long, visible_alias = "eps", allow_hyphen_values = true, help_heading = "Threat")]
    pub epsilon: Option<Epsilon>,
    /// Norm [default: the one trained with]
    #[arg(long, value_parser = one_of::<Norm>(NORMS), help_heading = "Threat")]
    pub norm: Option<Norm>,
    /// Seed of the random starts
    #[arg(long, default_value_t = 0, help_heading = "Threat")]
    pub seed: u64,
    /// Evaluate the first N images of the test split only
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub limit: Option<usize>,
    /// Data set [default: the one trained on]
    #[arg(long, value_name = "NAME|PATH", add = complete::datasets(), help_heading = "Data")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Images at a time; it changes no result
    #[arg(long, visible_alias = "batch-size", default_value_t = 256, help_heading = "Machine")]
    pub batch: usize,
    #[command(flatten)]
    pub machine: Machine,
}

/// Reads the names of attacks.
///
/// # Errors
/// An unknown name, or one that is there twice.
pub fn attacks(names: &[String], norm: Norm) -> Result<Vec<Entry>> {
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Failure::input(format!(
                "--attacks: '{name}' is there twice; name each attack once"
            )));
        }
    }
    names.iter().map(|name| Ok(attack::entry(name, norm)?)).collect()
}

/// What is evaluated, on what, under which threat.
#[derive(Debug)]
pub struct Target {
    /// The network and where it comes from.
    pub subject: Subject,
    /// The images.
    pub split: OnSplit,
    /// Name of the data set.
    pub dataset: String,
    /// Epsilon as the user wrote it.
    pub epsilon: Epsilon,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Seed of the random starts.
    pub seed: u64,
    path: PathBuf,
    batch: usize,
}

impl Target {
    /// Loads what `args` names; `default_limit` bounds the images where `--limit` does not.
    ///
    /// # Errors
    /// A wrong value, or a model or data set that is not there.
    pub fn load(args: &SubjectArgs, default_limit: Option<usize>) -> Result<Self> {
        let device = device::device(&args.machine.device)?;
        args.machine.start_threads()?;
        if args.batch == 0 {
            return Err(Failure::input("--batch 0: expected at least 1"));
        }
        if args.limit == Some(0) {
            return Err(Failure::input("--limit 0: expected at least 1"));
        }
        let subject = Subject::load(&args.subject, &device)?;
        let norm = args.norm.unwrap_or(subject.about.norm);
        let epsilon = choose_epsilon(args, &subject, norm)?;
        warn_of_weights(&subject);
        let data_config = data_config(args, &subject)?;
        let dataset = run::open_dataset(&data_config)?;
        check_fit(&subject, &dataset)?;
        warn_of_data(&subject, &dataset);
        let split = dataset.test.take(args.limit.or(default_limit).unwrap_or(usize::MAX));
        let threat = Threat { norm, epsilon: epsilon.value() };
        Ok(Self {
            subject,
            split: OnSplit(split),
            dataset: data_config.dataset,
            epsilon,
            threat,
            seed: args.seed,
            path: args.subject.clone(),
            batch: args.batch,
        })
    }

    /// Settings of the evaluator.
    pub fn config(&self) -> EvalConfig {
        EvalConfig { threat: self.threat, seed: self.seed, batch: self.batch }
    }

    /// What evaluations with these attacks, one after the other, will cost, measured on a few
    /// images; said where it is long.
    ///
    /// # Errors
    /// A network or data set that fails.
    pub fn plan(&self, evaluations: &[&[Entry]]) -> Result<Plan> {
        let (model, images) = (&self.subject.model, self.split.len());
        let speed = Speed::measure(model, &self.split, self.batch)?;
        let mut plan = Plan::default();
        for entries in evaluations {
            plan.add(entries, images, self.split.shape().classes, speed);
        }
        if plan.seconds() > LONG {
            tracing::info!(
                "{} attacks on up to {images} images: at most about {} ({:.1} ms for the gradient \
                 of an image; images that fall take no more)",
                plan.0.len(),
                duration(plan.seconds()),
                1000.0 * speed.gradient
            );
        }
        Ok(plan)
    }

    /// Where a file called `name` of this evaluation goes: the run's eval folder, or beside the
    /// weights file.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if let Some((dir, _)) = &self.subject.run {
            let dir = dir.evaluations();
            fs::create_dir_all(&dir).map_err(|e| Failure::io("create", &dir, &e))?;
            return Ok(dir.join(name));
        }
        let stem =
            self.path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
        Ok(self.path.with_file_name(format!("{stem}-{name}")))
    }

    /// The ledger at `path`, else at its usual place. Where that cannot be written the evaluation
    /// goes on without one.
    ///
    /// # Errors
    /// A `path` that cannot be written.
    pub fn ledger(&self, path: Option<&Path>, fresh: bool, width: Option<usize>) -> Result<Ledger> {
        self.ledger_at(path, self.threat, fresh, width)
    }

    /// As [`ledger`](Self::ledger), for another threat.
    ///
    /// # Errors
    /// As [`ledger`](Self::ledger).
    pub fn ledger_at(
        &self,
        path: Option<&Path>,
        threat: Threat,
        fresh: bool,
        width: Option<usize>,
    ) -> Result<Ledger> {
        let usual = || {
            self.file(&format!("state-{}-{}-seed{}.jsonl", threat.norm, threat.epsilon, self.seed))
        };
        let place = path.map_or_else(usual, |path| Ok(path.to_owned()))?;
        if fresh {
            remove(&place)?;
            remove(&place.with_extension("adv"))?;
        }
        let identity =
            Identity::new(evaluate::program(), self.weights()?, self.data()?, threat, self.seed);
        let ledger = match Ledger::open(&place, &identity, width) {
            Err(e) if path.is_none() && width.is_none() => {
                tracing::warn!("{e}; this evaluation cannot be resumed");
                return Ok(Ledger::in_memory());
            }
            other => {
                other.map_err(|e| Failure::input(format!("--state {}: {e}", place.display())))?
            }
        };
        let (results, attacks) = ledger.known();
        if results > 0 {
            tracing::info!(
                "going on from {}: {results} results of {attacks} attacks are there",
                place.display()
            );
        }
        Ok(ledger)
    }

    /// A number that changes with the weights (FNV-1a over their bits).
    fn weights(&self) -> Result<String> {
        let tensors = self.subject.model.to_host()?;
        let bits = tensors.iter().flat_map(|tensor| &tensor.data).map(|v| u64::from(v.to_bits()));
        Ok(format!("{:016x}", fnv(bits)))
    }

    /// Names the images: the set, and a number that changes with the first of them.
    fn data(&self) -> Result<String> {
        let first = if self.split.is_empty() { Vec::new() } else { self.split.pixels(&[0])? };
        Ok(format!(
            "{} test {:016x}",
            self.dataset,
            fnv(first.iter().map(|v| u64::from(v.to_bits())))
        ))
    }

    /// Warnings of the sanity checks that ask the network itself.
    ///
    /// # Errors
    /// A network or data set that fails.
    pub fn probe(&self) -> Result<Vec<String>> {
        let some: Vec<usize> = (0..self.split.len().min(PROBED)).collect();
        let labels: Vec<usize> = some.iter().map(|&i| self.split.label(i)).collect();
        let pixels = self.split.pixels(&some)?;
        let (model, norm) = (&self.subject.model, self.threat.norm);
        Ok(sanity::probe(model, &pixels, &labels, norm, self.seed)?)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", path, &e)),
        _ => Ok(()),
    }
}

fn fnv(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0xcbf2_9ce4_8422_2325, |hash, value| (hash ^ value).wrapping_mul(0x0100_0000_01b3))
}

fn choose_epsilon(args: &SubjectArgs, subject: &Subject, norm: Norm) -> Result<Epsilon> {
    if let Some(epsilon) = &args.epsilon {
        return Ok(epsilon.clone());
    }
    if subject.about.norm == norm {
        return Ok(subject.about.epsilon.clone());
    }
    Err(Failure::input(format!(
        "--epsilon is missing: {} was trained for --norm {}, not {norm}",
        args.subject.display(),
        subject.about.norm
    )))
}

/// The data set to evaluate on: the run's own unless another is named.
fn data_config(args: &SubjectArgs, subject: &Subject) -> Result<TrainConfig> {
    let mut config = match &subject.run {
        Some((_, config)) => config.settings.clone(),
        None => TrainConfig::default(),
    };
    if let Some(dataset) =
        args.dataset.as_ref().or(subject.run.is_none().then_some(&subject.about.dataset))
    {
        if dataset.is_empty() {
            return Err(Failure::input(format!(
                "--dataset is missing: {} does not say what it was trained on; name a set of \
                 `sora data list` or an image folder",
                args.subject.display()
            )));
        }
        config.dataset = dataset.clone();
        // In the size that the network takes, where the set comes in it.
        let shape = subject.model.config.shape;
        let fits = shape.height == shape.width && data::comes_in(dataset, shape.height);
        config.image_size = fits.then_some(shape.height);
    }
    if args.data_dir.is_some() {
        config.data_dir = args.data_dir.clone();
    }
    Ok(config)
}

/// Says where the weights are those of a run that is not finished.
fn warn_of_weights(subject: &Subject) {
    if let (false, Some(step)) = (subject.source.complete, subject.source.step) {
        tracing::warn!(
            "{}: weights after {step} steps, not the final ones of the run",
            subject.source.file.display()
        );
    }
}

/// Says where a run's own data set is no longer what the run began with.
fn warn_of_data(subject: &Subject, dataset: &Dataset) {
    let names = dataset.test.class_names();
    if !names.is_empty() && !subject.about.classes.is_empty() && names != subject.about.classes {
        tracing::warn!(
            "the classes of the data set have other names or another order than those that the \
             network was trained on"
        );
    }
}

fn check_fit(subject: &Subject, dataset: &Dataset) -> Result<()> {
    let shape = subject.model.config.shape;
    let [channels, height, width] = dataset.test.shape();
    let classes = dataset.test.num_classes();
    let same = (channels, height, width) == (shape.channels, shape.height, shape.width);
    if same && classes == shape.classes {
        return Ok(());
    }
    Err(Failure::input(format!(
        "the data set has images of {channels}x{height}x{width} in {classes} classes, the network \
         was trained on {}x{}x{} in {}; name the right one with --dataset",
        shape.channels, shape.height, shape.width, shape.classes
    )))
}
