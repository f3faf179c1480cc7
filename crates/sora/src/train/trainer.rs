//! Sets up a training: the method, the data and the folder.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use toml::{Table, Value};

use super::{
    Alone, Communicator, Observer, OtherWorld, Ranks, Trained,
    start::{GoingOn, Rest},
};
use crate::{
    config::TrainConfig,
    data::Dataset,
    error::{Error, Result},
    method::Hyperparameters,
    run::{RunConfig, RunDir, with_initial_network},
};

/// The training method for [`Trainer::new`]: the name of a method with its defaults, or its
/// hyperparameters, such as [`Sora`](crate::method::Sora).
#[derive(Clone, Debug)]
pub struct Chosen {
    name: String,
    /// Hyperparameters that differ from the defaults, or the reason why they cannot be listed.
    options: std::result::Result<Table, String>,
}

impl From<&str> for Chosen {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<String> for Chosen {
    fn from(name: String) -> Self {
        Self { name, options: Ok(Table::new()) }
    }
}

impl<T: Hyperparameters> From<T> for Chosen {
    fn from(hyperparameters: T) -> Self {
        let options = Table::try_from(&hyperparameters).map_err(|e| e.to_string());
        Self { name: T::info().name.into(), options }
    }
}

/// The source of the settings.
#[derive(Clone, Debug)]
enum Settings {
    /// Settings given one by one; the others have their defaults.
    Given(Table),
    /// Hyperparameters that cannot be listed, and the reason.
    Unlisted(String),
    /// A complete configuration.
    Settled(Box<TrainConfig>),
    /// The settings of a run that continues, and its new number of epochs.
    Run { dir: RunDir, config: Box<RunConfig>, epochs: Option<u64> },
}

/// Sets up a training and runs it.
///
/// ```no_run
/// use sora::{method::Sora, prelude::*};
///
/// let data = sora::data::open("cifar10", &Default::default())?;
/// let sora = Sora { alpha_0: 0.04, ..Default::default() };
/// let run = Trainer::new(sora).epochs(30).in_dir("runs/sora").fit(&data)?;
/// println!("{:?}", run.summary.last_epoch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same settings on the same machine give the same bits, whether or not the run was
/// interrupted.
pub struct Trainer<'a> {
    settings: Settings,
    dir: Option<PathBuf>,
    observers: Vec<Box<dyn Observer + 'a>>,
    communicator: Arc<dyn Communicator>,
    other_world: OtherWorld,
    interrupt: &'a AtomicBool,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("settings", &self.settings)
            .field("dir", &self.dir)
            .field("observers", &self.observers.len())
            .finish_non_exhaustive()
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Trainer<'a> {
    /// Trains with `method`, in memory unless [`in_dir`](Self::in_dir) names a folder.
    pub fn new(method: impl Into<Chosen>) -> Self {
        let Chosen { name, options } = method.into();
        Self::with(match options {
            Ok(options) => Settings::Given(Table::from_iter([
                ("method".to_owned(), name.into()),
                ("options".to_owned(), options.into()),
            ])),
            Err(problem) => Settings::Unlisted(format!("the options of {name}: {problem}")),
        })
    }

    /// Trains with a complete configuration.
    pub fn from_config(config: TrainConfig) -> Self {
        Self::with(Settings::Settled(Box::new(config)))
    }

    /// Continues the run in the folder `path`, to the same bits as if it had never stopped. With
    /// `epochs` the run is extended, and the learning rate follows the schedule of the longer run
    /// from here on.
    ///
    /// # Errors
    /// [`Error`] if the folder holds no run, or settings that this version does not accept.
    pub fn resume(path: &Path, epochs: Option<u64>) -> Result<Self> {
        let (dir, config) = RunDir::open(path)?;
        config.settings.check().map_err(|e| e.in_file(&dir.config()))?;
        Ok(Self::with(Settings::Run { dir, config: Box::new(config), epochs }))
    }

    fn with(settings: Settings) -> Self {
        Self {
            settings,
            dir: None,
            observers: Vec::new(),
            communicator: Arc::new(Alone),
            other_world: OtherWorld::Refuse,
            interrupt: &NEVER,
        }
    }

    /// Writes a run folder with logs, checkpoints and weights. The folder must be empty or not
    /// exist yet.
    pub fn in_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.dir = Some(path.into());
        self
    }

    /// Adds an observer.
    pub fn observe(mut self, observer: impl Observer + 'a) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Stops after the step in which `flag` is set, and writes a checkpoint if there is a folder.
    pub fn interrupt(mut self, flag: &'a AtomicBool) -> Self {
        self.interrupt = flag;
        self
    }

    /// Trains together with other processes, which must be given the same settings and data. Each
    /// computes a part of every batch; the first of them writes the folder, which all must see when
    /// the run goes on or goes back to a checkpoint.
    pub fn communicator(mut self, communicator: Arc<dyn Communicator>) -> Self {
        self.communicator = communicator;
        self
    }

    /// Whether a run may go on with another number of processes than it had.
    pub fn other_world(mut self, other_world: OtherWorld) -> Self {
        self.other_world = other_world;
        self
    }

    /// Sets any setting of [`SETTINGS`](crate::config::SETTINGS) by its name; `fit` refuses unknown
    /// names. The settings of a run that continues stay unchanged.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        match &mut self.settings {
            Settings::Given(given) => drop(given.insert(name.into(), value.into())),
            Settings::Settled(config) => {
                if let Ok(mut table) = Table::try_from(&**config) {
                    table.insert(name.into(), value.into());
                    self.settings = Settings::Given(table);
                }
            }
            Settings::Unlisted(_) | Settings::Run { .. } => {}
        }
        self
    }

    /// Number of passes over the training images.
    pub fn epochs(self, epochs: u32) -> Self {
        self.set("epochs", i64::from(epochs))
    }

    /// Number of images of a step.
    pub fn batch(self, images: u32) -> Self {
        self.set("batch", i64::from(images))
    }

    /// Radius of the perturbations in pixel units, as text: `8/255`.
    pub fn epsilon(self, radius: &str) -> Self {
        self.set("epsilon", radius)
    }

    /// Network, and the number of channels of its first stage.
    pub fn model(self, name: &str, width: u32) -> Self {
        self.set("model", name).set("width", i64::from(width))
    }

    /// Seed of all random draws.
    pub fn seed(self, seed: u32) -> Self {
        self.set("seed", i64::from(seed))
    }

    /// The settings, as far as they are known before the data.
    ///
    /// # Errors
    /// [`Error`] for an unknown setting or a wrong value.
    pub fn config(&self) -> Result<TrainConfig> {
        match &self.settings {
            Settings::Given(given) => {
                let config = TrainConfig::from_table(with_initial_network(given.clone())?)?;
                config.check_ignored()?;
                Ok(config)
            }
            Settings::Unlisted(problem) => Err(Error::defect(problem)),
            Settings::Settled(config) => Ok((**config).clone()),
            Settings::Run { config, .. } => Ok(config.settings.clone()),
        }
    }

    /// Trains on `data` to the last epoch.
    ///
    /// # Errors
    /// [`Error`] for wrong settings, before anything is written; [`Error::Interrupted`] after the
    /// flag was set and a checkpoint written; [`Error::InUse`] for a folder in which another
    /// process trains; [`Error::Diverged`]; and [`Error`] for a disk or device that fails.
    pub fn fit(self, data: &Dataset) -> Result<Trained> {
        match self.settings {
            Settings::Run { dir, config, epochs } => {
                let norm = config.settings.batch_norm;
                let rest = Rest {
                    observers: self.observers,
                    ranks: Ranks::of_training(self.communicator, norm)?,
                    interrupt: self.interrupt,
                };
                rest.go_on(dir, *config, GoingOn { epochs, other_world: self.other_world }, data)
            }
            _ => {
                let mut config = self.config()?;
                if let Settings::Given(given) = &self.settings
                    && !given.contains_key("dataset")
                {
                    config.dataset.clone_from(&data.info.name);
                }
                let rest = Rest {
                    observers: self.observers,
                    ranks: Ranks::of_training(self.communicator, config.batch_norm)?,
                    interrupt: self.interrupt,
                };
                rest.begin(config, self.dir, data)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Sora, StepFactor};

    #[test]
    fn a_struct_of_hyperparameters_is_the_same_as_their_names() {
        let sora = Sora { alpha_0: 0.125, r: StepFactor::One, ..Sora::default() };
        let config = Trainer::new(sora).config().unwrap();
        let named = Table::from_iter([
            ("alpha_0".to_owned(), Value::from(0.125)),
            ("r".to_owned(), Value::from("one")),
        ]);
        let expected = Trainer::new("sora").set("options", named).config().unwrap();
        assert_eq!((config.method, config.options), (expected.method, expected.options));
        assert!(Trainer::new(Sora { alpha_0: -1.0, ..Sora::default() }).config().is_err());
    }
}
