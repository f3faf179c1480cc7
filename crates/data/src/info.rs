//! What is known about a data set before any of its files is read.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::augment::Augment;

/// A data set's description. [`crate::registry()`] gives it for every registered set; [`crate::open`] fills in what only
/// the images can tell (`mean`, `std`, and everything for `folder:`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The name on the command line, or `folder:PATH`.
    pub name: String,
    /// The name people use.
    pub title: String,
    /// Class names in label order; empty where the registry does not list them (`tiny-imagenet`, `imagenet100`).
    pub classes: Vec<String>,
    /// Number of classes.
    pub num_classes: usize,
    /// Image channels: 1 (grey) or 3 (RGB). 0 for `folder` before it is opened.
    pub channels: usize,
    /// Image height in pixels. 0 for `folder` before it is opened.
    pub height: usize,
    /// Image width in pixels. 0 for `folder` before it is opened.
    pub width: usize,
    /// Training images (as opened: after a limit).
    pub train: usize,
    /// Test images (as opened: after a limit).
    pub test: usize,
    /// Per-channel mean of the training images in \[0,1\]. Empty in the registry where none is published; then computed
    /// from the training split when the set is opened.
    pub mean: Vec<f64>,
    /// Per-channel standard deviation, likewise.
    pub std: Vec<f64>,
    /// Licence of the images.
    pub licence: String,
    /// Where the set is described.
    pub homepage: String,
    /// The files to download; empty where there is nothing to download.
    pub sources: Vec<Source>,
    /// A Debian package that holds the set.
    pub package: Option<String>,
    /// The augmentation usual for this set in the adversarial training literature.
    pub augment: Augment,
    /// How the files are read.
    pub reader: Reader,
}

/// One official file of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// File name in the data folder.
    pub file: String,
    /// Official address.
    pub url: String,
    /// Size in bytes, where it is published.
    pub size: Option<u64>,
    /// Published checksum.
    pub checksum: Checksum,
}

/// A published checksum of a file, in lower-case hexadecimal.
///
/// SHA-256 where one is publicly recorded in at least two independent places. MD5 where that is all that the publisher
/// gives (MedMNIST, Tiny ImageNet): good against a broken download, not against a forged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// 64 hexadecimal digits.
    Sha256(String),
    /// 32 hexadecimal digits.
    Md5(String),
}

impl Checksum {
    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Md5(hex) => hex,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
            Self::Md5(hex) => write!(f, "MD5 {hex}"),
        }
    }
}

/// The reader of a set's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// IDX files, gzipped or not (the MNIST family).
    Idx,
    /// The CIFAR-10 binary archive.
    Cifar10,
    /// The CIFAR-100 binary archive.
    Cifar100,
    /// NumPy arrays in a zip archive (MedMNIST).
    Npz,
    /// A folder of PNG and JPEG files.
    Folder,
    /// Drawn from the seed.
    Synthetic,
    /// No reader yet for files of the format named.
    None(String),
}

impl Info {
    /// Whether [`crate::open`] can read this set.
    pub fn is_readable(&self) -> bool {
        !matches!(self.reader, Reader::None(_))
    }

    /// Where the set's files are looked for: its folder in the data folder, then that of its Debian package.
    pub(crate) fn folders(&self, data_dir: &Path) -> Vec<PathBuf> {
        let package = self.package.as_ref().map(|_| Path::new("/usr/share/datasets").join(&self.name));
        std::iter::once(data_dir.join(&self.name)).chain(package).collect()
    }

    /// Whether all files of the set are in one of the folders where [`crate::open`] looks for them. The files are not read.
    pub fn is_here(&self, data_dir: &Path) -> bool {
        let there = |folder: &Path, file: &str| folder.join(file).is_file() || folder.join(file.trim_end_matches(".gz")).is_file();
        !self.sources.is_empty() && self.folders(data_dir).iter().any(|folder| self.sources.iter().all(|s| there(folder, &s.file)))
    }

    /// The ways to get the set, for people: a Debian package or a `sora data fetch` command.
    pub fn how_to_get(&self) -> String {
        let package = self.package.as_ref().map(|p| format!("`apt-get install {p}`"));
        let fetch = (!self.sources.is_empty()).then(|| format!("`sora data fetch {}`", self.name));
        match (package, fetch) {
            (Some(a), Some(b)) => format!("{a} or {b}"),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => match self.reader {
                Reader::Synthetic => "nothing to get: drawn from the seed".into(),
                Reader::Folder => "your own images: `--dataset folder:PATH`".into(),
                _ => format!("the instructions at {}", self.homepage),
            },
        }
    }
}
