//! The data sets known by name: metadata, official addresses, published sizes and checksums.
//!
//! Where the checksums come from: SHA-256 and sizes of the MNIST family, CIFAR and SVHN are those
//! recorded by TensorFlow Datasets (`url_checksums/`), and agree with those in other public loaders
//! (dlipr, torchvision's prototype datasets, MLDatasets.jl, GoMLX) and, for CIFAR, with the MD5 on
//! the authors' page, which also gives those of the Python archives; MD5 of MedMNIST are those of
//! the MedMNIST package (3.0.2); MD5 and size of Tiny ImageNet are those used by the public PyTorch
//! loaders; SHA-256 of the small Imagenette archive is recorded by TensorFlow Datasets and
//! FastAI.jl, the MD5 of the larger by torchvision.

mod imagenet;
mod medmnist;
mod parts;
mod small;

use crate::info::Info;
use imagenet::{folder, imagefolder, imagenet, imagenet100, imagenette, tiny_imagenet};
use medmnist::{MED_SIZES, MEDMNIST, medmnist};
use small::{cifar10, cifar100, fashion_mnist, mnist, svhn, synthetic};

/// Every registered data set, in the order in which they are listed to people.
pub fn registry() -> Vec<Info> {
    let mut all = vec![synthetic(), fashion_mnist(), mnist(), cifar10(), cifar100(), svhn()];
    all.extend(MEDMNIST.iter().map(|set| medmnist(set, 0)));
    all.extend([
        tiny_imagenet(),
        imagenette(false),
        imagenette(true),
        imagenet100(),
        imagenet(),
        folder(),
        imagefolder(),
    ]);
    all
}

/// The registered set of that name. Besides those that [`registry`] lists: each MedMNIST set in a
/// larger size, such as `pathmnist-64`, `-128` and `-224`.
pub fn find(name: &str) -> Option<Info> {
    let larger = || {
        let (name, side) = name.rsplit_once('-')?;
        let size = MED_SIZES.iter().skip(1).position(|s| s.to_string() == side)? + 1;
        MEDMNIST.iter().find(|set| set.name == name).map(|set| medmnist(set, size))
    };
    registry().into_iter().find(|info| info.name == name).or_else(larger)
}

/// The set `info` in images of `size` pixels, where it is published in that size.
pub(crate) fn in_size(info: &Info, size: usize) -> Option<Info> {
    let set = MEDMNIST.iter().find(|set| set.name == info.name)?;
    Some(medmnist(set, MED_SIZES.iter().position(|&s| s == size)?))
}

#[cfg(test)]
mod tests;
