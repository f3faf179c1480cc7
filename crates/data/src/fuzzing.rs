//! Readers of files by their bytes, for the fuzz targets of the repository (`fuzz/`), which build
//! this crate with `--cfg fuzzing`, and for the test that replays their seeds. No part of the
//! library.
//!
//! Each says whether it could read them. It may refuse them, but not panic, hang, or take much more
//! memory than the file is long.
#![allow(missing_docs)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::error::Result;
use crate::info::Info;
use crate::options::{Channels, Decoding, OpenOptions, Orientation};
use crate::picture;
use crate::source::{
    self,
    cifar::{self, Layout},
    idx, imagenette, mat, npz, tiny_imagenet,
};
use crate::split::Split;

/// A reader by the name of its target.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const TARGETS: &[Target] = &[
    ("data_cache", data_cache),
    ("data_cifar", data_cifar),
    ("data_idx", data_idx),
    ("data_image", data_image),
    ("data_mat", data_mat),
    ("data_npz", data_npz),
    ("data_parquet", data_parquet),
    ("data_pickle", data_pickle),
    ("data_tar", data_tar),
    ("data_zip", data_zip),
];

/// Calls `open` with a data folder that holds `bytes` as `file`.
fn with_file<T>(file: &str, bytes: &[u8], open: impl FnOnce(&Path) -> T) -> Option<T> {
    let dir = tempfile::tempdir().ok()?;
    let path = dir.path().join(file);
    fs::create_dir_all(path.parent()?).ok()?;
    fs::write(&path, bytes).ok()?;
    Some(open(dir.path()))
}

thread_local! {
    /// The descriptions that were asked for. To make those of all sets takes longer than to read a
    /// small file.
    static FOUND: RefCell<HashMap<&'static str, Info>> = RefCell::default();
}

/// The description of `name`, with few images.
fn info(name: &'static str, train: usize, test: usize) -> Option<Info> {
    let found = FOUND.with_borrow_mut(|found| match found.get(name) {
        Some(info) => Some(info.clone()),
        None => crate::find(name).inspect(|info| drop(found.insert(name, info.clone()))),
    });
    Some(Info { train, test, ..found? })
}

/// Reads every image of a split that could be opened; whether all could be read.
fn touch(split: &Split) -> bool {
    let read = |i| {
        let _ = split.label(i);
        split.image(i).is_ok()
    };
    (0..split.len().min(64)).fold(true, |all, i| all & read(i))
}

fn opened(parts: Option<Result<source::Parts>>) -> bool {
    let Some(Ok(parts)) = parts else { return false };
    touch(&parts.train) & touch(&parts.test)
}

/// An image file: the first byte says how it is decoded.
pub fn data_image(bytes: &[u8]) -> bool {
    let Some((how, bytes)) = bytes.split_first() else { return false };
    let decoding = Decoding {
        channels: if how & 1 == 0 { Channels::Rgb } else { Channels::Grey },
        orientation: if how & 2 == 0 { Orientation::AsStored } else { Orientation::Exif },
    };
    let bad = |found| crate::DataError::bad("image", found, "an image", "get it again");
    let Ok(picture) = picture::decode(bytes, decoding, bad) else { return false };
    assert_eq!(
        picture.pixels().len(),
        picture.height() * picture.width() * picture.channels(),
        "a picture of another size than it says"
    );
    true
}

/// An IDX file, plain or gzipped: the first byte says which of the four of a set.
pub fn data_idx(bytes: &[u8]) -> bool {
    let Some((at, bytes)) = bytes.split_first() else { return false };
    let Some(mut info) = info("mnist", 2, 2) else { return false };
    (info.height, info.width) = (4, 3);
    let labels = [&[0, 0, 8, 1, 0, 0, 0, 2][..], &[0, 9]].concat();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 3][..], &[7; 24]].concat();
    let mut files = [&images[..], &labels, &images, &labels];
    files[usize::from(at % 4)] = bytes;
    let parts = with_file("mnist/train-images-idx3-ubyte", files[0], |dir| {
        let names = ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
        for (name, bytes) in names.iter().zip(&files[1..]) {
            fs::write(dir.join("mnist").join(name), bytes).ok()?;
        }
        Some(idx::open(&info, dir))
    });
    opened(parts.flatten())
}

/// A CIFAR archive, binary or of pickles: the first byte says which.
pub fn data_cifar(bytes: &[u8]) -> bool {
    let Some((how, bytes)) = bytes.split_first() else { return false };
    let Some(info) = info("cifar10", 5, 1) else { return false };
    let sources = [info.sources.first(), info.also.first()];
    let Some(source) = sources[usize::from(how & 1)] else { return false };
    let file = format!("{}/{}", info.name, source.file);
    opened(with_file(&file, bytes, |dir| cifar::open(&info, dir, Layout::Cifar10)))
}

/// A batch file of a CIFAR archive in Python's form.
pub fn data_pickle(bytes: &[u8]) -> bool {
    let Ok(batch) = source::read_batch(bytes) else { return false };
    assert_eq!(batch.data.len(), batch.shape[0] * batch.shape[1], "an array of another size");
    true
}

/// A file of MedMNIST: the first byte says whether it is read into memory or unpacked to disk.
pub fn data_npz(bytes: &[u8]) -> bool {
    let Some((how, bytes)) = bytes.split_first() else { return false };
    let Some(mut info) = info("pathmnist", 3, 2) else { return false };
    (info.height, info.width) = (4, 3);
    let file = format!("{}/{}", info.name, info.sources[0].file);
    let max_memory = if how & 1 == 0 { u64::MAX } else { 0 };
    let options = OpenOptions { max_memory, ..Default::default() };
    // Unpacked images are read while their file is there.
    with_file(&file, bytes, |dir| opened(Some(npz::open(&info, dir, &options)))).unwrap_or(false)
}

/// A MATLAB file of SVHN.
pub fn data_mat(bytes: &[u8]) -> bool {
    let Some(info) = info("svhn", 2, 2) else { return false };
    let parts = with_file("svhn/train_32x32.mat", bytes, |dir| {
        fs::write(dir.join("svhn/test_32x32.mat"), bytes).ok()?;
        Some(mat::open(&info, dir))
    });
    opened(parts.flatten())
}

/// A Parquet shard.
#[cfg(feature = "parquet")]
pub fn data_parquet(bytes: &[u8]) -> bool {
    let file = "data/train-00000-of-00001.parquet";
    let data = with_file(file, bytes, |dir| {
        fs::write(dir.join("data/validation-00000-of-00001.parquet"), bytes).ok()?;
        let options = OpenOptions { image_size: Some(4), cache: false, ..Default::default() };
        let data = crate::open(&format!("imagefolder:{}", dir.display()), &options).ok()?;
        Some((touch(&data.train), data))
    });
    // The folder goes first, and the images after it.
    data.flatten().is_some_and(|(read, _)| read)
}

#[cfg(not(feature = "parquet"))]
fn data_parquet(_: &[u8]) -> bool {
    true
}

/// Imagenette's archive, or with an odd first byte a WebDataset shard; the next bit says whether the
/// decoded images are kept.
pub fn data_tar(bytes: &[u8]) -> bool {
    let Some((how, bytes)) = bytes.split_first() else { return false };
    let options = OpenOptions { image_size: Some(8), cache: how & 2 != 0, ..Default::default() };
    if how & 1 == 0 {
        let Some(mut info) = info("imagenette-160", 2, 2) else { return false };
        return opened(with_file("imagenette2-160.tgz", bytes, |dir| {
            imagenette::open(&mut info, dir, &options)
        }));
    }
    let read = with_file("train-0.tar", bytes, |dir| {
        fs::write(dir.join("val-0.tar"), bytes).ok()?;
        let data = crate::open(&format!("imagefolder:{}", dir.display()), &options).ok()?;
        Some(touch(&data.train))
    });
    read.flatten().unwrap_or(false)
}

/// Tiny ImageNet's archive.
pub fn data_zip(bytes: &[u8]) -> bool {
    let Some(mut info) = info("tiny-imagenet", 2, 2) else { return false };
    info.num_classes = 2;
    opened(with_file("tiny-imagenet/tiny-imagenet-200.zip", bytes, |dir| {
        tiny_imagenet::open(&mut info, dir, &OpenOptions::default())
    }))
}

/// A file of decoded images. One that is taken is what was written with its key.
pub fn data_cache(bytes: &[u8]) -> bool {
    let load = |dir: &Path| source::load_cache(&dir.join("cache.bin"), &[3; 32], [3, 2]);
    with_file("cache.bin", bytes, load).is_some_and(|loaded| loaded.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What once went wrong or takes a long way through a reader, see `fuzz/seeds` (not in the
    /// published package).
    #[test]
    fn every_seed_of_the_fuzz_targets_is_read_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if !seeds.is_dir() {
            return;
        }
        for (name, target) in TARGETS {
            let files = fs::read_dir(seeds.join(name)).unwrap();
            let read = files.map(|file| target(&fs::read(file.unwrap().path()).unwrap()));
            // Else the readers would be tried from their first refusal on only.
            assert!(
                read.fold(0, |all, read| all + u32::from(read)) > 0,
                "no seed of {name} is read"
            );
        }
    }
}
