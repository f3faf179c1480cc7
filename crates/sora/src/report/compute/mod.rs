//! Data of figures that a run's records do not hold. They are computed from the weights that the
//! run kept, on its test split, and stored in the run folder's `plots/`, so that each is computed
//! only once.

mod cache;
mod epsilon;
mod examples;
mod landscape;
mod passes;
mod weights;

use std::path::PathBuf;

use robustness::Samples;

pub use epsilon::{EpsilonRow, EpsilonSweep, Sweep, epsilon_row};
pub use examples::{Example, ExampleSet, examples};
pub use landscape::{Landscape, LandscapeConfig, Landscapes, Plane, landscape};
pub use passes::Images;
use weights::named;
pub use weights::{Choice, KeptWeights, evenly, load, weights};

use super::{caption::Setting, run::Run};
use crate::{
    config::TrainConfig,
    data::Dataset,
    device,
    error::{Error, Result},
    evaluate::{self, Identity},
    run::{self, RunConfig, RunDir, Subject},
};

/// Options of the computation.
#[derive(Clone, Debug)]
pub struct ComputeOptions {
    /// Device.
    pub device: String,
    /// Number of CPU threads; 0 for one per core.
    pub threads: usize,
    /// Folder of the data sets, if it is not the one that the run used.
    pub data_dir: Option<PathBuf>,
    /// Number of test images of an accuracy.
    pub limit: usize,
    /// Number of images at a time.
    pub batch: usize,
    /// Seed of random starts and directions.
    pub seed: u64,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        Self { device: "cpu".into(), threads: 0, data_dir: None, limit: 200, batch: 100, seed: 0 }
    }
}

impl ComputeOptions {
    /// Refuses options that make the computation impossible.
    ///
    /// # Errors
    /// [`Error`] for a count of 0.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("limit", self.limit), ("batch", self.batch)] {
            if value == 0 {
                return Err(Error::setting(name, value, "expected at least 1"));
            }
        }
        Ok(())
    }
}

/// A run with its network and its data set.
#[derive(Debug)]
pub struct Opened<'a> {
    run: &'a Run,
    subject: Subject,
    config: RunConfig,
    dataset: Dataset,
    options: ComputeOptions,
}

impl<'a> Opened<'a> {
    /// Opens a run's network and data set.
    ///
    /// # Errors
    /// [`Error`] for a run without weights, or whose data set is not on this machine.
    pub fn open(run: &'a Run, options: &ComputeOptions) -> Result<Self> {
        options.check()?;
        let device = device::device(&options.device)?;
        device::set_threads(options.threads)?;
        let subject = Subject::load(&run.path, &device)?;
        let (_, mut config) = RunDir::open(&run.path)?;
        if options.data_dir.is_some() {
            config.settings.data_dir.clone_from(&options.data_dir);
        }
        let dataset = run::open_dataset(&config.settings)?;
        let shape = subject.model.config.shape;
        if dataset.test.shape() != [shape.channels, shape.height, shape.width]
            || dataset.test.num_classes() != shape.classes
        {
            let problem = "its data set has images of another shape or number of classes than the \
                           network takes";
            return Err(Error::mismatch(&run.path, problem));
        }
        Ok(Self { run, subject, config, dataset, options: options.clone() })
    }

    fn settings(&self) -> &TrainConfig {
        &self.config.settings
    }

    /// A digest of what decides a figure beside its own settings: the weights that are loaded, the
    /// network, the images, the threat, the seed and the program. What was kept under another is
    /// computed again.
    fn identity(&self, images: &dyn Samples) -> Result<String> {
        let weights = evaluate::weights_identity(&self.subject.model, None, "")?;
        let data = images.identity(&self.settings().dataset, "test")?;
        let (threat, seed) = (self.settings().threat(), self.options.seed);
        Ok(Identity::new(evaluate::program(), weights, data, threat, seed).digest())
    }

    fn about(&self) -> Setting {
        Setting::of(self.run)
    }

    fn classes(&self) -> Vec<String> {
        self.dataset.info.classes.clone()
    }

    /// The weights that `choice` selects, named by the epochs of their training; at most `count`,
    /// evenly spaced.
    fn weights(&self, choice: &Choice, count: usize) -> Result<Vec<KeptWeights>> {
        let all = weights(&self.run.dir(), choice)?;
        let trained = self.run.epochs_trained().filter(|_| self.run.finished);
        Ok(evenly(&named(all, trained, self.run.steps_per_epoch()), count))
    }
}
