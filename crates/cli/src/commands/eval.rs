//! `sora eval`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sora::{
    attack::{self, Entry},
    config::{TrainConfig, TrainOptions},
    data::Dataset,
    device,
    error::{Error, Result},
    evaluate::{self, Bars, EvalConfig, Evaluator, Identity, Ledger, OnSplit, Report},
    nn,
    robustness::{Samples, sanity},
    run::{self, Subject},
    threat::{Epsilon, Norm, Threat},
};

use super::{print, print_json, print_table};
use crate::cli::{EvalArgs, SubjectArgs, Suite};

/// Images that the sanity checks look at.
const PROBED: usize = 64;

/// Measures a run or a weights file.
pub fn eval(args: EvalArgs) -> Result<()> {
    let (names, default_limit) = protocol(&args);
    let target = Target::load(&args.subject, default_limit)?;
    let entries = entries(&names, target.threat.norm)?;
    let width = target.subject.model.config.shape;
    let width = args.save_adv.then_some(width.channels * width.height * width.width);
    let ledger = target.ledger(args.state.as_deref(), args.fresh, width)?;
    let mut evaluator =
        Evaluator::new(&target.subject.model, &target.split, target.config(), ledger)?
            .observe(Bars::default());
    let outcome = evaluator.run(&entries)?;
    let mut warnings = outcome.warnings;
    warnings.extend(target.probe()?);
    let mut report = Report {
        dataset: target.dataset.clone(),
        split: "test".into(),
        n: target.split.len() as u64,
        epsilon: target.threat.epsilon,
        norm: target.threat.norm,
        seed: target.seed,
        results: outcome.results,
        notes: outcome.notes,
        warnings,
    };
    if !names.iter().any(|name| name.starts_with("autoattack"))
        && names.iter().any(|name| name != "clean")
    {
        report
            .notes
            .push("accuracies under single attacks are upper bounds of the robust accuracy; --suite autoattack gives a tighter one".into());
    }
    let pool = nn::pool_counts();
    tracing::debug!(
        "memory of feature maps: {} MiB; {} of {} requests had to allocate",
        pool.bytes >> 20,
        pool.misses,
        pool.requests
    );
    let stem = protocol_name(args.suite, &names, &report);
    if args.save_adv {
        for entry in entries.iter().filter(|entry| !entry.parts.is_empty()) {
            let name: String = entry
                .name
                .chars()
                .map(|c| if c.is_alphanumeric() || "-+".contains(c) { c } else { '_' })
                .collect();
            let saved =
                evaluator.save(entry, &target.file(&format!("adv-{name}-{}", suffix(&report)))?)?;
            tracing::info!("adversarial examples: {}", saved.npz.display());
        }
    }
    if let Some((dir, _)) = &target.subject.run {
        dir.write_report(&stem, &report)?;
    }
    evaluator.finish()?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if args.json { print_json(&report) } else { show(&report, &target.epsilon) }
}

/// The attacks asked for, and the images that their protocol takes by default.
fn protocol(args: &EvalArgs) -> (Vec<String>, Option<usize>) {
    let (names, limit): (&[&str], _) = match args.suite {
        Some(Suite::Quick) => (&["clean", "fgsm", "pgd-10"], Some(1000)),
        Some(Suite::Paper) => (&["clean", "fgsm", "pgd-10", "pgd-50x10", "autoattack"], None),
        Some(Suite::Autoattack) => (&["clean", "autoattack"], None),
        None => return (args.attacks.clone(), None),
    };
    (names.iter().map(|&name| name.to_owned()).collect(), limit)
}

/// Reads the names of attacks.
pub fn entries(names: &[String], norm: Norm) -> Result<Vec<Entry>> {
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Error::input(format!(
                "--attacks: '{name}' is there twice; name each attack once"
            )));
        }
    }
    names.iter().map(|name| Ok(attack::entry(name, norm)?)).collect()
}

/// What is evaluated, on what, under which threat.
pub struct Target {
    pub subject: Subject,
    pub split: OnSplit,
    pub dataset: String,
    pub epsilon: Epsilon,
    pub threat: Threat,
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
        let device = device::device(&args.device)?;
        device::set_threads(args.threads);
        if args.batch == 0 {
            return Err(Error::input("--batch 0: expected at least 1"));
        }
        if args.limit == Some(0) {
            return Err(Error::input("--limit 0: expected at least 1"));
        }
        let subject = Subject::load(&args.subject, &device)?;
        let norm = args.norm.unwrap_or(subject.norm);
        let epsilon = choose_epsilon(args, &subject, norm)?;
        let data_config = data_config(args, &subject)?;
        let dataset = run::open_dataset(&data_config)?;
        check_fit(&subject, &dataset)?;
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

    /// Where a file called `name` of this evaluation goes: the run's eval folder, or beside the
    /// weights file.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if let Some((dir, _)) = &self.subject.run {
            let dir = dir.path().join("eval");
            fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
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
            for old in [place.clone(), place.with_extension("adv")] {
                match fs::remove_file(&old) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &old, e));
                    }
                    _ => {}
                }
            }
        }
        let identity =
            Identity::new(evaluate::program(), self.weights()?, self.data()?, threat, self.seed);
        let ledger = match Ledger::open(&place, &identity, width) {
            Err(e) if path.is_none() && width.is_none() => {
                tracing::warn!("{e}; this evaluation cannot be resumed");
                return Ok(Ledger::in_memory());
            }
            other => {
                other.map_err(|e| Error::input(format!("--state {}: {e}", place.display())))?
            }
        };
        let (results, attacks) = ledger.known();
        if results > 0 {
            tracing::info!(
                "going on from {}: {results} results of {attacks} attack(s) are there",
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
    fn probe(&self) -> Result<Vec<String>> {
        let some: Vec<usize> = (0..self.split.len().min(PROBED)).collect();
        let labels: Vec<usize> = some.iter().map(|&i| self.split.label(i)).collect();
        let pixels = self.split.pixels(&some)?;
        Ok(sanity::probe(&self.subject.model, &pixels, &labels, self.threat.norm, self.seed)?)
    }
}

fn fnv(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0xcbf2_9ce4_8422_2325, |hash, value| (hash ^ value).wrapping_mul(0x0100_0000_01b3))
}

/// Name of the report's file: what makes it another protocol.
fn protocol_name(suite: Option<Suite>, names: &[String], report: &Report) -> String {
    let attacks = suite.map_or_else(|| names.join("_"), |suite| suite.to_string());
    format!("{}-{}", attacks.replace([':', '/'], "_"), suffix(report))
}

fn suffix(report: &Report) -> String {
    format!("{}-{:.4}-n{}-seed{}", report.norm, report.epsilon, report.n, report.seed)
}

fn choose_epsilon(args: &SubjectArgs, subject: &Subject, norm: Norm) -> Result<Epsilon> {
    if let Some(epsilon) = &args.epsilon {
        return Ok(epsilon.clone());
    }
    if subject.norm == norm {
        return Ok(subject.epsilon.clone());
    }
    Err(Error::input(format!(
        "--epsilon is missing: {} was trained for --norm {}, not {norm}",
        args.subject.display(),
        subject.norm
    )))
}

/// The data set to evaluate on: the run's own unless another is named.
fn data_config(args: &SubjectArgs, subject: &Subject) -> Result<TrainConfig> {
    let mut config = match &subject.run {
        Some((_, config)) => config.clone(),
        None => TrainOptions::default().resolve()?,
    };
    if let Some(dataset) =
        args.dataset.as_ref().or(subject.run.is_none().then_some(&subject.dataset))
    {
        if dataset.is_empty() {
            return Err(Error::input(format!(
                "--dataset is missing: {} does not say what it was trained on; name a set of `sora data list` or an image folder",
                args.subject.display()
            )));
        }
        config.dataset = dataset.clone();
        // These come in the size that the network takes; other sets have the size they have.
        let any_size = dataset.starts_with("folder:")
            || dataset.starts_with("synthetic")
            || std::path::Path::new(dataset).is_dir();
        config.image_size = any_size.then_some(subject.model.config.shape.height);
    }
    if args.data_dir.is_some() {
        config.data_dir = args.data_dir.clone();
    }
    Ok(config)
}

fn check_fit(subject: &Subject, dataset: &Dataset) -> Result<()> {
    let shape = subject.model.config.shape;
    let [channels, height, width] = dataset.test.shape();
    if (channels, height, width) != (shape.channels, shape.height, shape.width)
        || dataset.test.num_classes() != shape.classes
    {
        return Err(Error::input(format!(
            "the data set has images of {channels}x{height}x{width} in {} classes, the network was trained on {}x{}x{} in {}; name the right one with --dataset",
            dataset.test.num_classes(),
            shape.channels,
            shape.height,
            shape.width,
            shape.classes
        )));
    }
    Ok(())
}

fn show(report: &Report, epsilon: &Epsilon) -> Result<()> {
    print(&format!(
        "{} {}, n = {}, {} epsilon {epsilon}, seed {}\n\n",
        report.dataset, report.split, report.n, report.norm, report.seed
    ))?;
    let mut rows = vec![
        ["attack", "accuracy", "95 % interval", "attacked", "seconds", "ms/image"]
            .map(String::from)
            .to_vec(),
    ];
    for (name, result) in &report.results.0 {
        let [low, high] = result.accuracy.ci95;
        rows.push(vec![
            name.clone(),
            format!("{:.2} %", 100.0 * result.accuracy.accuracy),
            format!("{:.2} - {:.2} %", 100.0 * low, 100.0 * high),
            result.attacked.to_string(),
            format!("{:.1}", result.seconds),
            format!("{:.2}", 1000.0 * result.seconds_per_image),
        ]);
        for part in &result.parts {
            rows.push(vec![
                format!("  after {}", part.attack),
                format!("{:.2} %", 100.0 * part.correct as f64 / report.n as f64),
                String::new(),
                part.attacked.to_string(),
                format!("{:.1}", part.seconds),
                format!("{:.2}", 1000.0 * part.seconds / part.attacked.max(1) as f64),
            ]);
        }
    }
    print_table(&rows)?;
    if !report.notes.is_empty() {
        print("\n")?;
    }
    report.notes.iter().try_for_each(|note| print(&format!("note: {note}\n")))
}
