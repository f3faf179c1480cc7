//! What figures need beyond a run's records: it is computed from the weights that the run kept, on
//! its test split, and kept in the run folder's `plots/` so that it is computed once.

use std::{
    fs,
    path::{Path, PathBuf},
};

mod epsilon;
mod examples;
mod landscape;
mod probe;

pub use epsilon::{EpsilonRow, EpsilonSweep, epsilon_row};
pub use examples::{Example, examples};
pub use landscape::{Landscape, LandscapeConfig, landscape};
pub use probe::{Choice, Weights, evenly, load, weights};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    figures::setting,
    records::{Run, dataset_name},
};
use crate::{
    config::TrainConfig,
    data::Dataset,
    device,
    error::{Error, Result},
    files, run,
    run::{RunDir, Subject},
};

/// How to compute.
#[derive(Clone, Debug)]
pub struct ComputeOptions {
    /// Device.
    pub device: String,
    /// CPU threads; 0: one a core.
    pub threads: usize,
    /// Where data sets are kept, if not where the run found them.
    pub data_dir: Option<PathBuf>,
    /// Test images of an accuracy.
    pub limit: usize,
    /// Images at a time.
    pub batch: usize,
    /// Seed of random starts and directions.
    pub seed: u64,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        Self { device: "cpu".into(), threads: 0, data_dir: None, limit: 200, batch: 100, seed: 0 }
    }
}

/// A run with its network and its data set.
#[derive(Debug)]
pub struct Opened<'a> {
    run: &'a Run,
    subject: Subject,
    dir: RunDir,
    config: TrainConfig,
    dataset: Dataset,
    options: ComputeOptions,
}

/// Loss landscapes of several weights of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landscapes {
    /// The run.
    pub name: String,
    /// Data set, network and threat model, for the caption.
    pub about: String,
    /// Norm.
    pub norm: String,
    /// Radius as the run has it.
    pub epsilon: String,
    /// Class of the image.
    pub class: String,
    /// What was looked at.
    pub config: LandscapeConfig,
    /// One for each set of weights, oldest first.
    pub rows: Vec<Landscape>,
}

/// Accuracies over epsilon of several weights of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The run.
    pub name: String,
    /// Data set, network and threat model, for the caption.
    pub about: String,
    /// Radius trained with, pixel units.
    pub epsilon: f64,
    /// Factor from pixel units to `unit`.
    pub factor: f64,
    /// Unit of radii.
    pub unit: &'static str,
    /// The counts.
    pub data: EpsilonSweep,
}

/// Adversarial examples of a run.
#[derive(Clone, Debug)]
pub struct ExampleSet {
    /// The run.
    pub name: String,
    /// Data set, network and threat model, for the caption.
    pub about: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Seed of the random starts.
    pub seed: u64,
    /// The examples.
    pub examples: Vec<Example>,
}

impl<'a> Opened<'a> {
    /// Opens a run's network and data set.
    ///
    /// # Errors
    /// A run without weights, or whose data set is not here.
    pub fn open(run: &'a Run, options: &ComputeOptions) -> Result<Self> {
        if options.limit == 0 || options.batch == 0 {
            return Err(Error::input("--limit 0: expected at least 1"));
        }
        let device = device::device(&options.device)?;
        device::set_threads(options.threads)?;
        let subject = Subject::load(&run.path, &device)?;
        let (dir, config) = RunDir::open(&run.path)?;
        let mut config = config.settings;
        if options.data_dir.is_some() {
            config.data_dir.clone_from(&options.data_dir);
        }
        let dataset = run::open_dataset(&config)?;
        let shape = subject.model.config.shape;
        if dataset.test.shape() != [shape.channels, shape.height, shape.width]
            || dataset.test.num_classes() != shape.classes
        {
            return Err(Error::input(format!(
                "{}: its data set {} has images of another shape or number of classes than the network takes",
                run.path.display(),
                dataset_name(&config.dataset)
            )));
        }
        Ok(Self { run, subject, dir, config, dataset, options: options.clone() })
    }

    fn about(&self) -> String {
        setting(std::slice::from_ref(self.run)).trim_end_matches('.').to_owned()
    }

    /// The weights that `choice` names, called by the epochs they were trained for; at most
    /// `count`, evenly spaced.
    fn weights(&self, choice: &Choice, count: usize) -> Result<Vec<Weights>> {
        let per_epoch = self.run.steps_per_epoch();
        let mut all = weights(&self.dir, choice)?;
        // The final weights and the checkpoint after the last epoch are the same ones.
        if all.len() > 1 && all.iter().any(|w| w.position.is_none()) {
            all.retain(|w| w.position.is_none_or(|(epoch, _)| epoch < self.config.epochs));
        }
        for weights in &mut all {
            let epochs = match weights.position {
                None if self.run.finished => self.config.epochs as f64,
                None => continue,
                Some((epoch, 0)) => epoch as f64,
                Some((_, step)) => step as f64 / per_epoch,
            };
            let text = format!("{epochs:.2}");
            weights.name = format!("epoch {}", text.trim_end_matches('0').trim_end_matches('.'));
        }
        Ok(evenly(&all, count))
    }

    /// Landscapes around image `config.index` for the weights that `choice` names, at most `count`.
    ///
    /// # Errors
    /// Wrong settings, an image that is not there, weights that are damaged.
    pub fn landscapes(
        &mut self,
        config: LandscapeConfig,
        choice: &Choice,
        count: usize,
    ) -> Result<Landscapes> {
        config.check()?;
        let wanted = self.weights(choice, count)?;
        let file = self.run.path.join("plots").join(format!("landscape-{}.json", config.index));
        let known: Option<Landscapes> =
            cached(&file).filter(|found: &Landscapes| found.config == config);
        let mut known = known.map(|found| found.rows).unwrap_or_default();
        let before = known.clone();
        let mut rows = Vec::new();
        for weights in &wanted {
            match known.iter().position(|row| row.weights == weights.name) {
                Some(i) => rows.push(known.swap_remove(i)),
                None => {
                    tracing::info!(
                        "{}: loss around image {} at {}",
                        self.run.name,
                        config.index,
                        weights.name
                    );
                    load(&mut self.subject.model, weights)?;
                    let threat = self.config.threat();
                    rows.push(landscape(
                        &self.subject.model,
                        &self.dataset.test,
                        threat,
                        &config,
                        &weights.name,
                    )?);
                }
            }
        }
        let label = rows.first().map_or(0, |row| row.label);
        let found = Landscapes {
            name: self.run.name.clone(),
            about: self.about(),
            norm: self.config.norm.to_string(),
            epsilon: self.config.epsilon.to_string(),
            class: self.classes().get(label).cloned().unwrap_or_else(|| label.to_string()),
            config,
            rows,
        };
        if found.rows.iter().any(|row| !before.contains(row)) {
            keep(
                &file,
                &Landscapes {
                    rows: found.rows.iter().cloned().chain(known).collect(),
                    ..found.clone()
                },
            );
        }
        Ok(found)
    }

    /// Accuracies over epsilon for the weights that `choice` names, at most `count`.
    ///
    /// # Errors
    /// Weights that are damaged, a device that fails.
    pub fn sweep(&mut self, choice: &Choice, count: usize) -> Result<Sweep> {
        let wanted = self.weights(choice, count)?;
        let split = self.dataset.test.take(self.options.limit);
        let epsilon = self.config.threat().epsilon;
        let data = EpsilonSweep {
            n: split.len() as u64,
            seed: self.options.seed,
            epsilons: (0..=16u8).map(|i| epsilon * f32::from(i) / 8.0).collect(),
            multi_epsilons: [0.0, 0.5, 1.0, 1.5, 2.0].map(|f| f * epsilon).to_vec(),
            rows: Vec::new(),
        };
        let file = self.run.path.join("plots").join("epsilon.json");
        let known: Option<EpsilonSweep> = cached(&file).filter(|found: &EpsilonSweep| {
            (found.n, found.seed, &found.epsilons, &found.multi_epsilons)
                == (data.n, data.seed, &data.epsilons, &data.multi_epsilons)
        });
        let mut known: Vec<EpsilonRow> = known.map(|found| found.rows).unwrap_or_default();
        let mut rows = Vec::new();
        for weights in &wanted {
            match known.iter().position(|row| row.weights == weights.name) {
                Some(i) => rows.push(known.swap_remove(i)),
                None => {
                    tracing::info!(
                        "{}: accuracy over epsilon at {} on {} images",
                        self.run.name,
                        weights.name,
                        data.n
                    );
                    load(&mut self.subject.model, weights)?;
                    let threat = self.config.threat();
                    rows.push(epsilon_row(
                        &self.subject.model,
                        &split,
                        threat,
                        &data,
                        &weights.name,
                        self.options.batch,
                    )?);
                    // After each: an interruption loses one row.
                    keep(
                        &file,
                        &EpsilonSweep {
                            rows: rows.iter().chain(&known).cloned().collect(),
                            ..data.clone()
                        },
                    );
                }
            }
        }
        let (factor, unit) = self.run.unit();
        Ok(Sweep {
            name: self.run.name.clone(),
            about: self.about(),
            epsilon: f64::from(epsilon),
            factor,
            unit,
            data: EpsilonSweep { rows, ..data },
        })
    }

    /// Adversarial examples for the first `count` test images, with the newest weights.
    ///
    /// # Errors
    /// A device that fails.
    pub fn examples(&mut self, first: usize, count: usize) -> Result<ExampleSet> {
        if let Some(newest) = self.weights(&Choice::Newest, 1)?.first() {
            load(&mut self.subject.model, newest)?;
        }
        if first >= self.dataset.test.len() {
            return Err(Error::input(format!(
                "--index {first}: the test split has {} images, counted from 0",
                self.dataset.test.len()
            )));
        }
        let indices: Vec<usize> =
            (first..self.dataset.test.len()).take(count.clamp(1, 64)).collect();
        let examples = examples(
            &self.subject.model,
            &self.dataset.test,
            self.config.threat(),
            &indices,
            self.options.seed,
        )?;
        Ok(ExampleSet {
            name: self.run.name.clone(),
            about: self.about(),
            classes: self.classes(),
            seed: self.options.seed,
            examples,
        })
    }

    fn classes(&self) -> Vec<String> {
        self.dataset.info.classes.clone()
    }
}

/// What was computed earlier; `None` if it is not there or cannot be read: it is then computed
/// again.
fn cached<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Keeps what was computed; a run folder that cannot be written only costs the time to compute it
/// again.
fn keep(file: &Path, value: &impl Serialize) {
    let write = || -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        let json = serde_json::to_vec(value)
            .map_err(|e| Error::work(format!("cannot serialise {}: {e}", file.display())))?;
        files::write_atomic(file, &json)
    };
    if let Err(e) = write() {
        tracing::warn!("{e}; it will be computed again next time");
    }
}
