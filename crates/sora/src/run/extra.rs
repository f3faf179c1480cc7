//! The extra training images of a run.

use std::sync::Arc;

use crate::{
    config::TrainConfig,
    data::{self, Channels, Dataset, Extra, Split},
    error::{Error, Result},
};

/// Share of extra images in a batch where `extra_fraction` is not given.
pub const EXTRA_FRACTION: f64 = 0.5;

/// Opens the extra training images of `config`, in the classes of `dataset`, and settles their
/// share. Images that are also in `val` or among the test images are left out, and a line says so.
///
/// # Errors
/// [`Error`] for a set that cannot be opened, has images of another shape or a class that `dataset`
/// lacks, or is too small for its share of a batch.
pub(super) fn open(
    config: &mut TrainConfig,
    dataset: &Dataset,
    val: &Split,
) -> Result<Option<Extra>> {
    let Some(spec) = &config.extra_data else { return Ok(None) };
    let fraction = *config.extra_fraction.get_or_insert(EXTRA_FRACTION);
    let options = data::OpenOptions {
        data_dir: config.data_dir.clone(),
        image_size: config.image_size,
        channels: if dataset.train.shape()[0] == 1 { Channels::Grey } else { Channels::Rgb },
        orientation: config.orientation,
        seed: config.seed,
        needs_test: false,
        limit_test: Some(1),
        ..Default::default()
    };
    let refuse = |problem: String| Error::setting("extra_data", spec, problem);
    let opened = data::open(spec, &options)?;
    let all = Arc::unwrap_or_clone(opened.train);
    let (shape, own) = (all.shape(), dataset.train.shape());
    if shape != own {
        let size = |[c, h, w]: [usize; 3]| format!("{c}x{h}x{w}");
        let problem = format!(
            "its images are {}, those of {} {}; choose an `image_size` that both can have",
            size(shape),
            dataset.info.name,
            size(own)
        );
        return Err(refuse(problem));
    }
    let all = in_classes(all, dataset, refuse)?;
    let count = all.len();
    let split = all.without(&[val, &dataset.test])?;
    if split.len() < count {
        tracing::warn!(
            "extra data {}: {} of {count} images are also among the validation or test images and \
             stay out",
            data::without_place(spec),
            count - split.len(),
        );
    }
    let extra = Extra { split: Arc::new(split), fraction };
    let share = extra
        .in_batch(config.batch)
        .map_err(|e| Error::setting("extra_fraction", fraction, e.to_string()))?;
    if extra.split.len() < share {
        let problem = format!(
            "it has {} images to train on, and each batch takes {share} of them; choose a smaller \
             `extra_fraction`",
            extra.split.len()
        );
        return Err(refuse(problem));
    }
    Ok(Some(extra))
}

/// `all` with the labels of `dataset`: classes are found by their names, where both sets have some.
/// Numbers, as shards have, are no names unless both sets have numbers.
fn in_classes(all: Split, dataset: &Dataset, refuse: impl Fn(String) -> Error) -> Result<Split> {
    let own = &dataset.train;
    let both = !all.class_names().is_empty() && !own.class_names().is_empty();
    if both && are_numbers(&all) == are_numbers(own) {
        return all.in_classes(own.class_names()).map_err(|e| {
            refuse(format!("{e}, the classes of {}; rename or leave it out", dataset.info.name))
        });
    }
    if all.num_classes() != own.num_classes() {
        return Err(refuse(format!(
            "it has {} classes, {} has {}",
            all.num_classes(),
            dataset.info.name,
            own.num_classes()
        )));
    }
    tracing::warn!(
        "the classes have no names in one of the sets: the labels of the extra images count as they \
         are"
    );
    Ok(all.with_class_names(own.class_names().to_vec())?)
}

fn are_numbers(split: &Split) -> bool {
    split.class_names().iter().all(|name| name.parse::<u32>().is_ok())
}
