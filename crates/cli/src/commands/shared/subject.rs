//! The network, the images and the threat of a measurement.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sora::{
    attack::Entry,
    config::TrainConfig,
    data::{self, Dataset},
    evaluate::{self, EvalConfig, Identity, OnSplit},
    robustness::{Access, Classifier, OneOutput, Samples, Shape, sanity},
    run::{self, RunConfig, RunDir, Which},
    threat::{Epsilon, Norm, Threat},
};

use super::{Judged, Machine, ServedArgs};
use crate::{
    complete,
    console::duration,
    error::{Failure, Result},
    progress::{Plan, Speed},
    values::{NORMS, one_of},
};

/// Images at a time on the CPU.
pub const CPU_BATCH: usize = 256;

/// Number of images for the sanity checks.
const PROBED: usize = 64;
/// Seconds of an evaluation from which on its length is announced.
const LONG: f64 = 20.0;

/// What is measured, and on which images.
#[derive(Debug, clap::Args)]
pub struct SubjectArgs {
    /// Run folder, weights file or ONNX file
    #[arg(
        add = complete::runs(),
        required_unless_present_any = ["exec", "url"],
        conflicts_with_all = ["exec", "url"]
    )]
    pub subject: Option<PathBuf>,
    #[command(flatten)]
    pub served: ServedArgs,
    /// Radius in pixel units, such as 8/255 [default: the one trained with]
    #[arg(long, visible_alias = "eps", allow_hyphen_values = true, help_heading = "Threat")]
    pub epsilon: Option<Epsilon>,
    /// Norm [default: the one trained with]
    #[arg(long, value_parser = one_of::<Norm>(NORMS), help_heading = "Threat")]
    pub norm: Option<Norm>,
    /// Which weights of a run: final, best or a step [default: final, else the newest]
    #[arg(long, value_name = "WHICH", help_heading = "Network")]
    pub weights: Option<Which>,
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
    /// Images at a time; it changes no result [default: 256; on another device than the CPU 512 of
    /// 32x32 pixels, and fewer larger ones]
    #[arg(long, visible_alias = "batch-size", help_heading = "Machine")]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub foreign: ForeignArgs,
    #[command(flatten)]
    pub machine: Machine,
}

impl SubjectArgs {
    /// Images of `shape` at a time: on a device as many as fill it, and its memory holds.
    fn batch(&self, shape: Shape) -> usize {
        let filling = 512 * 32 * 32 / (shape.height * shape.width).max(1);
        let default = match self.machine.device.as_str() {
            "cpu" => CPU_BATCH,
            _ => filling.clamp(32, 512),
        };
        self.batch.unwrap_or(default)
    }
}

/// What an ONNX file or a served model does not say of itself.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ForeignArgs {
    /// For ONNX files and served models that expect normalised images: mean of each channel,
    /// pixels in [0, 1]
    #[arg(long, value_delimiter = ',', value_name = "VALUES", help_heading = "Network")]
    pub mean: Vec<f32>,
    /// As --mean: standard deviation of each channel
    #[arg(long, value_delimiter = ',', value_name = "VALUES", help_heading = "Network")]
    pub std: Vec<f32>,
    /// For ONNX files and servers that leave it open: height and width of the images
    #[arg(long = "image-size", value_name = "PIXELS", help_heading = "Network")]
    pub side: Option<usize>,
    /// For ONNX files and servers with several outputs: the one with the logits
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub output: Option<String>,
    /// For two classes and one output: what it is, logit (the log-odds of class 1) or probability
    /// (of class 1) [default: logit, where the values leave no doubt]
    #[arg(long, value_name = "WHAT", help_heading = "Network")]
    pub one_output: Option<OneOutput>,
}

/// The network, the images and the threat of an evaluation.
#[derive(Debug)]
pub struct Target {
    /// The network, with its origin.
    pub subject: Judged,
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
    /// Identity of network, images, threat and seed: all values that decide the results, except the
    /// attacks.
    pub identity: Identity,
    /// SHA-256 of the whole test split, where it is that of the run.
    pub split_sha256: Option<String>,
    batch: usize,
}

impl Target {
    /// Loads the target that `args` describe; `default_limit` is the number of images without
    /// `--limit`.
    ///
    /// # Errors
    /// A wrong value, or a model or data set that does not exist.
    pub fn load(args: &SubjectArgs, default_limit: Option<usize>) -> Result<Self> {
        args.machine.start_threads()?;
        if args.batch == Some(0) {
            return Err(Failure::input("--batch 0: expected at least 1"));
        }
        if args.limit == Some(0) {
            return Err(Failure::input("--limit 0: expected at least 1"));
        }
        let subject = Judged::load(args)?;
        let norm = args.norm.or(subject.about().map(|about| about.norm)).unwrap_or(Norm::Linf);
        let epsilon = choose_epsilon(args, &subject, norm)?;
        warn_of_weights(&subject);
        let data_config = data_config(args, &subject)?;
        let dataset = run::open_dataset(&data_config)?;
        check_fit(&subject, &dataset)?;
        warn_of_classes(&subject, &dataset);
        let split_sha256 = of_the_run(&subject, &data_config, &dataset)?;
        let split = dataset.test.take(args.limit.or(default_limit).unwrap_or(usize::MAX));
        let threat = Threat::new(norm, &epsilon)?;
        let split = OnSplit(split);
        subject.look_at_one_output(&split)?;
        let which = args.weights.unwrap_or(Which::Final);
        let batch = args.batch(subject.classifier().shape());
        let weights = subject.weights(which, &split, batch)?;
        let data = split.identity(&data_config.dataset, "test")?;
        let identity = Identity::new(evaluate::program(), weights, data, threat, args.seed);
        Ok(Self {
            subject,
            split,
            dataset: data_config.dataset,
            epsilon,
            threat,
            seed: args.seed,
            identity,
            split_sha256,
            batch,
        })
    }

    /// Settings of the evaluator.
    pub fn config(&self) -> EvalConfig {
        EvalConfig { seed: self.seed, batch: self.batch, ..EvalConfig::under(self.threat) }
    }

    /// The network under attack.
    pub fn model(&self) -> &dyn Classifier {
        self.subject.classifier()
    }

    /// The cost of evaluations with these attacks, one after the other, measured on a few images. A
    /// long time is announced.
    ///
    /// # Errors
    /// A network or data set that fails.
    pub fn plan(&self, evaluations: &[&[Entry]]) -> Result<Plan> {
        let (model, images) = (self.model(), self.split.len());
        let speed = Speed::measure(model, &self.split, self.batch)?;
        let mut plan = Plan::default();
        for entries in evaluations {
            plan.add(entries, images, model.shape().classes, speed);
        }
        if plan.seconds() > LONG {
            let (pass, seconds) = match model.access() {
                Access::Gradients => ("gradient of", speed.gradient),
                Access::Scores | Access::Labels => ("answer to", speed.forward),
            };
            tracing::info!(
                "{} attacks on up to {images} images: at most about {} ({:.1} ms for the {pass} an \
                 image; images that fall take no more)",
                plan.0.len(),
                duration(plan.seconds()),
                1000.0 * seconds
            );
        }
        Ok(plan)
    }

    /// The place of a file called `name` of this evaluation: the run's eval folder, or beside the
    /// weights file; of a served model, the current folder.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if let Some((dir, _)) = self.subject.run() {
            let dir = dir.evaluations();
            RunDir::refuse_link(&dir)?;
            fs::create_dir_all(&dir).map_err(|e| Failure::io("create", &dir, &e))?;
            return Ok(dir.join(name));
        }
        Ok(self.subject.beside(name))
    }

    /// Warnings of the sanity checks that query the network itself.
    ///
    /// # Errors
    /// A network or data set that fails.
    pub fn probe(&self) -> Result<Vec<String>> {
        let some: Vec<usize> = (0..self.split.len().min(PROBED)).collect();
        let labels: Vec<usize> = some.iter().map(|&i| self.split.label(i)).collect();
        let pixels = self.split.pixels(&some)?;
        Ok(sanity::probe(self.model(), &pixels, &labels, self.threat.norm, self.seed)?)
    }
}

fn choose_epsilon(args: &SubjectArgs, subject: &Judged, norm: Norm) -> Result<Epsilon> {
    if let Some(epsilon) = &args.epsilon {
        return Ok(epsilon.clone());
    }
    let at = subject.name();
    match subject.about() {
        Some(about) if about.norm == norm => Ok(about.epsilon.clone()),
        Some(about) => Err(Failure::input(format!(
            "--epsilon is missing: {at} was trained for --norm {}, not {norm}",
            about.norm
        ))),
        None => Err(Failure::input(format!(
            "--epsilon is missing: {at} does not say what it was trained for; for example 8/255"
        ))),
    }
}

/// The settings of the data set to evaluate on: the run's own, unless another is named.
fn data_config(args: &SubjectArgs, subject: &Judged) -> Result<TrainConfig> {
    let mut config = match (subject.run(), subject.about()) {
        (Some((_, config)), _) => config.settings.clone(),
        (None, Some(about)) => {
            TrainConfig { orientation: about.orientation, ..TrainConfig::default() }
        }
        (None, None) => TrainConfig::default(),
    };
    let own = || trained_on(args.subject.as_deref(), subject);
    let named = args.dataset.clone().map(Ok).or_else(|| subject.run().is_none().then(own));
    if let Some(dataset) = named.transpose()? {
        config.dataset = dataset;
        // Use the size that the network takes, if the set has images of that size.
        let shape = subject.shape();
        let fits = shape.height == shape.width && data::comes_in(&config.dataset, shape.height);
        config.image_size = fits.then_some(shape.height);
    }
    if args.data_dir.is_some() {
        config.data_dir = args.data_dir.clone();
    }
    Ok(config)
}

/// The data set that the weights file `path` was trained on, where it can be found: files do not say
/// where a folder lies, and a run folder around the file does.
fn trained_on(path: Option<&Path>, subject: &Judged) -> Result<String> {
    let own = subject.about().map(|about| about.dataset.as_str()).unwrap_or_default();
    if own.is_empty() {
        return Err(Failure::input(format!(
            "--dataset is missing: {} does not say what it was trained on; name a set of `sora \
             data list` or an image folder",
            subject.name()
        )));
    }
    let folder = ["folder:", "imagefolder:"].iter().find_map(|kind| own.strip_prefix(kind));
    // Older files have the whole path.
    let Some(folder) = folder.filter(|folder| !Path::new(folder).is_absolute()) else {
        return Ok(own.to_owned());
    };
    let runs = path
        .into_iter()
        .flat_map(Path::ancestors)
        .skip(1)
        .take(3)
        .filter_map(|dir| RunDir::open(dir).ok());
    let same = |(_, run): &(RunDir, RunConfig)| data::without_place(&run.settings.dataset) == own;
    runs.into_iter().find(same).map(|(_, run)| run.settings.dataset).ok_or_else(|| {
        Failure::input(format!(
            "--dataset is missing: {} was trained on the folder '{folder}' and does not say where \
             that lies; name it with --dataset",
            subject.name()
        ))
    })
}

/// Warns if the weights are those of an unfinished run.
fn warn_of_weights(subject: &Judged) {
    let Judged::Ours { subject, .. } = subject else { return };
    if let (false, Some(step)) = (subject.source.complete, subject.source.step) {
        tracing::warn!(
            "{}: weights after {step} steps, not the final ones of the run",
            subject.source.file.display()
        );
    }
}

/// Warns if a data set has other classes than the network was trained on.
fn warn_of_classes(subject: &Judged, dataset: &Dataset) {
    let Some(about) = subject.about() else { return };
    let names = dataset.test.class_names();
    if !names.is_empty() && !about.classes.is_empty() && names != about.classes {
        tracing::warn!(
            "the classes of the data set have other names or another order than those that the \
             network was trained on"
        );
    }
}

/// SHA-256 of the whole test split of a run's own data set; says where it is no longer what the run
/// began with. `None` for any other data set: reading a large one costs minutes.
fn of_the_run(
    subject: &Judged,
    data_config: &TrainConfig,
    dataset: &Dataset,
) -> Result<Option<String>> {
    let Some((_, run)) = subject.run() else { return Ok(None) };
    let mut named = data_config.clone();
    named.make_absolute();
    let (Some(before), true) = (&run.data, named.dataset == run.settings.dataset) else {
        return Ok(None);
    };
    let now = dataset.test.identity().map_err(sora::Error::from)?;
    if let Some(difference) = now.difference(&before.test) {
        tracing::warn!("the test images are not those that the run began with: {difference}");
    }
    Ok(Some(now.sha256))
}

fn check_fit(subject: &Judged, dataset: &Dataset) -> Result<()> {
    let shape = subject.shape();
    let [channels, height, width] = dataset.test.shape();
    let classes = dataset.test.num_classes();
    let same = (channels, height, width) == (shape.channels, shape.height, shape.width);
    // A network may know more classes than a set's images have.
    let fits = classes == shape.classes
        || !matches!(subject, Judged::Ours { .. }) && classes <= shape.classes;
    if same && fits {
        return Ok(());
    }
    Err(Failure::input(format!(
        "the data set has images of {channels}x{height}x{width} in {classes} classes, the network \
         takes {}x{}x{} in {}; name the right one with --dataset",
        shape.channels, shape.height, shape.width, shape.classes
    )))
}
