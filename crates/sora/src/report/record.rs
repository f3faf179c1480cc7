//! The records of evaluations in a run folder, and the weights that each record is of.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{privacy::without_paths, strength::strength};
use crate::{
    model::ModelConfig,
    run::About,
    sealed,
    stats::{Accuracy, wilson95},
};

/// The weights whose accuracies a record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Of {
    /// The run's final weights.
    Final,
    /// The weights of the best validation.
    Best,
    /// The weights after this many steps.
    Step(u64),
    /// Weights that are not, or no longer, the run's.
    Other,
    /// Unknown weights: an older version wrote the record.
    #[default]
    Unsaid,
}

impl Of {
    /// Description for captions.
    pub fn words(self) -> String {
        match self {
            Self::Final => "final weights".into(),
            Self::Best => "best weights of the validation".into(),
            Self::Step(step) => format!("weights after step {}", super::caption::thousands(step)),
            Self::Other => "other weights than the run's".into(),
            Self::Unsaid => "weights not said (older record)".into(),
        }
    }
}

/// The fields of a file in `eval/` that a reader needs. Fields that an older version did not write,
/// or that a newer version adds, do not make a result unreadable.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// File name without its ending.
    pub name: String,
    /// Data set.
    pub dataset: String,
    /// Split of the data set.
    pub split: String,
    /// Number of images.
    pub n: u64,
    /// Radius in pixel units.
    pub epsilon: f64,
    /// `linf` or `l2`.
    pub norm: String,
    /// Seed.
    pub seed: u64,
    /// The weights whose accuracies these are.
    pub of: Of,
    /// What images they are of, where the record says.
    pub images: RecordImages,
    /// What else was asked for, such as attacks towards a class.
    pub options: Vec<String>,
    /// The program that wrote it; empty where the record does not say.
    pub program: String,
    /// Accuracies by attack.
    pub results: BTreeMap<String, Accuracy>,
    /// Mean accuracy on corrupted images.
    pub corruptions: Option<Accuracy>,
    /// Warnings to read before the accuracies are trusted.
    pub warnings: Vec<String>,
}

/// The images of a record, as digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordImages {
    /// Of those evaluated, with their labels; empty where the record does not say.
    pub sha256: String,
    /// Of the whole split; empty where the record does not say.
    pub split_sha256: String,
    /// Names of the classes; empty where they have none.
    pub classes: Vec<String>,
}

/// The content of the file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    dataset: String,
    split: String,
    n: u64,
    epsilon: f64,
    norm: String,
    seed: u64,
    results: BTreeMap<String, Figures>,
    corruptions: Option<Corrupted>,
    warnings: Vec<String>,
    identity: Value,
    split_sha256: String,
}

#[derive(Deserialize)]
struct Corrupted {
    mean: Figures,
}

#[derive(Deserialize)]
struct Figures {
    accuracy: f64,
    ci95: Option<[f64; 2]>,
}

/// The descriptions in the weights files of a run.
#[derive(Clone, Debug, Default)]
pub struct WeightsOfRun {
    /// Description of the final weights.
    pub last: Option<About>,
    /// Description in `best.safetensors`.
    pub best: Option<About>,
}

impl WeightsOfRun {
    /// Reads the headers of the weights files of a run folder; a header that cannot be read is
    /// absent, as are the final weights of a run without any.
    pub fn read(last: Option<&Path>, best: &Path) -> Self {
        Self { last: last.and_then(about), best: about(best) }
    }

    /// The weights of a record with this identity.
    fn of(&self, identity: &Value) -> Of {
        let weights = identity.get("weights").unwrap_or(&Value::Null);
        let digest = weights.as_str().or_else(|| weights.get("sha256")?.as_str());
        let step = weights.get("step").and_then(Value::as_u64);
        let network = weights.get("network").and_then(Value::as_str).unwrap_or_default();
        let same = |about: &Option<About>| {
            about.as_ref().is_some_and(|about| match (digest, about.sha256.as_str()) {
                // Weights of an older version lack their digest.
                (_, "") => about.step.is_some() && about.step == step,
                (digest, own) => digest == Some(own),
            } && is_network(network, about))
        };
        match step {
            _ if digest.is_none() && step.is_none() => Of::Unsaid,
            _ if same(&self.last) => Of::Final,
            _ if same(&self.best) => Of::Best,
            // The number of steps equals that of the final weights but the values differ, so they
            // are of another training.
            Some(step) if self.last.as_ref().is_none_or(|last| last.step != Some(step)) => {
                Of::Step(step)
            }
            _ => Of::Other,
        }
    }
}

/// Whether the network that a record names is that of `about`, with its normalisation and every
/// option; a record that names none is believed.
fn is_network(text: &str, about: &About) -> bool {
    let named: Option<ModelConfig> = serde_json::from_str(text).ok();
    text.is_empty() || named.map(|named| named.for_identity()) == Some(about.network.for_identity())
}

/// Largest header of a weights file in bytes that is read.
const LARGEST_HEADER: u64 = 64 << 20;

/// The description in a weights file, from its header alone.
fn about(file: &Path) -> Option<About> {
    use std::io::Read;
    let mut reader = fs::File::open(file).ok()?;
    let mut length = [0; 8];
    reader.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= LARGEST_HEADER)?;
    let mut header = Vec::new();
    reader.take(length).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let text = header.get("__metadata__")?.get(crate::run::ABOUT)?.as_str()?;
    About::parse(text, file).ok()
}

/// Reads the evaluations in the folder `dir`, in the order of their file names; each damaged file
/// adds to `warnings`.
pub fn read(dir: &Path, weights: &WeightsOfRun, warnings: &mut Vec<String>) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match content(&file) {
            // Other records, such as sweeps, may lie beside the evaluations and are skipped.
            Ok(value) if !value.get("results").is_some_and(Value::is_object) => {}
            Ok(value) => match serde_json::from_value::<File>(value) {
                Ok(file) => records.push(Record::new(name, file, weights)),
                Err(e) => warnings.push(format!("eval/{name}.json is not an evaluation: {e}")),
            },
            Err(problem) => warnings.push(format!("eval/{name}.json {problem}")),
        }
    }
    records
}

/// The content of a record, or what is wrong with it.
fn content(file: &Path) -> Result<Value, String> {
    let damaged = |e: &dyn std::fmt::Display| format!("is damaged: {e}");
    let text = fs::read(file).map_err(|e| damaged(&e))?;
    let value = serde_json::from_slice(&text).map_err(|e| damaged(&e))?;
    if sealed::is_changed(&text) {
        return Err("was changed since it was written (damaged or edited) and is left out".into());
    }
    Ok(value)
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array).into_iter().flatten();
    all.map(|value| text(Some(value))).collect()
}

fn images(file: &File) -> RecordImages {
    let data = file.identity.get("data").unwrap_or(&Value::Null);
    // Written as plain text by some versions.
    let sha256 = data.as_str().map_or_else(|| text(data.get("sha256")), str::to_owned);
    let classes = strings(data.get("classes"));
    RecordImages { sha256, split_sha256: file.split_sha256.clone(), classes }
}

impl Record {
    fn new(name: String, file: File, weights: &WeightsOfRun) -> Self {
        let n = file.n;
        let accuracy = |Figures { accuracy, ci95 }| Accuracy {
            accuracy,
            ci95: ci95.unwrap_or_else(|| wilson95((accuracy * n as f64).round() as u64, n)),
        };
        Self {
            name,
            of: weights.of(&file.identity),
            images: images(&file),
            options: strings(file.identity.get("options")),
            program: text(file.identity.get("program")),
            corruptions: file.corruptions.map(|found| accuracy(found.mean)),
            results: file.results.into_iter().map(|(k, v)| (k, accuracy(v))).collect(),
            warnings: file.warnings.iter().map(|text| without_paths(text)).collect(),
            dataset: file.dataset,
            split: file.split,
            n,
            epsilon: file.epsilon,
            norm: file.norm,
            seed: file.seed,
        }
    }

    /// Rank of its strongest attack, by the names of the attacks.
    pub fn rank(&self) -> Option<u64> {
        self.results.keys().map(|name| strength(name)).max()
    }
}
