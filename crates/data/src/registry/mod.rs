//! The data sets known by name: metadata, official addresses, published sizes and checksums.
//!
//! Sources of the checksums. SHA-256 and sizes of the MNIST family, CIFAR and SVHN are those
//! recorded by TensorFlow Datasets (`url_checksums/`). They agree with other public loaders (dlipr,
//! torchvision's prototype datasets, MLDatasets.jl, GoMLX) and, for CIFAR, with the MD5 on the
//! authors' page, which also gives the MD5 of the Python archives. The MD5 of MedMNIST are those of
//! the MedMNIST package (3.0.2). MD5 and size of Tiny ImageNet are those of the public PyTorch
//! loaders. TensorFlow Datasets and FastAI.jl record the SHA-256 of the small Imagenette archive,
//! torchvision the MD5 of the larger.

mod imagenet;
mod medmnist;
mod parts;
mod small;

use crate::info::Info;
use imagenet::{folder, imagefolder, imagenet, imagenet100, imagenette, tiny_imagenet};
use medmnist::{MED_SIZES, MEDMNIST, medmnist};
use small::{cifar10, cifar100, fashion_mnist, mnist, svhn, synthetic};

/// Every registered data set, in the order in which programs list them.
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

/// The registered set of that name. It also finds names that [`registry`] does not list: each
/// MedMNIST set at a larger size, such as `pathmnist-64`, `-128` and `-224`.
pub fn find(name: &str) -> Option<Info> {
    let larger = || {
        let (name, side) = name.rsplit_once('-')?;
        let size = MED_SIZES.iter().skip(1).position(|s| s.to_string() == side)? + 1;
        MEDMNIST.iter().find(|set| set.name == name).map(|set| medmnist(set, size))
    };
    registry().into_iter().find(|info| info.name == name).or_else(larger)
}

/// The set `info` in images of `size` pixels, if it is published at that size.
pub(crate) fn in_size(info: &Info, size: usize) -> Option<Info> {
    let set = MEDMNIST.iter().find(|set| set.name == info.name)?;
    Some(medmnist(set, MED_SIZES.iter().position(|&s| s == size)?))
}

#[cfg(test)]
mod tests;
