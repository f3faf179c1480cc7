//! The description of a data set, known before any of its files is read.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::error::{Fix, Remedy};

/// A data set's description. [`crate::registry()`] returns it for every registered set;
/// [`crate::open`] fills in the fields that depend on the images (`mean`, `std`, and all fields of
/// `folder:`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The name that [`open`](crate::open()) accepts, or `folder:PATH`.
    pub name: String,
    /// The set's usual name, for people.
    pub title: String,
    /// Class names in label order; empty where the registry does not list them (`tiny-imagenet`,
    /// `imagenet100`).
    pub classes: Vec<String>,
    /// Number of classes.
    pub num_classes: usize,
    /// Image channels: 1 (grey) or 3 (RGB). 0 for `folder` before it is opened.
    pub channels: usize,
    /// Image height in pixels. 0 for `folder` before it is opened.
    pub height: usize,
    /// Image width in pixels. 0 for `folder` before it is opened.
    pub width: usize,
    /// Number of training images; of an opened set, after its limit.
    pub train: usize,
    /// Number of test images; of an opened set, after its limit.
    pub test: usize,
    /// Per-channel mean of the training images in \[0,1\]. The registry leaves it empty where none
    /// is published; [`open`](crate::open()) then computes it from the training split.
    pub mean: Vec<f64>,
    /// Per-channel standard deviation, with the rules of `mean`.
    pub std: Vec<f64>,
    /// Licence of the images.
    pub licence: String,
    /// Where the set is described.
    pub homepage: String,
    /// The files to download; empty where there is nothing to download.
    pub sources: Vec<Source>,
    /// Other official files that can replace `sources`, if they are put into the data folder.
    pub also: Vec<Source>,
    /// A Debian package that holds the set.
    pub package: Option<String>,
    /// The augmentation usual for this set in the adversarial training literature.
    pub augment: Augment,
    /// The reader of the set's files.
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
/// The checksum is a SHA-256 where at least two independent public places record one. It is an MD5
/// where the publisher gives nothing else (MedMNIST, Tiny ImageNet, Imagenette); an MD5 detects a
/// broken download, but not a forged file.
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
    /// The CIFAR-10 archives.
    Cifar10,
    /// The CIFAR-100 archives.
    Cifar100,
    /// MATLAB files (SVHN).
    Mat,
    /// NumPy arrays in a zip archive (MedMNIST).
    Npz,
    /// NumPy arrays in a zip archive, with a row of findings per image (ChestMNIST). The class says
    /// whether the image has any finding.
    Findings,
    /// Tiny ImageNet's zip archive or folder.
    TinyImageNet,
    /// Imagenette's archive or folder.
    Imagenette,
    /// Class folders or Parquet shards of images of any size, in the data folder.
    ImageNet,
    /// Class folders or Parquet shards of images of any size, in a folder that the user names.
    ImageFolder,
    /// A folder of PNG and JPEG files.
    Folder,
    /// No files: the images are drawn from the seed.
    Synthetic,
}

impl Info {
    /// The name of the set's folder in the data folder: the set's name, or, for a larger size, the
    /// name of the set that it enlarges.
    pub fn folder(&self) -> &str {
        match (&self.reader, self.name.rsplit_once('-')) {
            (Reader::Npz | Reader::Findings, Some((name, _))) => name,
            _ => &self.name,
        }
    }

    /// The folders where the set's files are looked for: its folder in the data folder, the folder
    /// of its Debian package, and, where no two sets have files of the same names, the data folder
    /// itself (the layout that torchvision makes).
    pub(crate) fn folders(&self, data_dir: &Path) -> Vec<PathBuf> {
        let package =
            self.package.as_ref().map(|_| Path::new("/usr/share/datasets").join(&self.name));
        let itself = !matches!(self.reader, Reader::Idx | Reader::ImageNet);
        std::iter::once(data_dir.join(self.folder()))
            .chain(package)
            .chain(itself.then(|| data_dir.to_owned()))
            .collect()
    }

    /// Whether the set has files in the data folder.
    pub fn is_kept(&self) -> bool {
        !self.sources.is_empty() || self.reader == Reader::ImageNet
    }

    /// Whether the files of the set are in one of the folders where [`crate::open`] looks. The
    /// files are not read.
    pub fn is_here(&self, data_dir: &Path) -> bool {
        let folders = self.folders(data_dir);
        let any = |names: &[&str]| {
            folders.iter().any(|folder| names.iter().any(|name| folder.join(name).exists()))
        };
        let all = |sources: &[Source]| {
            let there = |folder: &Path, file: &str| {
                folder.join(file).is_file() || folder.join(file.trim_end_matches(".gz")).is_file()
            };
            !sources.is_empty()
                && folders.iter().any(|folder| sources.iter().all(|s| there(folder, &s.file)))
        };
        all(&self.sources)
            || all(&self.also)
            || match self.reader {
                Reader::Cifar10 => any(&["cifar-10-batches-bin", "cifar-10-batches-py"]),
                Reader::Cifar100 => any(&["cifar-100-binary", "cifar-100-python"]),
                Reader::TinyImageNet => any(&["tiny-imagenet-200"]),
                Reader::Imagenette => {
                    self.sources.iter().any(|s| any(&[s.file.trim_end_matches(".tgz")]))
                }
                Reader::ImageNet => any(&["train", "data"]),
                _ => false,
            }
    }

    /// Says how to get the set.
    pub(crate) fn get(&self) -> Fix {
        let package = self.package.as_ref().map(|p| format!("install the package {p}"));
        let download = (!self.sources.is_empty()).then(|| "download it".to_owned());
        let words = match (package, download) {
            (Some(a), Some(b)) => format!("{a} or {b}"),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => {
                format!("get it with an account at {}, and unpack it", self.homepage)
            }
        };
        Fix::new(words, self.fetch())
    }

    /// Says how to replace a damaged file of the set.
    pub(crate) fn get_again(&self) -> Fix {
        Fix::new("get it again", self.fetch())
    }

    fn fetch(&self) -> Option<Remedy> {
        (!self.sources.is_empty()).then(|| Remedy::Fetch { name: self.name.clone() })
    }
}
