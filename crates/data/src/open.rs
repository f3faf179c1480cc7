//! From the name on the command line to the images.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{DataError, Result};
use crate::info::{Info, Reader};
use crate::paths::data_dir;
use crate::registry::{find, in_size, registry};
use crate::source::{
    Parts, cifar, folder, idx, imagenet, imagenette, mat, npz, synthetic, tiny_imagenet,
};
use crate::split::Dataset;

/// Options of [`open`].
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// Data folder; see [`data_dir`].
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images: for `folder:` (centre-crop to a square, then resize),
    /// `synthetic` (drawn at that size), the ImageNet family and `imagefolder:` (shorter side to
    /// 256/224 of it, then centre crop), and MedMNIST (28, 64, 128 or 224, each a file of its own).
    /// Other sets have the size they have.
    pub image_size: Option<usize>,
    /// Channels of the images, for `folder:` and `imagefolder:`.
    pub channels: Channels,
    /// Decides the images of `synthetic`.
    pub seed: u64,
    /// At most this many training images: the first ones. (`folder:` and `synthetic` list their
    /// classes in turn, so the first images hold all classes.)
    pub limit_train: Option<usize>,
    /// At most this many test images: the first ones.
    pub limit_test: Option<usize>,
    /// Keep and use the decoded images of `folder:` in the data folder.
    pub cache: bool,
    /// Pixels of sets that take more bytes than this are not kept in memory: `folder:` is decoded
    /// on demand, MedMNIST unpacked to the data folder and read from there. The same pixels either
    /// way.
    pub max_memory: u64,
    /// Called with (images done, images in all) while a folder is decoded, from several threads.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            data_dir: None,
            image_size: None,
            channels: Channels::Rgb,
            seed: 0,
            limit_train: None,
            limit_test: None,
            cache: true,
            max_memory: 1 << 30,
            progress: None,
        }
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("data_dir", &self.data_dir)
            .field("image_size", &self.image_size)
            .field("channels", &self.channels)
            .field("seed", &self.seed)
            .field("limit_train", &self.limit_train)
            .field("limit_test", &self.limit_test)
            .field("cache", &self.cache)
            .field("max_memory", &self.max_memory)
            .finish_non_exhaustive()
    }
}

/// What the images of a folder are converted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// One channel: luma.
    Grey,
    /// Three channels; grey images are repeated, transparency is dropped.
    #[default]
    Rgb,
}

impl Channels {
    /// 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

impl FromStr for Channels {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "grey" | "gray" | "1" => Ok(Self::Grey),
            "rgb" | "3" => Ok(Self::Rgb),
            _ => Err(DataError::value("channels", format!("'{text}'"), "grey or rgb")),
        }
    }
}

/// Largest `image_size`.
const MAX_SIZE: usize = 4096;

/// Opens the data set `spec`: a [registered](registry) name, `synthetic:N` (N training and N/5 test
/// images), `folder:PATH`, `imagefolder:PATH`, or the path of an existing folder (as `folder:`); a
/// registered name wins over a folder of that name.
///
/// The images of a folder lie in `PATH/train/CLASS/` and `PATH/test/CLASS/` as `.png`, `.jpg` or
/// `.jpeg` files; the sorted names of train's sub-folders are the classes. Those of an
/// `imagefolder:` may have any size, lie in `PATH/train/CLASS/` and `PATH/val/CLASS/` or in Parquet
/// shards, and are decoded on demand.
///
/// Mean and standard deviation are the published ones where the registry has them (CIFAR-10,
/// ImageNet's for its family), else those of the whole training split (as limited, for sets that
/// are decoded within the limits).
///
/// # Errors
/// [`DataError::Unknown`], [`DataError::Missing`] (with the command that gets the set),
/// [`DataError::Bad`] for a file that is not what it should be, [`DataError::Io`], and
/// [`DataError::Value`] for options out of range and for ChestMNIST, whose images have several
/// labels each.
pub fn open(spec: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    check(options)?;
    let (mut info, parts) = read(spec, options)?;
    if info.mean.is_empty() {
        (info.mean, info.std) = parts.train.channel_stats()?;
    }
    let cut = |split: crate::Split, limit: Option<usize>| match limit {
        Some(n) if n < split.len() => split.take(n),
        _ => split,
    };
    let train = cut(parts.train, options.limit_train);
    let test = cut(parts.test, options.limit_test);
    [info.channels, info.height, info.width] = train.shape();
    (info.train, info.test) = (train.len(), test.len());
    Ok(Dataset { info, train: train.into(), test: test.into() })
}

fn read(spec: &str, options: &OpenOptions<'_>) -> Result<(Info, Parts)> {
    if let Some(path) = spec.strip_prefix("folder:") {
        return folder::open(Path::new(path), spec, options);
    }
    if let Some(path) = spec.strip_prefix("imagefolder:") {
        return imagenet::open_path(Path::new(path), spec, options);
    }
    let (name, count) = match spec.split_once(':') {
        Some(("synthetic", count)) => ("synthetic", Some(count)),
        _ => (spec, None),
    };
    let Some(info) = find(name) else {
        return if Path::new(spec).is_dir() {
            folder::open(Path::new(spec), &format!("folder:{spec}"), options)
        } else {
            let known = registry().into_iter().map(|i| i.name).collect::<Vec<_>>().join(", ");
            Err(DataError::Unknown { name: crate::error::one_line(spec), known })
        };
    };
    let mut info = info;
    if let Some(size) = options.image_size.filter(|&size| size != info.height) {
        let any = matches!(
            info.reader,
            Reader::Synthetic
                | Reader::Folder
                | Reader::ImageNet
                | Reader::ImageFolder
                | Reader::Imagenette
        );
        match in_size(&info, size) {
            Some(other) => info = other,
            None if any => {}
            None => {
                let sizes = if in_size(&info, info.height).is_some() {
                    "28, 64, 128 or 224".into()
                } else {
                    info.height.to_string()
                };
                let expected = format!(
                    "none, or {sizes}, for {}: only folder:, imagefolder:, synthetic and the ImageNet family take any",
                    info.name
                );
                return Err(DataError::value("image size", size, expected));
            }
        }
    }
    let dir = || data_dir(options.data_dir.as_deref());
    let parts = match info.reader {
        Reader::Synthetic => synthetic::draw(&info, count, options)?,
        Reader::Folder => {
            return Err(DataError::value("data set", "'folder'", "a path: folder:PATH"));
        }
        Reader::ImageFolder => {
            return Err(DataError::value("data set", "'imagefolder'", "a path: imagefolder:PATH"));
        }
        Reader::Idx => idx::open(&info, &dir()?)?,
        Reader::Npz | Reader::Findings => npz::open(&info, &dir()?, options)?,
        Reader::Mat => mat::open(&info, &dir()?)?,
        Reader::Cifar10 => cifar::open(&info, &dir()?, cifar::Layout::Cifar10)?,
        Reader::Cifar100 => cifar::open(&info, &dir()?, cifar::Layout::Cifar100)?,
        Reader::TinyImageNet => tiny_imagenet::open(&mut info, &dir()?, options)?,
        Reader::Imagenette => imagenette::open(&mut info, &dir()?, options)?,
        Reader::ImageNet => imagenet::open(&mut info, &dir()?, options)?,
    };
    Ok((info, parts))
}

fn check(options: &OpenOptions<'_>) -> Result<()> {
    if let Some(size) = options.image_size
        && !(1..=MAX_SIZE).contains(&size)
    {
        return Err(DataError::value("image size", size, format!("1 to {MAX_SIZE} pixels")));
    }
    for (what, limit) in [
        ("limit of training images", options.limit_train),
        ("limit of test images", options.limit_test),
    ] {
        if limit == Some(0) {
            return Err(DataError::value(what, 0, "1 or more"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_opened_say_what_to_do() {
        let nowhere = tempfile::tempdir().unwrap();
        let options = OpenOptions { data_dir: Some(nowhere.path().into()), ..Default::default() };
        let message = |spec: &str| open(spec, &options).unwrap_err().to_string();
        for (spec, wanted) in [
            (
                "nonesuch",
                "unknown data set 'nonesuch'; expected one of synthetic, fashion-mnist, mnist",
            ),
            ("mnist", "get it with `sora data fetch mnist`"),
            ("cifar10", "get it with `sora data fetch cifar10`"),
            ("pathmnist", "get it with `sora data fetch pathmnist`"),
            ("tiny-imagenet", "get it with `sora data fetch tiny-imagenet`"),
            ("svhn", "get it with `sora data fetch svhn`"),
            ("pathmnist-224", "get it with `sora data fetch pathmnist-224`"),
            ("chestmnist", "get it with `sora data fetch chestmnist`"),
            ("chestmnist-64", "get it with `sora data fetch chestmnist-64`"),
            ("imagenette", "get it with `sora data fetch imagenette`"),
            ("imagenet100", "image-net.org"),
            ("imagenet", "image-net.org"),
            ("folder", "folder:PATH"),
            ("imagefolder", "imagefolder:PATH"),
            ("imagefolder:/nonexistent", "/nonexistent"),
            ("folder:/nonexistent", "/nonexistent"),
            ("synthetic:x", "synthetic:N"),
            ("synthetic:0", "synthetic:N"),
        ] {
            let text = message(spec);
            assert!(text.contains(wanted) && !text.contains('\n'), "{spec}: {text}");
        }
        assert!(message("mnist").contains(&*nowhere.path().to_string_lossy()));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for options in [
            OpenOptions { image_size: Some(0), ..Default::default() },
            OpenOptions { image_size: Some(5000), ..Default::default() },
            OpenOptions { limit_train: Some(0), ..Default::default() },
            OpenOptions { limit_test: Some(0), ..Default::default() },
        ] {
            assert!(open("synthetic", &options).unwrap_err().to_string().starts_with("wrong "));
        }
        let sized = OpenOptions { image_size: Some(32), ..Default::default() };
        assert!(open("mnist", &sized).unwrap_err().to_string().contains("28, for mnist"));
        let error = open("pathmnist", &OpenOptions { image_size: Some(50), ..Default::default() })
            .unwrap_err()
            .to_string();
        assert!(error.contains("28, 64, 128 or 224"), "{error}");
    }
}
