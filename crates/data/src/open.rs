//! From the name on the command line to images in memory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{DataError, Result};
use crate::info::{Info, Reader};
use crate::paths::data_dir;
use crate::registry::{find, registry};
use crate::source::{Parts, cifar, folder, idx, npz, synthetic};
use crate::split::Dataset;

/// Options of [`open`].
#[derive(Clone)]
pub struct OpenOptions<'a> {
    /// Data folder; see [`data_dir`].
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images, for `folder:` (centre-crop to a square, then resize) and `synthetic` (drawn at
    /// that size). Other sets have the size they have.
    pub image_size: Option<usize>,
    /// Channels of the images, for `folder:`.
    pub channels: Channels,
    /// Decides the images of `synthetic`.
    pub seed: u64,
    /// At most this many training images: the first ones. (`folder:` and `synthetic` list their classes in turn, so the
    /// first images hold all classes.)
    pub limit_train: Option<usize>,
    /// At most this many test images: the first ones.
    pub limit_test: Option<usize>,
    /// Keep and use the decoded images of `folder:` in the data folder.
    pub cache: bool,
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

/// Opens the data set `spec`: a [registered](registry) name, `synthetic:N` (N training and N/5 test images),
/// `folder:PATH`, or the path of an existing folder; a registered name wins over a folder of that name.
///
/// The images of a folder lie in `PATH/train/CLASS/` and `PATH/test/CLASS/` as `.png`, `.jpg` or `.jpeg` files; the
/// sorted names of train's sub-folders are the classes.
///
/// Mean and standard deviation are the published ones where the registry has them (CIFAR-10), else those of the whole
/// training split (as limited, for `synthetic` and `folder:`).
///
/// # Errors
/// [`DataError::Unknown`], [`DataError::Missing`] (with the command that gets the set), [`DataError::NoReader`],
/// [`DataError::Bad`] for a file that is not what it should be, [`DataError::Io`], and [`DataError::Value`] for options
/// out of range.
pub fn open(spec: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    check(options)?;
    let (mut info, parts) = read(spec, options)?;
    if info.mean.is_empty() {
        (info.mean, info.std) = parts.train.channel_stats();
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
    let parts = match &info.reader {
        Reader::Synthetic => synthetic::draw(&info, count, options)?,
        Reader::Folder => return Err(DataError::value("data set", "'folder'", "a path: folder:PATH")),
        Reader::None(format) => return Err(DataError::NoReader { name: info.name, format: format.clone() }),
        reader => {
            if options.image_size.is_some_and(|size| size != info.height) {
                return Err(DataError::value(
                    "image size",
                    options.image_size.unwrap_or_default(),
                    format!("none, or {}, for {}: only folder: and synthetic can have another", info.height, info.name),
                ));
            }
            let dir = data_dir(options.data_dir.as_deref())?;
            match reader {
                Reader::Idx => idx::open(&info, &dir)?,
                Reader::Npz => npz::open(&info, &dir)?,
                Reader::Cifar10 => cifar::open(&info, &dir, cifar::Layout::Cifar10)?,
                _ => cifar::open(&info, &dir, cifar::Layout::Cifar100)?,
            }
        }
    };
    Ok((info, parts))
}

fn check(options: &OpenOptions<'_>) -> Result<()> {
    if let Some(size) = options.image_size
        && !(1..=MAX_SIZE).contains(&size)
    {
        return Err(DataError::value("image size", size, format!("1 to {MAX_SIZE} pixels")));
    }
    for (what, limit) in [("limit of training images", options.limit_train), ("limit of test images", options.limit_test)] {
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
            ("nonesuch", "unknown data set 'nonesuch'; expected one of synthetic, fashion-mnist, mnist"),
            ("mnist", "get it with `sora data fetch mnist`"),
            ("cifar10", "get it with `sora data fetch cifar10`"),
            ("pathmnist", "get it with `sora data fetch pathmnist`"),
            ("tiny-imagenet", "cannot be read yet"),
            ("svhn", "use folder:PATH"),
            ("imagenet100", "image-net.org"),
            ("folder", "folder:PATH"),
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
        assert!(open("mnist", &sized).unwrap_err().to_string().contains("only folder: and synthetic"));
    }
}
