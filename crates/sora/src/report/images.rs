//! The images that a run is trained and tested on. What they are tells two sets apart, not the last
//! name of their folder.

use std::path::PathBuf;

use super::{
    caption::thousands,
    measured::MeasuredOn,
    privacy::dataset_name,
    run::{Run, value_text},
};
use crate::data::{DatasetIdentity, SplitIdentity};

/// The setting of the data set.
const DATASET: &str = "dataset";
/// The setting of the extra training images.
const EXTRA: &str = "extra_data";
/// Digits of a digest that are shown.
const SHOWN: usize = 8;

impl Run {
    /// A setting as in the file; empty if it is absent.
    fn raw(&self, key: &str) -> String {
        self.config.get(key).map(value_text).unwrap_or_default()
    }

    /// The data set; the last name of the path for an image folder.
    pub fn dataset(&self) -> String {
        dataset_name(&self.raw(DATASET))
    }

    /// The data of the training in words: the data set, and the extra data where there are some.
    pub fn training_data(&self) -> String {
        match self.raw(EXTRA) {
            extra if extra.is_empty() => self.dataset(),
            extra => format!(
                "{} with extra data, {} of each batch from {}",
                self.dataset(),
                self.raw("extra_fraction"),
                dataset_name(&extra)
            ),
        }
    }

    /// Whether `dataset` is the run's own.
    pub fn is_own_dataset(&self, dataset: &str) -> bool {
        dataset.is_empty() || absolute_dataset(dataset) == absolute_dataset(&self.raw(DATASET))
    }

    /// Both splits when the run began; `None` in runs of older versions.
    fn data_identity(&self) -> Option<DatasetIdentity> {
        self.config.get("data")?.clone().try_into::<DatasetIdentity>().ok()
    }

    /// The test split when the run began; `None` in runs of older versions.
    pub fn test_identity(&self) -> Option<SplitIdentity> {
        self.data_identity().map(|data| data.test)
    }

    /// The extra training images when the run began, if there are some.
    fn extra_identity(&self) -> Option<SplitIdentity> {
        self.config.get("extra")?.clone().try_into::<SplitIdentity>().ok()
    }

    /// What the images of the run are, for readers: how many, and the begin of their digests;
    /// `None` in runs of older versions.
    pub(super) fn images(&self) -> Option<String> {
        let DatasetIdentity { train, test } = self.data_identity()?;
        let split = |name: &str, split: &SplitIdentity| {
            let digest: String = split.sha256.chars().take(SHOWN).collect();
            format!("{} {name} images ({digest})", thousands(split.images as u64))
        };
        let mut all = vec![split("training", &train), split("test", &test)];
        all.extend(self.extra_identity().map(|extra| split("extra", &extra)));
        Some(all.join(", "))
    }

    /// Equal for runs with the same training and test images, as far as the runs say what they are.
    pub(super) fn images_key(&self) -> [SetKey; 2] {
        let own =
            self.data_identity().map(|data| format!("{} {}", data.train.sha256, data.test.sha256));
        // A run that says what its images are says so of extra images, too, where it has some.
        let extra = own.is_some().then(|| self.extra_identity().map_or("".into(), |it| it.sha256));
        [set_key(&self.raw(DATASET), own), set_key(&self.raw(EXTRA), extra)]
    }

    /// Equal for runs whose accuracies are of the same images: those of the test split, or those of
    /// the training split, where a validation has its images from.
    pub(super) fn measured_key(&self, on: MeasuredOn) -> SetKey {
        let digest = self.data_identity().map(|data| match on {
            MeasuredOn::Test(_) => data.test.sha256,
            MeasuredOn::Validation(_) => data.train.sha256,
        });
        set_key(&self.raw(DATASET), digest)
    }
}

/// What tells images from others: their digest or, where a run of an older version lacks it, their
/// place.
#[derive(Clone, Debug)]
pub(super) struct SetKey {
    digest: Option<String>,
    place: PathBuf,
}

impl PartialEq for SetKey {
    fn eq(&self, other: &Self) -> bool {
        match (&self.digest, &other.digest) {
            (Some(own), Some(theirs)) => own == theirs,
            _ => self.place == other.place,
        }
    }
}

/// The key of the images of the data set `spec`.
fn set_key(spec: &str, digest: Option<String>) -> SetKey {
    // Images that are drawn from the seed differ with it, and with nothing else.
    let drawn = spec.split(':').next() == Some("synthetic");
    SetKey { digest: digest.filter(|_| !drawn), place: absolute_dataset(spec) }
}

/// The absolute path of a data set of files, or the name of another data set.
fn absolute_dataset(dataset: &str) -> PathBuf {
    let path = ["folder:", "imagefolder:"].iter().find_map(|scheme| dataset.strip_prefix(scheme));
    let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
    // "a/b/" and "a/b" name the same folder.
    path.unwrap_or_else(|| dataset.into()).components().collect()
}
