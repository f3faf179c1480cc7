//! The run folder: its files, its settings and the data and model they name.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{TrainConfig, one_line},
    data::{self, Augment, Dataset, Split},
    device,
    error::{Error, Result},
    evaluate::Report,
    files,
    method::{self, DataInfo},
    model::{self, Model, ModelConfig, Shape},
    threat::{Epsilon, Norm},
};

/// Paths inside a run folder.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// Facts about the program and the machine, kept with the settings.
#[derive(Clone, Debug, Serialize)]
struct Provenance {
    sora: &'static str,
    git_revision: &'static str,
    burn: &'static str,
    device: String,
    instruction_set: String,
    os: &'static str,
}

#[derive(Serialize)]
struct ConfigFile<'a> {
    #[serde(flatten)]
    config: &'a TrainConfig,
    provenance: Provenance,
}

impl RunDir {
    /// The folder `path` of a run that exists.
    ///
    /// # Errors
    /// No config.toml in it.
    pub fn open(path: &Path) -> Result<(Self, TrainConfig)> {
        let dir = Self(path.to_owned());
        let file = dir.config();
        let text = fs::read_to_string(&file).map_err(|e| {
            Error::input(format!(
                "{}: not a run folder, cannot read its config.toml ({e}); expected a folder that `sora train --out` made",
                path.display()
            ))
        })?;
        let config = toml::from_str(&text).map_err(|e| {
            Error::input(format!("{}: {}", file.display(), one_line(&e.to_string())))
        })?;
        Ok((dir, config))
    }

    /// Makes the folder of a new run and writes its config.toml.
    ///
    /// # Errors
    /// A folder that already holds something, or cannot be written.
    pub fn create(path: &Path, config: &TrainConfig) -> Result<Self> {
        let dir = Self(path.to_owned());
        if dir.config().exists() {
            return Err(Error::input(format!(
                "--out {}: holds a run already; go on with `sora resume {}` or choose another folder",
                path.display(),
                path.display()
            )));
        }
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(Error::input(format!(
                    "--out {}: not empty; choose a new folder",
                    path.display()
                )));
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::input(format!(
                    "--out {}: cannot use it as a folder: {e}",
                    path.display()
                )));
            }
            _ => {}
        }
        let cannot = |e: std::io::Error| {
            Error::input(format!("--out {}: cannot make the folder: {e}", path.display()))
        };
        fs::create_dir_all(path).map_err(cannot)?;
        fs::create_dir_all(dir.checkpoints()).map_err(cannot)?;
        let provenance = Provenance {
            sora: env!("CARGO_PKG_VERSION"),
            git_revision: option_env!("SORA_GIT_REVISION").unwrap_or("unknown"),
            burn: "0.22.1",
            device: config.device.clone(),
            instruction_set: device::instruction_set()?.to_string(),
            os: std::env::consts::OS,
        };
        let text = toml::to_string(&ConfigFile { config, provenance }).map_err(|e| {
            Error::work(format!("cannot serialise the settings: {}", one_line(&e.to_string())))
        })?;
        files::write_atomic(&dir.config(), text.as_bytes())?;
        Ok(dir)
    }

    /// Keeps other processes from training in this folder while the returned file is open; a kill
    /// lets go of it.
    ///
    /// # Errors
    /// Another process trains in it; a file that cannot be made.
    pub fn lock(&self) -> Result<fs::File> {
        let path = self.0.join("lock");
        let file = fs::File::create(&path).map_err(|e| Error::io("make", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::InUse { path: self.0.clone() });
            }
            // Some network file systems have no locks: as before there were any.
            Err(fs::TryLockError::Error(e)) => {
                tracing::debug!("{}: cannot be locked: {e}", path.display())
            }
        }
        Ok(file)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// One line a step.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The lines of steps that a rollback threw away.
    pub fn abandoned(&self) -> PathBuf {
        self.0.join("abandoned.jsonl")
    }

    /// Folder of the TensorBoard event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// One line an epoch.
    pub fn epochs(&self) -> PathBuf {
        self.0.join("epochs.jsonl")
    }

    /// Final weights.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// Final figures.
    pub fn summary(&self) -> PathBuf {
        self.0.join("summary.json")
    }

    /// Writes `value` as pretty JSON to `path`, all or nothing.
    pub fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|e| Error::work(format!("cannot serialise {}: {e}", path.display())))?;
        json.push(b'\n');
        files::write_atomic(path, &json)
    }

    /// Writes an evaluation to `eval/NAME.json`.
    pub fn write_report(&self, name: &str, report: &Report) -> Result<PathBuf> {
        let dir = self.0.join("eval");
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let path = dir.join(format!("{name}.json"));
        self.write_json(&path, report)?;
        Ok(path)
    }
}

/// Images of a data set, split for training.
#[derive(Debug)]
pub struct TrainData {
    /// Training images without the held-out ones.
    pub train: Arc<Split>,
    /// Held-out images; empty with `--val 0`.
    pub val: Split,
}

/// Makes the paths in `config` absolute, so that the run resumes from any working folder.
pub fn make_absolute(config: &mut TrainConfig) {
    // Fails only for an empty path, which is refused later by its own name.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    config.data_dir = config.data_dir.as_deref().map(absolute);
    let named = data::find(&config.dataset).is_some();
    if let Some(path) = config.dataset.strip_prefix("imagefolder:") {
        config.dataset = format!("imagefolder:{}", absolute(Path::new(path)).display());
    } else if let Some(path) =
        config.dataset.strip_prefix("folder:").or((!named).then_some(config.dataset.as_str()))
        && Path::new(path).is_dir()
    {
        config.dataset = format!("folder:{}", absolute(Path::new(path)).display());
    }
}

/// Opens the data set of `config`.
///
/// # Errors
/// A set that is missing, unknown or damaged.
pub fn open_dataset(config: &TrainConfig) -> Result<Dataset> {
    let options = data::OpenOptions {
        data_dir: config.data_dir.clone(),
        image_size: config.image_size,
        seed: config.seed,
        limit_train: config.limit_train,
        limit_test: config.limit_test,
        ..Default::default()
    };
    Ok(data::open(&config.dataset, &options)?)
}

/// Settles what depends on the data set (network shape, normalisation, augmentation, validation
/// size) and splits it.
///
/// # Errors
/// A validation split that leaves nothing to train on.
pub fn prepare(config: &mut TrainConfig, dataset: &Dataset) -> Result<TrainData> {
    let [channels, height, width] = dataset.train.shape();
    if config.network.is_none() {
        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let shape = Shape { channels, height, width, classes: dataset.train.num_classes() };
        config.network = Some(ModelConfig {
            name: config.model.clone(),
            width: config.width,
            shape,
            options: model::network(&config.model)?.resolve(config.network_options, shape)?,
            mean: f32s(&dataset.info.mean),
            std: f32s(&dataset.info.std),
        });
    }
    let total = dataset.train.len();
    let val = *config.val.get_or_insert_with(|| 1000.min(total / 10));
    if val >= total {
        return Err(Error::input(format!(
            "--val {val}: the training split has {total} images; expected fewer, so that some are left to train on"
        )));
    }
    config.augment.get_or_insert(dataset.info.augment);
    let (train, val) = if val == 0 {
        (dataset.train.clone(), dataset.train.take(0))
    } else {
        let (train, val) = dataset.train.hold_out(val, config.seed)?;
        (Arc::new(train), val)
    };
    if config.drop_last && train.len() < config.batch {
        return Err(Error::input(format!(
            "--batch {}: only {} training images are left after validation; choose a smaller batch",
            config.batch,
            train.len()
        )));
    }
    let info = DataInfo { images: train.len(), shape: train.shape(), augment: config.augment() };
    let method = method::method(&config.method)?.build(&config.options, config.threat())?;
    memory_fits(&config.method, method.memory(&info)?, &info, device::available_memory())?;
    let batches = if config.drop_last {
        train.len() / config.batch
    } else {
        train.len().div_ceil(config.batch)
    };
    config.steps_per_epoch = Some(batches as u64 * u64::from(method.updates_per_batch().max(1)));
    Ok(TrainData { train, val })
}

/// Reports what a method keeps for the training images, and refuses what the machine has no room
/// for.
fn memory_fits(method: &str, bytes: u64, data: &DataInfo, available: Option<u64>) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let kept = format!(
        "method {method} keeps {} MiB for the {} training images, twice that while it writes a checkpoint",
        mib(bytes),
        data.images
    );
    match available {
        Some(available) if 2 * bytes > available => Err(Error::input(format!(
            "{kept}, and {} MiB are free: use fewer images with --limit-train, or another method",
            mib(available)
        ))),
        _ => {
            tracing::info!("{kept}");
            Ok(())
        }
    }
}

impl TrainConfig {
    /// The augmentation, once [`prepare`] has settled it.
    pub fn augment(&self) -> Augment {
        self.augment.unwrap_or(Augment::NONE)
    }

    /// The network, once [`prepare`] has settled it.
    ///
    /// # Errors
    /// A config.toml without its `[network]` part.
    pub fn network(&self) -> Result<&ModelConfig> {
        self.network.as_ref().ok_or_else(|| {
            Error::input("config.toml: the part [network] is missing; was it edited by hand?")
        })
    }

    /// What a weights file says about itself.
    ///
    /// # Errors
    /// As [`network`](Self::network).
    pub fn weights_metadata(&self) -> Result<HashMap<String, String>> {
        let about = About {
            network: self.network()?.clone(),
            dataset: self.dataset.clone(),
            method: self.method.clone(),
            epsilon: self.epsilon.clone(),
            norm: self.norm,
        };
        about.metadata()
    }
}

/// Metadata key under which a weights file describes itself.
pub const ABOUT: &str = "sora";

/// What a weights file says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The network.
    pub network: ModelConfig,
    /// Data set it was trained on; empty if that is not known.
    pub dataset: String,
    /// Method it was trained with; `imported` for weights of another program.
    pub method: String,
    /// Epsilon it was trained with.
    pub epsilon: Epsilon,
    /// Norm it was trained with.
    pub norm: Norm,
}

impl About {
    /// As the metadata of a weights file.
    ///
    /// # Errors
    /// None that is known of; serialisation can fail.
    pub fn metadata(&self) -> Result<HashMap<String, String>> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::work(format!("cannot serialise the network's description: {e}")))?;
        // One entry: the order of several would differ from run to run, and so the file's bytes.
        Ok([(ABOUT.to_owned(), json)].into())
    }

    /// From the text in the metadata of the weights file `file`.
    ///
    /// # Errors
    /// A text that is no description.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::input(format!(
                "{}: its description of the network is damaged: {e}",
                file.display()
            ))
        })
    }
}

/// A model to evaluate and what it was made with.
#[derive(Debug)]
pub struct Subject {
    /// The network with its weights.
    pub model: Model,
    /// Data set it was trained on.
    pub dataset: String,
    /// Epsilon it was trained with.
    pub epsilon: Epsilon,
    /// Norm it was trained with.
    pub norm: Norm,
    /// Method it was trained with.
    pub method: String,
    /// Settings of its run, if it comes from a run folder.
    pub run: Option<(RunDir, TrainConfig)>,
}

impl Subject {
    /// Loads a run folder (final weights, else the newest checkpoint) or a weights file.
    ///
    /// # Errors
    /// A path that is neither.
    pub fn load(path: &Path, device: &burn::tensor::Device) -> Result<Self> {
        let alone = RunDir(path.to_owned());
        let (file, run) = if path.is_dir() && !alone.config().exists() && alone.model().exists() {
            // An imported network: weights without a run.
            (alone.model(), None)
        } else if path.is_dir() {
            let run = RunDir::open(path)?;
            let newest = || {
                crate::checkpoint::list(&run.0.checkpoints())
                    .map(|all| all.last().map(|dir| dir.join("model.safetensors")))
            };
            let file = if run.0.model().exists() { Some(run.0.model()) } else { newest()? };
            let file = file.ok_or_else(|| {
                Error::input(format!(
                    "{}: the run has no weights yet; go on with `sora resume {}`",
                    path.display(),
                    path.display()
                ))
            })?;
            (file, Some(run))
        } else {
            (path.to_owned(), None)
        };
        let (tensors, metadata) = files::read_safetensors(&file)?;
        let description = metadata.get(ABOUT).ok_or_else(|| {
            Error::input(format!(
                "{}: does not say which network it belongs to; expected a weights file that `sora train` wrote",
                file.display()
            ))
        })?;
        let about = About::parse(description, &file)?;
        let origin = file.display().to_string();
        let model = Model::from_tensors(about.network, &tensors, &origin, device)?;
        Ok(Self {
            model,
            dataset: about.dataset,
            epsilon: about.epsilon,
            norm: about.norm,
            method: about.method,
            run,
        })
    }

    /// What the weights file says about itself.
    pub fn about(&self) -> About {
        About {
            network: self.model.config.clone(),
            dataset: self.dataset.clone(),
            method: self.method.clone(),
            epsilon: self.epsilon.clone(),
            norm: self.norm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_needs_more_memory_than_is_free_is_refused() {
        let data = DataInfo { images: 50_000, shape: [3, 32, 32], augment: Augment::NONE };
        let bytes = 50_000 * 3072 * 4;
        assert!(memory_fits("atas", bytes, &data, Some(2 * bytes)).is_ok());
        assert!(memory_fits("atas", bytes, &data, None).is_ok());
        assert!(memory_fits("sora", 0, &data, Some(0)).is_ok());
        let error = memory_fits("atas", bytes, &data, Some(1 << 30)).unwrap_err();
        assert!(matches!(error, Error::Input(_)));
        let text = error.to_string();
        assert!(
            text.contains("586 MiB") && text.contains("1024 MiB") && text.contains("--limit-train"),
            "{text}"
        );
    }
}
