//! ImageNet, ImageNet-100 and sets of one's own in their form: class folders (`train/CLASS/*`,
//! `val/CLASS/*`) or Hugging Face Parquet shards. Images of any size are decoded on demand, so that
//! memory does not grow with the set.
//!
//! Where a training augmentation crops and resizes, it does so from the whole picture. Otherwise
//! (and for testing) the shorter side is resized to 256/224 of the image size and the centre is
//! cropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::encoded::OnDisk;
use super::tree::{Item, Tree, image_files};
use super::{Parts, parquet};
use crate::error::{DataError, Result, shown_all};
use crate::info::Info;
use crate::open::OpenOptions;
use crate::picture::{Fit, Pictures};
use crate::split::Split;

/// Names of the folder or the shards that serve as test split; the official test split has no
/// labels.
pub(crate) const TEST: [&str; 3] = ["val", "validation", "test"];

/// Opens a registered set in its folder of the data folder.
pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let folders = info.folders(data_dir);
    match folders.iter().find(|folder| is_layout(folder)) {
        Some(root) => at(info, root, options),
        None => Err(DataError::Missing {
            name: info.name.clone(),
            file: "train/CLASS/*.JPEG (or train-*.parquet)".into(),
            looked: shown_all(&folders),
            get: info.how_to_get(),
        }),
    }
}

/// Opens the set of one's own at `root`.
pub(crate) fn open_path(
    root: &Path,
    name: &str,
    options: &OpenOptions<'_>,
) -> Result<(Info, Parts)> {
    let template = crate::find("imagefolder")
        .ok_or_else(|| DataError::value("data set", name, "a registered kind"))?;
    let mut info = Info { name: name.to_owned(), title: name.to_owned(), ..template };
    let parts = at(&mut info, root, options)?;
    Ok((info, parts))
}

fn is_layout(root: &Path) -> bool {
    root.join("train").is_dir() || !shards(root, &["train"]).is_empty()
}

fn at(info: &mut Info, root: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let train = shards(root, &["train"]);
    if train.is_empty() || root.join("train").is_dir() {
        return class_folders(info, root, options);
    }
    let test = shards(root, &TEST);
    if test.is_empty() {
        return Err(DataError::bad(
            root,
            "train-*.parquet but no other shards",
            "validation-*.parquet",
            "add the validation shards",
        ));
    }
    let (train, labels) = parquet::Shards::open(train)?;
    let (test, test_labels) = parquet::Shards::open(test)?;
    let names = train.class_names().map(<[String]>::to_vec);
    let classes = names.as_ref().map_or_else(
        || labels.iter().chain(&test_labels).max().map_or(0, |m| *m as usize + 1),
        Vec::len,
    );
    count(info, root, classes)?;
    split_sizes(info, root, [labels.len(), test_labels.len()]);
    match names {
        Some(names) => Layout::Names(names).name(info),
        None => info.classes = (0..classes).map(|k| k.to_string()).collect(),
    }
    let split = |shards: parquet::Shards, labels: Vec<u32>, limit: Option<usize>| {
        let n = limit.map_or(labels.len(), |l| l.min(labels.len()));
        // Shards are often sorted by class: the first n are taken evenly from all.
        let (rows, labels): (Vec<_>, Vec<_>) =
            spread(labels.len(), n).map(|i| (i as u32, labels[i])).unzip();
        on_demand(Arc::new(shards.rows(rows)), labels, info, options)
    };
    Ok(Parts {
        train: split(train, labels, options.limit_train)?,
        test: split(test, test_labels, options.limit_test)?,
    })
}

/// `n` of `0..total`, evenly spaced; all in order when `n` is `total`.
fn spread(total: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |k| (k as u128 * total as u128 / n.max(1) as u128) as usize)
}

/// Opens `root/train/CLASS/*` and `root/val/CLASS/*`.
pub(crate) fn class_folders(
    info: &mut Info,
    root: &Path,
    options: &OpenOptions<'_>,
) -> Result<Parts> {
    // ImageNet's validation images come in one folder, which tells no class.
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
    let tree = Tree::read(root, &TEST)?;
    count(info, root, tree.classes.len())?;
    split_sizes(info, root, [tree.train.len(), tree.test.len()]);
    Layout::Ids(tree.classes).name(info);
    let split = |items: Vec<Item>, limit: Option<usize>| {
        let n = limit.map_or(items.len(), |l| l.min(items.len()));
        let (paths, labels) = items.into_iter().take(n).map(|i| (i.path, i.label)).unzip();
        on_demand(Arc::new(OnDisk { paths, channels: options.channels }), labels, info, options)
    };
    Ok(Parts {
        train: split(tree.train, options.limit_train)?,
        test: split(tree.test, options.limit_test)?,
    })
}

/// Checks or sets the number of classes.
fn count(info: &mut Info, root: &Path, classes: usize) -> Result<()> {
    if info.num_classes == 0 {
        info.num_classes = classes;
    }
    if classes != info.num_classes || classes < 2 {
        let fix =
            "see docs/datasets.md for the layout, or use imagefolder:PATH for a set of your own";
        return Err(DataError::bad(
            root,
            format!("{classes} classes"),
            format!("{} (2 at least)", info.num_classes.max(2)),
            fix,
        ));
    }
    Ok(())
}

/// Says so when the set has another size than the official one.
pub(crate) fn split_sizes(info: &Info, root: &Path, found: [usize; 2]) {
    if info.train > 0 && found != [info.train, info.test] {
        let [train, test] = found;
        tracing::warn!(
            "{}: {train} training and {test} validation images, the official set has {} and {}",
            root.display(),
            info.train,
            info.test
        );
    }
}

/// Where class names come from.
pub(crate) enum Layout {
    /// Folder names: kept beside the registered names, if there are any.
    Ids(Vec<String>),
    /// Names in the files.
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
    // 256 for 224.
    let side = (size * 256 + 112) / 224;
    Split::on_demand(
        pictures,
        Fit::ShortSide(side),
        labels,
        [channels, size, size],
        info.num_classes,
    )
}

/// The sorted shards `PREFIX-*.parquet` (or `PREFIX.parquet`) of the first prefix that has some, in
/// `root` or `root/data`.
fn shards(root: &Path, prefixes: &[&str]) -> Vec<PathBuf> {
    for prefix in prefixes {
        for folder in [root.to_owned(), root.join("data")] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let is_shard = |path: &PathBuf| {
                let stem = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .and_then(|n| n.strip_suffix(".parquet"));
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
mod tests {
    use super::*;
    use crate::{Augment, DataError, Loader, LoaderOptions, open};
    use image::{Rgb, RgbImage};
    use std::fs;

    /// Three classes with pictures of different sizes; the red value tells the picture.
    fn make(root: &Path, val: &str) {
        for (k, class) in ["n00000002", "n00000001", "n00000003"].iter().enumerate() {
            for (split, n) in [("train", 4), (val, 2)] {
                let folder = root.join(split).join(class);
                fs::create_dir_all(&folder).unwrap();
                for i in 0..n {
                    let value = (80 * k + 10 * i + usize::from(split == val) * 5) as u8;
                    let size = (30 + 7 * i as u32, 40 - 3 * k as u32);
                    RgbImage::from_pixel(size.0, size.1, Rgb([value, 9, 9]))
                        .save(folder.join(format!("{i}.png")))
                        .unwrap();
                }
            }
        }
    }

    fn sized() -> OpenOptions<'static> {
        OpenOptions { image_size: Some(16), ..Default::default() }
    }

    #[test]
    fn class_folders_are_read_on_demand() {
        for val in TEST {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path(), val);
            let data = open(&format!("imagefolder:{}", dir.path().display()), &sized()).unwrap();
            assert_eq!(
                (data.train.len(), data.test.len(), data.train.shape()),
                (12, 6, [3, 16, 16])
            );
            assert!(data.train.is_on_demand());
            assert_eq!(data.info.classes, ["n00000001", "n00000002", "n00000003"]);
            assert_eq!(
                (0..4)
                    .map(|i| (data.train.label(i), data.train.image(i).unwrap()[0]))
                    .collect::<Vec<_>>(),
                [(0, 80), (1, 0), (2, 160), (0, 90)]
            );
            assert_eq!(data.test.image(1).unwrap()[0], 5);
        }
    }

    #[test]
    fn registered_sets_look_in_their_folder_and_count_classes() {
        let dir = tempfile::tempdir().unwrap();
        let options = OpenOptions { data_dir: Some(dir.path().into()), ..sized() };
        let message = |name: &str| open(name, &options).unwrap_err().to_string();
        assert!(
            message("imagenet100")
                .contains("train/CLASS/*.JPEG (or train-*.parquet) is in none of")
        );
        make(&dir.path().join("imagenet100"), "val");
        assert!(message("imagenet100").contains("found 3 classes; expected 100"));
    }

    #[test]
    fn unsorted_validation_images_are_told() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "val");
        fs::remove_dir_all(dir.path().join("val")).unwrap();
        fs::create_dir(dir.path().join("val")).unwrap();
        fs::copy(dir.path().join("train/n00000001/0.png"), dir.path().join("val/0.png")).unwrap();
        let error = open(&format!("imagefolder:{}", dir.path().display()), &sized())
            .unwrap_err()
            .to_string();
        assert!(error.contains("val: found images outside class folders"), "{error}");
    }

    #[test]
    fn batches_do_not_depend_on_workers_and_a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "val");
        let name = format!("imagefolder:{}", dir.path().display());
        let data = open(&name, &sized()).unwrap();
        let augment: Augment = "resized-crop:0.2,flip".parse().unwrap();
        let batches = |workers, prefetch, start| -> Result<Vec<_>> {
            let options =
                LoaderOptions { workers, prefetch, ..LoaderOptions::train(5, 3, augment) };
            Loader::new(Arc::clone(&data.train), options)?.epoch(1, start).collect()
        };
        let want = batches(0, 0, 0).unwrap();
        assert_eq!(want.len(), 2);
        // The window is drawn in the picture, not in the image.
        assert!(
            want.iter()
                .flat_map(|b| &b.draws)
                .any(|d| d.window.is_some_and(|w| w.width > 16 || w.height > 16))
        );
        for (workers, prefetch) in [(1, 1), (3, 2), (0, 4)] {
            assert_eq!(batches(workers, prefetch, 0).unwrap(), want);
            assert_eq!(batches(workers, prefetch, 1).unwrap(), want[1..]);
        }
        for file in ["n00000001/1.png", "n00000002/3.png"] {
            fs::write(dir.path().join("train").join(file), b"broken").unwrap();
        }
        let errors: Vec<String> = [(0, 0), (3, 1), (2, 4)]
            .iter()
            .map(|&(w, p)| batches(w, p, 0).unwrap_err().to_string())
            .collect();
        assert!(errors[0].contains(".png: found no image format"), "{}", errors[0]);
        assert!(errors.iter().all(|e| *e == errors[0]), "{errors:?}");
        assert!(matches!(batches(2, 2, 0), Err(DataError::Bad { .. })));
    }
}
