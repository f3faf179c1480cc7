//! Weights files with their descriptions, and the models that are read from them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{RunConfig, RunDir, TrainPlan, checkpoint};
use crate::{
    config::TrainConfig,
    data::{self, Orientation},
    error::{Error, Result},
    files,
    model::{Model, ModelConfig},
    nn::HostTensor,
    sealed,
    threat::{Epsilon, Norm},
};

/// Metadata key of a weights file's description.
pub const ABOUT: &str = "sora";

/// The description in a weights file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The network.
    pub network: ModelConfig,
    /// Data set of the training; empty if it is not known. A file holds only the last name of a
    /// folder, because files are passed on.
    pub dataset: String,
    /// Extra data set of the training; empty if there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extra: String,
    /// How photographs with an orientation tag were taken.
    #[serde(default, skip_serializing_if = "Orientation::is_as_stored")]
    pub orientation: Orientation,
    /// Method of the training; `imported` for weights of another program.
    pub method: String,
    /// Epsilon of the training.
    pub epsilon: Epsilon,
    /// Norm of the training.
    pub norm: Norm,
    /// Number of steps of the training, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Names of the classes in the order of the logits; empty if they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// SHA-256 of the tensors ([`files::digest`]); empty in files of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

impl About {
    /// The description of a run's weights after `step` steps.
    pub fn of_run(config: &TrainConfig, plan: &TrainPlan, step: u64) -> Self {
        Self {
            network: plan.network.clone(),
            dataset: config.dataset.clone(),
            extra: config.extra_data.clone().unwrap_or_default(),
            orientation: config.orientation,
            method: config.method.clone(),
            epsilon: config.epsilon.clone(),
            norm: config.norm,
            step: Some(step),
            classes: plan.classes.clone(),
            sha256: String::new(),
        }
    }

    /// The description as metadata of a weights file.
    ///
    /// # Errors
    /// [`Error`] if the serialisation fails, which no known value causes.
    pub fn metadata(&self) -> Result<HashMap<String, String>> {
        let about = Self {
            dataset: data::without_place(&self.dataset),
            extra: data::without_place(&self.extra),
            ..self.clone()
        };
        let json = sealed::line(&about)?;
        // There is only one entry, because the order of several would differ from run to run, and
        // with it the file's bytes.
        Ok([(ABOUT.to_owned(), json)].into())
    }

    /// Reads the description in the metadata of the weights file `file`.
    ///
    /// # Errors
    /// [`Error`] for a text that is not a description, or is another than was written.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        if sealed::is_line_changed(text) {
            let problem = "its description of the network is not that which was written: its `sum` \
                           is another";
            return Err(Error::damaged(file, problem));
        }
        serde_json::from_str(text).map_err(|e| {
            Error::damaged(file, format!("its description of the network is damaged: {e}"))
        })
    }

    /// The bytes of a weights file with these `tensors`; the description gets their digest.
    ///
    /// # Errors
    /// Those of [`files::to_safetensors`].
    pub fn file(mut self, tensors: &[HostTensor]) -> Result<Vec<u8>> {
        self.sha256 = files::digest(tensors);
        files::to_safetensors(tensors, self.metadata()?)
    }

    /// Checks that `tensors` are those with which the file `file` was written.
    ///
    /// # Errors
    /// [`Error`] for tensors with another digest.
    pub fn verify(&self, tensors: &BTreeMap<String, HostTensor>, file: &Path) -> Result<()> {
        if self.sha256.is_empty() || self.sha256 == files::digest(tensors.values()) {
            return Ok(());
        }
        let problem =
            "its tensors are not those that it was written with: their SHA-256 is another";
        Err(Error::damaged(file, problem))
    }
}

/// A choice among a run's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The final weights; for an unfinished run, those of the newest checkpoint.
    #[default]
    Final,
    /// The weights of the best validation.
    Best,
    /// The weights of the checkpoint after this many steps.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "final" => Ok(Self::Final),
            "best" => Ok(Self::Best),
            _ => text.parse().map(Self::Step).map_err(|_| {
                Error::setting("weights", format!("'{text}'"), "expected final, best or a step")
            }),
        }
    }
}

/// The source of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Number of steps of their training, if it is known.
    pub step: Option<u64>,
    /// Whether they are a run's final weights or a single file, as against an intermediate state.
    pub complete: bool,
}

/// A model to evaluate, and its origin.
#[derive(Debug)]
pub struct Subject {
    /// The network with its weights.
    pub model: Model,
    /// The description of the weights.
    pub about: About,
    /// The source of the weights.
    pub source: Source,
    /// Folder and settings of its run, if it comes from a run folder.
    pub run: Option<(RunDir, RunConfig)>,
}

impl Subject {
    /// Loads a run folder (final weights, else the newest checkpoint) or a weights file.
    ///
    /// # Errors
    /// [`Error`] for a path that is neither.
    pub fn load(path: &Path, device: &burn::tensor::Device) -> Result<Self> {
        Self::load_weights(path, Which::Final, device)
    }

    /// Loads a run folder or a weights file; from a run, the weights `which`.
    ///
    /// # Errors
    /// [`Error`] for a path that is neither, or a run without those weights.
    pub fn load_weights(path: &Path, which: Which, device: &burn::tensor::Device) -> Result<Self> {
        let dir = RunDir::at(path);
        let alone = |file: PathBuf| Source { file, step: None, complete: true };
        if !path.is_dir() {
            return Self::read(alone(path.to_owned()), None, device);
        }
        if !dir.config().exists() && dir.model().exists() {
            // The folder of an imported network holds weights without a run.
            return Self::read(alone(dir.model()), None, device);
        }
        let run = RunDir::open(path)?;
        match which {
            Which::Final => match dir.final_weights() {
                Some(file) => Self::read(alone(file), Some(run), device),
                None => Self::newest(&run, device),
            },
            Which::Best => {
                let source = Source { file: dir.best(), step: None, complete: false };
                Self::read(source, Some(run), device)
            }
            Which::Step(step) => Self::at_step(run, step, device),
        }
    }

    /// The newest checkpoint of an unfinished run; damaged checkpoints are skipped.
    fn newest(run: &(RunDir, RunConfig), device: &burn::tensor::Device) -> Result<Self> {
        let mut all = checkpoint::list(&run.0.checkpoints())?;
        let mut first = None;
        while let Some(path) = all.pop() {
            let step = checkpoint::step(&path, run.1.steps_per_epoch);
            let source = Source { file: path.join(checkpoint::MODEL), step, complete: false };
            match Self::read(source, Some(run.clone()), device) {
                Ok(subject) => return Ok(subject),
                Err(e) => {
                    tracing::warn!("{e}; trying the checkpoint before it");
                    first.get_or_insert(e);
                }
            }
        }
        Err(first.unwrap_or_else(|| {
            Error::mismatch(run.0.path(), "the run has no weights yet; resume it")
        }))
    }

    fn at_step(run: (RunDir, RunConfig), step: u64, device: &burn::tensor::Device) -> Result<Self> {
        let all = checkpoint::list(&run.0.checkpoints())?;
        let at = |path: &PathBuf| checkpoint::step(path, run.1.steps_per_epoch);
        let Some(path) = all.iter().find(|path| at(path) == Some(step)) else {
            let kept: Vec<_> = all.iter().filter_map(at).map(|step| step.to_string()).collect();
            let problem = format!(
                "the run keeps no checkpoint after that step, only after {}",
                kept.join(", ")
            );
            return Err(Error::setting("weights", step, problem));
        };
        let file = path.join(checkpoint::MODEL);
        Self::read(Source { file, step: Some(step), complete: false }, Some(run), device)
    }

    fn read(
        mut source: Source,
        run: Option<(RunDir, RunConfig)>,
        device: &burn::tensor::Device,
    ) -> Result<Self> {
        let file = &source.file;
        let in_checkpoint = run.is_some() && file.parent() != run.as_ref().map(|run| run.0.path());
        let (tensors, metadata) = match file.parent() {
            Some(folder) if in_checkpoint => checkpoint::weights(folder)?,
            _ => files::read_safetensors(file)?,
        };
        let description = metadata.get(ABOUT).ok_or_else(|| {
            let problem = "does not say which network it belongs to; expected a weights file that \
                           a training wrote";
            Error::mismatch(file, problem)
        })?;
        let about = About::parse(description, file)?;
        about.verify(&tensors, file)?;
        let origin = file.display().to_string();
        let model = Model::from_tensors(about.network.clone(), &tensors, &origin, device)?;
        source.step = source.step.or(about.step);
        Ok(Self { model, about, source, run })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weights_file_does_not_say_where_the_users_images_lie() {
        let config = TrainConfig::default();
        let network = ModelConfig {
            name: "mnist-cnn".into(),
            width: 1,
            shape: crate::model::Shape { channels: 1, height: 8, width: 8, classes: 2 },
            mean: vec![0.5],
            std: vec![0.5],
            options: Default::default(),
            onnx: None,
        };
        let about = About {
            network,
            dataset: "folder:/home/me/secret/pets".into(),
            extra: "folder:/home/me/secret/more".into(),
            orientation: Orientation::Exif,
            method: config.method,
            epsilon: config.epsilon,
            norm: config.norm,
            step: None,
            classes: Vec::new(),
            sha256: String::new(),
        };
        let text = &about.metadata().unwrap()[ABOUT];
        assert!(!text.contains("secret"), "{text}");
        let again = About::parse(text, Path::new("x")).unwrap();
        assert_eq!((&*again.dataset, &*again.extra), ("folder:pets", "folder:more"));
        assert_eq!(again.orientation, Orientation::Exif);
    }

    #[test]
    fn a_weights_file_notices_a_changed_value() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("w.safetensors");
        let text = "dataset = 'synthetic'\nmodel = 'mnist-cnn'\nwidth = 4\nlimit_train = 200";
        let mut config = TrainConfig::from_toml(text).unwrap();
        let data = super::super::open_dataset(&config).unwrap();
        let plan = TrainPlan::new(&mut config, &data).unwrap();
        let device = burn::tensor::Device::flex();
        let model = Model::init(plan.network.clone(), 1, &device).unwrap();
        let tensors = model.to_host().unwrap();
        let about = About::of_run(&config, &plan, 7);
        let bytes = about.file(&tensors).unwrap();
        std::fs::write(&file, &bytes).unwrap();
        let subject = Subject::load(&file, &device).unwrap();
        assert_eq!((subject.about.step, subject.source.step), (Some(7), Some(7)));
        for place in [1, bytes.len() / 2, bytes.len()] {
            let mut changed = bytes.clone();
            changed[bytes.len() - place] ^= 1;
            std::fs::write(&file, &changed).unwrap();
            let error = Subject::load(&file, &device).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
        // The description decides what the network computes: its normalisation, its options.
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        for place in 0..8 + header {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            std::fs::write(&file, &changed).unwrap();
            assert!(Subject::load(&file, &device).is_err(), "byte {place}");
        }
        assert_eq!("12".parse::<Which>().unwrap(), Which::Step(12));
        assert!("latest".parse::<Which>().is_err());
    }
}
