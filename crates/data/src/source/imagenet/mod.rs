//! ImageNet, ImageNet-100 and folders of the user's own in the same form: class folders
//! (`train/CLASS/*`, `val/CLASS/*`), Hugging Face Parquet shards, or WebDataset shards. Images of any size are decoded
//! on demand, so that memory does not grow with the set.
//!
//! A training augmentation that crops and resizes works on the whole picture. Otherwise (and for
//! testing) the shorter side is resized to 256/224 of the image size, and the centre is cropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::encoded::OnDisk;
use super::parquet;
use super::parts::Parts;
use super::tree::{Item, Tree, image_files};
use super::web_dataset::Samples;
use crate::error::{DataError, Result};
use crate::info::Info;
use crate::options::OpenOptions;
use crate::picture::{Fit, Pictures};
use crate::split::Split;
use crate::text::{shown, shown_all};

/// Names of the folder or the shards that serve as test split, because the official test split has
/// no labels.
pub(crate) const TEST: [&str; 3] = ["val", "validation", "test"];
/// Endings of shards.
const PARQUET: &str = "parquet";
const TAR: &str = "tar";
/// Most classes of a set; ImageNet-21k has 21,841. A label asks for as many names and outputs.
const MAX_CLASSES: usize = 1 << 16;

/// Opens a registered set in its folder of the data folder.
pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let folders = info.folders(data_dir);
    match folders.iter().find(|folder| is_layout(folder)) {
        Some(root) => at(info, root, options),
        None => Err(DataError::Missing {
            name: info.name.clone(),
            file: "train/CLASS/*.JPEG (or train-*.parquet)".into(),
            looked: shown_all(&folders),
            get: info.get(),
        }),
    }
}

/// Opens the user's own set at `root`.
pub(crate) fn open_path(info: &mut Info, root: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    at(info, root, options)
}

fn is_layout(root: &Path) -> bool {
    let has = |kind: &str| !shards(root, &["train"], kind).is_empty();
    root.join("train").is_dir() || has(PARQUET) || has(TAR)
}

fn at(info: &mut Info, root: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    if !root.join("train").is_dir() {
        for kind in [PARQUET, TAR] {
            let train = shards(root, &["train"], kind);
            if train.is_empty() {
                continue;
            }
            let test = shards(root, &TEST, kind);
            if test.is_empty() && options.needs_test {
                return Err(DataError::bad(
                    root,
                    format!("train-*.{kind} but no other shards"),
                    format!("validation-*.{kind}"),
                    "add the validation shards",
                ));
            }
            return match kind {
                PARQUET => parquet(info, root, options, [train, test]),
                _ => web_dataset(info, root, options, [train, test]),
            };
        }
    }
    class_folders(info, root, options)
}

/// Opens Hugging Face shards.
fn parquet(
    info: &mut Info,
    root: &Path,
    options: &OpenOptions<'_>,
    [train, test]: [Vec<PathBuf>; 2],
) -> Result<Parts> {
    let (train, mut labels) = parquet::Shards::open(train)?;
    let (test, mut test_labels) = parquet::Shards::open(test)?;
    let names = train.class_names().map(<[String]>::to_vec);
    let shift = numbered(info, root, [&mut labels, &mut test_labels], names.as_deref())?;
    train.check(&labels, info.num_classes)?;
    test.check(&test_labels, info.num_classes)?;
    match names {
        Some(names) => Layout::Names(names).name(info),
        None => info.classes = numbers(info.num_classes, shift),
    }
    let decoding = options.decoding();
    let split = |shards: parquet::Shards, labels: &[u32], limit| {
        some_of(labels, limit, info, options, |rows| Arc::new(shards.rows(rows, decoding)))
    };
    Ok(Parts {
        train: split(train, &labels, options.limit_train)?,
        test: split(test, &test_labels, options.limit_test)?,
    })
}

/// Opens WebDataset shards.
fn web_dataset(
    info: &mut Info,
    root: &Path,
    options: &OpenOptions<'_>,
    [train, test]: [Vec<PathBuf>; 2],
) -> Result<Parts> {
    let (train, mut labels) = Samples::open(train)?;
    let (test, mut test_labels) = Samples::open(test)?;
    let shift = numbered(info, root, [&mut labels, &mut test_labels], None)?;
    info.classes = numbers(info.num_classes, shift);
    let decoding = options.decoding();
    let split = |samples: Samples, labels: &[u32], limit| {
        some_of(labels, limit, info, options, |rows| Arc::new(samples.pictures(&rows, decoding)))
    };
    Ok(Parts {
        train: split(train, &labels, options.limit_train)?,
        test: split(test, &test_labels, options.limit_test)?,
    })
}

/// Checks the number of classes of shards with numbers for labels, and of their images. Returns the
/// number of the first class in the files, 0 or 1.
fn numbered(
    info: &mut Info,
    root: &Path,
    [train, test]: [&mut [u32]; 2],
    names: Option<&[String]>,
) -> Result<usize> {
    let end = train.iter().chain(test.iter()).max().map_or(0, |most| *most as usize + 1);
    // Labels below the number of names count from 0, though the first class may have no image.
    let may_shift = names.is_none_or(|names| end == names.len() + 1);
    let from_one = may_shift && count_from_zero(train, test);
    if from_one {
        tracing::warn!(
            "{}: labels from 1 on, with no image of label 0: label 1 is taken for the first class",
            shown(root)
        );
    }
    count(info, root, names.map_or(end - usize::from(from_one), <[String]>::len))?;
    split_sizes(info, root, [train.len(), test.len()]);
    Ok(usize::from(from_one))
}

/// Names of classes that have none but their numbers, of which `first` is the first.
fn numbers(classes: usize, first: usize) -> Vec<String> {
    (first..first + classes).map(|number| number.to_string()).collect()
}

/// A split of at most `limit` rows. Shards are often sorted by class, so these are spread evenly
/// over all.
fn some_of<P: Pictures + 'static>(
    labels: &[u32],
    limit: Option<usize>,
    info: &Info,
    options: &OpenOptions<'_>,
    pictures: impl FnOnce(Vec<u32>) -> Arc<P>,
) -> Result<Split> {
    let n = limit.map_or(labels.len(), |l| l.min(labels.len()));
    let (rows, labels): (Vec<_>, Vec<_>) =
        spread(labels.len(), n).map(|i| (i as u32, labels[i])).unzip();
    on_demand(pictures(rows), labels, info, options)
}

/// Subtracts 1 from all labels if the smallest training label is 1 and no label is smaller. Returns
/// whether it did.
pub(crate) fn count_from_zero(train: &mut [u32], test: &mut [u32]) -> bool {
    let from_one = train.iter().min() == Some(&1) && !test.contains(&0);
    if from_one {
        train.iter_mut().chain(test).for_each(|label| *label -= 1);
    }
    from_one
}

/// `n` of the numbers `0..total`, evenly spaced; all of them in order when `n` is `total`.
fn spread(total: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |k| (k as u128 * total as u128 / n.max(1) as u128) as usize)
}

/// Opens `root/train/CLASS/*` and `root/val/CLASS/*`.
pub(crate) fn class_folders(
    info: &mut Info,
    root: &Path,
    options: &OpenOptions<'_>,
) -> Result<Parts> {
    // ImageNet's validation images come in one flat folder, which does not tell their classes.
    for name in TEST {
        let folder = root.join(name);
        if folder.is_dir()
            && super::tree::sub_folders(&folder)?.is_empty()
            && !image_files(&folder, 0)?.is_empty()
        {
            return Err(DataError::bad(
                folder,
                "images outside class folders",
                format!("{name}/CLASS/*"),
                "move each to the folder of its class (for ImageNet with the usual valprep script)",
            ));
        }
    }
    let tree = Tree::read(root, &TEST, options.needs_test)?;
    count(info, root, tree.classes.len())?;
    split_sizes(info, root, [tree.train.len(), tree.test.len()]);
    Layout::Ids(tree.classes).name(info);
    let split = |items: Vec<Item>, limit: Option<usize>| {
        let n = limit.map_or(items.len(), |l| l.min(items.len()));
        let (paths, labels) = items.into_iter().take(n).map(|i| (i.path, i.label)).unzip();
        on_demand(Arc::new(OnDisk { paths, decoding: options.decoding() }), labels, info, options)
    };
    Ok(Parts {
        train: split(tree.train, options.limit_train)?,
        test: split(tree.test, options.limit_test)?,
    })
}

/// Checks the number of classes, or sets it where the registry has none.
fn count(info: &mut Info, root: &Path, classes: usize) -> Result<()> {
    if info.num_classes == 0 {
        info.num_classes = classes;
    }
    let fix = "see docs/datasets.md for the layout, or use imagefolder:PATH for a set of your own";
    if classes > MAX_CLASSES {
        return Err(DataError::bad(
            root,
            format!("{classes} classes, as the largest label is {}", classes - 1),
            format!("at most {MAX_CLASSES}"),
            "number the classes from 0 on",
        ));
    }
    if classes != info.num_classes || classes < 2 {
        return Err(DataError::bad(
            root,
            format!("{classes} classes"),
            format!("{} (2 at least)", info.num_classes.max(2)),
            fix,
        ));
    }
    Ok(())
}

/// Logs it when the set differs in size from the official one.
pub(crate) fn split_sizes(info: &Info, root: &Path, found: [usize; 2]) {
    if info.train > 0 && found != [info.train, info.test] {
        let [train, test] = found;
        tracing::warn!(
            "{}: {train} training and {test} validation images, the official set has {} and {}",
            shown(root),
            info.train,
            info.test
        );
    }
}

/// The source of the class names.
pub(crate) enum Layout {
    /// Folder names. The set keeps the registered names too, if there are any.
    Ids(Vec<String>),
    /// Names that the files contain.
    Names(Vec<String>),
}

impl Layout {
    pub(crate) fn name(self, info: &mut Info) {
        match self {
            Self::Ids(ids)
                if info.classes.len() == ids.len() && ids.iter().all(|id| is_wnid(id)) =>
            {
                info.classes = ids
                    .into_iter()
                    .zip(&info.classes)
                    .map(|(id, name)| format!("{id} {name}"))
                    .collect();
            }
            Self::Ids(names) | Self::Names(names) => info.classes = names,
        }
    }
}

/// A WordNet identifier, such as n01440764.
fn is_wnid(id: &str) -> bool {
    id.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A split of pictures of any size.
pub(crate) fn on_demand(
    pictures: Arc<dyn Pictures>,
    labels: Vec<u32>,
    info: &Info,
    options: &OpenOptions<'_>,
) -> Result<Split> {
    let size = options.image_size.unwrap_or(info.height);
    let channels = options.channels.count();
    // 256 pixels for an image size of 224, rounded.
    let side = (size * 256 + 112) / 224;
    Split::on_demand(
        pictures,
        Fit::ShortSide(side),
        labels,
        [channels, size, size],
        info.num_classes,
    )
}

/// The sorted shards `PREFIX-*.KIND` (or `PREFIX.KIND`) of the first prefix that has some, in `root`
/// or `root/data`.
fn shards(root: &Path, prefixes: &[&str], kind: &str) -> Vec<PathBuf> {
    for prefix in prefixes {
        for folder in [root.to_owned(), root.join("data")] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let is_shard = |path: &PathBuf| {
                let stem = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .and_then(|n| n.strip_suffix(kind)?.strip_suffix('.'));
                stem.and_then(|s| s.strip_prefix(prefix))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            };
            let mut found: Vec<PathBuf> =
                entries.filter_map(|e| Some(e.ok()?.path())).filter(is_shard).collect();
            if !found.is_empty() {
                found.sort();
                return found;
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests;
