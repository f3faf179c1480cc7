//! Helpers that build the rows of the registry.

use crate::augment::{Augment, Crop};
use crate::info::{Checksum, Source};

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|s| (*s).to_owned()).collect()
}

pub(super) fn md5(file: &str, base: &str, size: Option<u64>, hex: &str) -> Source {
    Source {
        file: file.to_owned(),
        url: format!("{base}{file}"),
        size,
        checksum: Checksum::Md5(hex.to_owned()),
    }
}

pub(super) fn sha256(file: &str, base: &str, size: u64, hex: &str) -> Source {
    Source {
        file: file.to_owned(),
        url: format!("{base}{file}"),
        size: Some(size),
        checksum: Checksum::Sha256(hex.to_owned()),
    }
}

pub(super) fn pad_crop_flip(pad: usize) -> Augment {
    Augment { crop: Crop::Pad(pad), flip: true, ..Augment::NONE }
}

pub(super) fn resized_crop_flip() -> Augment {
    Augment { crop: Crop::Resized { min_scale: 0.08 }, flip: true, ..Augment::NONE }
}
