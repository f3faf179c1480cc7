//! The facts that a data set decides for a training, and the check of the machine's memory.

use std::sync::Arc;

use super::{InitialWeights, RunConfig, extra};
use crate::{
    config::TrainConfig,
    data::{self, Dataset, Extra, Split, SplitIdentity},
    device,
    error::{Error, Result},
    method::{self, DataInfo},
    model::{self, ModelConfig, Shape},
};

/// A data set that is split for a training, and the facts that follow from it.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    /// Training images, without the held-out ones.
    pub train: Arc<Split>,
    /// Held-out images; empty where `val` is 0.
    pub val: Split,
    /// Extra training images that are mixed into the batches.
    pub extra: Option<Extra>,
    /// The network.
    pub network: ModelConfig,
    /// Names of the classes; empty where the set has no names.
    pub classes: Vec<String>,
    /// Number of steps of an epoch.
    pub steps_per_epoch: u64,
}

/// Opens the data set of `config`.
///
/// # Errors
/// [`Error`] for a set that is missing, unknown or damaged.
pub fn open_dataset(config: &TrainConfig) -> Result<Dataset> {
    let options = data::OpenOptions {
        data_dir: config.data_dir.clone(),
        image_size: config.image_size,
        orientation: config.orientation,
        seed: config.seed,
        limit_train: config.limit_train,
        limit_test: config.limit_test,
        ..Default::default()
    };
    Ok(data::open(&config.dataset, &options)?)
}

impl TrainPlan {
    /// Number of steps of the whole training.
    pub fn steps(&self, config: &TrainConfig) -> u64 {
        self.steps_per_epoch * config.epochs
    }

    /// Decides the settings that depend on the data set (network shape, normalisation,
    /// augmentation, validation size) and splits the set.
    ///
    /// # Errors
    /// [`Error`] for a validation split that leaves no training image, or a network that does not
    /// fit the images.
    pub fn new(config: &mut TrainConfig, dataset: &Dataset) -> Result<Self> {
        Self::begin(config, dataset, None)
    }

    /// As [`new`](Self::new), for a training that begins with the weights `initial`: these decide
    /// the normalisation, and those of an ONNX file the network.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn begin(
        config: &mut TrainConfig,
        dataset: &Dataset,
        initial: Option<&InitialWeights>,
    ) -> Result<Self> {
        let [channels, height, width] = dataset.train.shape();
        let shape = Shape { channels, height, width, classes: dataset.train.num_classes() };
        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let imported = initial.map(|initial| initial.imported(shape)).transpose()?.flatten();
        if let Some(network) = imported {
            return Self::with_network(config, dataset, network);
        }
        let mut network = ModelConfig {
            name: config.model.clone(),
            width: config.width,
            shape,
            options: model::network(&config.model)?.resolve(config.network_options(), shape)?,
            mean: f32s(&dataset.info.mean),
            std: f32s(&dataset.info.std),
            onnx: None,
        };
        if let Some(initial) = initial {
            initial.normalise(&mut network);
        }
        Self::with_network(config, dataset, network)
    }

    /// The plan of a run that continues, whose network is given.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error`] for images of another shape or other classes than
    /// at the begin of the run.
    pub fn again(config: &mut RunConfig, dataset: &Dataset) -> Result<Self> {
        let [channels, height, width] = dataset.train.shape();
        let found = Shape { channels, height, width, classes: dataset.train.num_classes() };
        let known = config.network.shape;
        if found != known {
            let problem = format!(
                "the images are {channels}x{height}x{width} in {} classes, and the run began with \
                 {}x{}x{} in {}; it can go on only with the data that it began with",
                found.classes, known.channels, known.height, known.width, known.classes
            );
            return Err(Error::unfit(format!("data set {}", dataset.info.name), problem));
        }
        let plan = Self::with_network(&mut config.settings, dataset, config.network.clone())?;
        let now = plan.extra_identity()?;
        match now.zip(config.extra.as_ref()).and_then(|(now, before)| now.difference(before)) {
            None => Ok(plan),
            Some(difference) => Err(Error::setting(
                "extra_data",
                config.settings.extra_data.as_deref().unwrap_or_default(),
                format!("its images are not those that the run began with: {difference}"),
            )),
        }
    }

    /// Identity of the extra training images.
    ///
    /// # Errors
    /// [`Error`] for images that cannot be read.
    pub fn extra_identity(&self) -> Result<Option<SplitIdentity>> {
        Ok(self.extra.as_ref().map(|extra| extra.split.identity()).transpose()?)
    }

    fn with_network(
        config: &mut TrainConfig,
        dataset: &Dataset,
        network: ModelConfig,
    ) -> Result<Self> {
        let total = dataset.train.len();
        let val = *config.val.get_or_insert_with(|| 1000.min(total / 10));
        if val >= total {
            let problem = format!(
                "the training split has {total} images; expected fewer, so that some are left to train on"
            );
            return Err(Error::setting("val", val, problem));
        }
        config.augment.get_or_insert(dataset.info.augment);
        let (train, val) = if val == 0 {
            (dataset.train.clone(), dataset.train.take(0))
        } else {
            let (train, val) = dataset.train.hold_out(val, config.seed)?;
            (Arc::new(train), val)
        };
        let extra = extra::open(config, dataset, &val)?;
        let more = extra.as_ref().map_or(Ok(0), |extra| extra.in_batch(config.batch))?;
        if config.drop_last && train.len() < config.batch - more {
            let problem = format!(
                "only {} training images are left after validation; choose a smaller batch",
                train.len()
            );
            return Err(Error::setting("batch", config.batch, problem));
        }
        let images = train.len() + extra.as_ref().map_or(0, |extra| extra.split.len());
        let info = DataInfo { images, shape: train.shape(), augment: config.augment() };
        let method = method::method(&config.method)?.build(&config.options, config.threat())?;
        memory_fits(&config.method, method.memory(&info)?, &info, device::available_memory())?;
        let own = config.batch - more;
        let batches = if config.drop_last { train.len() / own } else { train.len().div_ceil(own) };
        let steps_per_epoch = batches as u64 * u64::from(method.updates_per_batch().max(1));
        updates_happen(config, steps_per_epoch)?;
        let classes = train.class_names().to_vec();
        Ok(Self { train, val, extra, network, classes, steps_per_epoch })
    }
}

/// Refuses a run that would never update the weights.
fn updates_happen(config: &TrainConfig, steps_per_epoch: u64) -> Result<()> {
    let total = steps_per_epoch * config.epochs;
    if u64::from(config.accumulate) <= total {
        return Ok(());
    }
    let problem = format!(
        "the whole run has {total} steps, so that no update would be made; expected at most {total}"
    );
    Err(Error::setting("accumulate", config.accumulate, problem))
}

/// Reports the memory that a method keeps for the training images, and refuses the method if the
/// machine has too little.
fn memory_fits(method: &str, bytes: u64, data: &DataInfo, available: Option<u64>) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let subject = format!(
        "method {method} keeps a perturbation for each of the {} training images, which while it \
         writes a checkpoint",
        data.images
    );
    match available {
        Some(free) if 2 * bytes > free => Err(Error::Memory {
            subject,
            needed: 2 * bytes,
            free,
            advice: "use fewer images with `limit_train`, or another method".into(),
        }),
        _ => {
            tracing::info!(
                "method {method} keeps {} MiB for the {} training images, twice that while it \
                 writes a checkpoint",
                bytes.div_ceil(1 << 20),
                data.images
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Augment;

    #[test]
    fn a_method_that_needs_more_memory_than_is_free_is_refused() {
        let data = DataInfo { images: 50_000, shape: [3, 32, 32], augment: Augment::NONE };
        let bytes = 50_000 * 3072 * 4;
        assert!(memory_fits("atas", bytes, &data, Some(2 * bytes)).is_ok());
        assert!(memory_fits("atas", bytes, &data, None).is_ok());
        assert!(memory_fits("sora", 0, &data, Some(0)).is_ok());
        let error = memory_fits("atas", bytes, &data, Some(1 << 30)).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }));
        let text = error.to_string();
        assert!(
            text.contains("1172 MiB")
                && text.contains("1024 MiB are free")
                && text.contains("`limit_train`"),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_any_update_is_refused() {
        let config = |accumulate| TrainConfig { accumulate, epochs: 2, ..TrainConfig::default() };
        assert!(updates_happen(&config(4), 2).is_ok());
        let text = updates_happen(&config(5), 2).unwrap_err().to_string();
        assert!(text.starts_with("accumulate 5: the whole run has 4 steps"), "{text}");
    }
}
