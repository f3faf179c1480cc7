//! The ImageNet family, and folders of the user's own images.

use super::parts::{md5, pad_crop_flip, resized_crop_flip, sha256, strings};
use crate::info::{Info, Reader};

const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Class names in the order of their identifiers, n01440764 to n03888257.
const IMAGENETTE: [&str; 10] = [
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
];

pub(super) fn tiny_imagenet() -> Info {
    Info {
        name: "tiny-imagenet".into(),
        title: "Tiny ImageNet (the validation images serve as test split)".into(),
        classes: vec![],
        num_classes: 200,
        channels: 3,
        height: 64,
        width: 64,
        train: 100_000,
        test: 10_000,
        mean: vec![],
        std: vec![],
        licence: "ImageNet terms of access: non-commercial research".into(),
        homepage: "http://cs231n.stanford.edu/".into(),
        sources: vec![md5(
            "tiny-imagenet-200.zip",
            "http://cs231n.stanford.edu/",
            Some(248_100_043),
            "90528d7ca1a48142e341f4ef8d21d0de",
        )],
        also: vec![],
        package: None,
        augment: pad_crop_flip(8),
        reader: Reader::TinyImageNet,
    }
}

/// Imagenette version 2 (70/30 split), with the shorter side of the files 320 or, if `small`, 160
/// pixels.
pub(super) fn imagenette(small: bool) -> Info {
    let base = "https://s3.amazonaws.com/fast-ai-imageclas/";
    let size = if small { 128 } else { 224 };
    Info {
        name: if small { "imagenette-160" } else { "imagenette" }.into(),
        title: format!(
            "Imagenette 2 ({} px files; 10 classes of ImageNet; the validation images serve as test split)",
            if small { 160 } else { 320 }
        ),
        classes: strings(&IMAGENETTE),
        num_classes: 10,
        height: size,
        width: size,
        train: 9_469,
        test: 3_925,
        mean: IMAGENET_MEAN.to_vec(),
        std: IMAGENET_STD.to_vec(),
        licence: "Apache 2.0 (the selection); ImageNet terms of access for the images".into(),
        homepage: "https://github.com/fastai/imagenette".into(),
        sources: vec![if small {
            sha256(
                "imagenette2-160.tgz",
                base,
                98_948_031,
                "88daccb09b6fce93f45e6c09ddeb269cce705549e6bff322092a2a5a11489863",
            )
        } else {
            // Public records differ in this file's SHA-256, because it was packed again; the MD5 is
            // torchvision's.
            md5("imagenette2-320.tgz", base, None, "3df6f0d01a2c9592104656642f5e78a3")
        }],
        augment: resized_crop_flip(),
        reader: Reader::Imagenette,
        ..tiny_imagenet()
    }
}

pub(super) fn imagenet100() -> Info {
    Info {
        name: "imagenet100".into(),
        title:
            "ImageNet-100 (100 classes of ILSVRC 2012; the validation images serve as test split)"
                .into(),
        classes: vec![],
        num_classes: 100,
        height: 224,
        width: 224,
        // Several selections of 100 classes exist, so the number of images is not known.
        train: 0,
        test: 5_000,
        mean: IMAGENET_MEAN.to_vec(),
        std: IMAGENET_STD.to_vec(),
        homepage: "https://www.image-net.org/download.php".into(),
        // ImageNet's licence forbids redistribution, so no public address exists.
        sources: vec![],
        augment: resized_crop_flip(),
        reader: Reader::ImageNet,
        ..tiny_imagenet()
    }
}

pub(super) fn imagenet() -> Info {
    Info {
        name: "imagenet".into(),
        title: "ImageNet (ILSVRC 2012; the validation images serve as test split)".into(),
        num_classes: 1000,
        train: 1_281_167,
        test: 50_000,
        ..imagenet100()
    }
}

/// A folder of the user's own images in ImageNet's form.
pub(super) fn imagefolder() -> Info {
    Info {
        name: "imagefolder".into(),
        title: "Your own images of any size, decoded on demand: imagefolder:PATH with \
             PATH/train/CLASS/*, PATH/val/CLASS/* or shards (Parquet, WebDataset)"
            .into(),
        num_classes: 0,
        train: 0,
        test: 0,
        licence: "yours".into(),
        homepage: "your disk".into(),
        reader: Reader::ImageFolder,
        ..imagenet100()
    }
}

pub(super) fn folder() -> Info {
    Info {
        name: "folder".into(),
        title: "Your own images: folder:PATH with PATH/train/CLASS/*.png|jpg and \
                PATH/test/CLASS/*.png|jpg"
            .into(),
        classes: vec![],
        num_classes: 0,
        channels: 0,
        height: 0,
        width: 0,
        train: 0,
        test: 0,
        mean: vec![],
        std: vec![],
        licence: "yours".into(),
        homepage: "your disk".into(),
        sources: vec![],
        also: vec![],
        package: None,
        augment: pad_crop_flip(4),
        reader: Reader::Folder,
    }
}
