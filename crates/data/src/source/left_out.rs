//! Counts the image files of a set that are not read, so that nobody takes the rest for the whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::text::shown;

/// Endings of image files that are not read: other formats, and other endings of the formats that
/// are read.
const OTHERS: [&str; 24] = [
    "avif", "bmp", "dds", "exr", "gif", "hdr", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe",
    "jxl", "pbm", "pgm", "pnm", "ppm", "qoi", "svg", "tga", "tif", "tiff", "webp",
];

/// Greatest depth of folders within folders that are searched.
const MAX_DEPTH: usize = 16;

/// Numbers of files that look like images and are not read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Number of files by ending.
    pub other_formats: BTreeMap<String, usize>,
    /// Number of image files of any kind in folders within class folders.
    pub nested: usize,
    /// Number of image files of any kind beside the class folders.
    pub outside_classes: usize,
}

impl LeftOut {
    /// Counts `path`, which is not an image file that is read.
    pub(super) fn look_at(&mut self, path: &Path) {
        let other = extension(path).filter(|ending| OTHERS.contains(&ending.as_str()));
        if path.is_dir() {
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            self.nested += if hidden { 0 } else { count_images(path, MAX_DEPTH) };
        } else if let Some(ending) = other {
            *self.other_formats.entry(ending).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (ending, n) in other.other_formats {
            *self.other_formats.entry(ending).or_default() += n;
        }
        self.nested += other.nested;
        self.outside_classes += other.outside_classes;
    }

    pub(super) fn total(&self) -> usize {
        self.other_formats.values().sum::<usize>() + self.nested + self.outside_classes
    }

    /// Logs one line about the files that are left out of the set at `root`, if there are any.
    pub(super) fn tell(&self, root: &Path) {
        if self.total() > 0 {
            tracing::warn!(
                "{}: {} image files are left out: {self}; read are .png, .jpg and .jpeg files in \
                 SPLIT/CLASS/",
                shown(root),
                self.total()
            );
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> =
            self.other_formats.iter().map(|(ending, n)| format!("{n} .{ending}")).collect();
        if self.nested > 0 {
            parts.push(format!("{} in folders within class folders", self.nested));
        }
        if self.outside_classes > 0 {
            parts.push(format!("{} outside class folders", self.outside_classes));
        }
        f.write_str(&parts.join(", "))
    }
}

/// Number of image files of any kind in a folder and in the folders within it, down to `depth`. A
/// folder that cannot be read counts as empty; links to folders are not followed.
pub(super) fn count_images(folder: &Path, depth: usize) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && depth > 0 => count_images(&entry.path(), depth - 1),
        Ok(kind) if kind.is_dir() => 0,
        _ => usize::from(is_any_image(&entry.path())),
    };
    entries.filter_map(|entry| entry.ok()).map(count).sum()
}

fn is_any_image(path: &Path) -> bool {
    extension(path).is_some_and(|ending| {
        matches!(ending.as_str(), "png" | "jpg" | "jpeg") || OTHERS.contains(&ending.as_str())
    })
}

/// A file's ending in lower case; `None` for hidden files.
pub(super) fn extension(path: &Path) -> Option<String> {
    let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    ending.filter(|_| !hidden)
}
