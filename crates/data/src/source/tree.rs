//! Class folders of image files: `ROOT/train/CLASS/*.png|jpg|jpeg` and `ROOT/test/CLASS/...`.
//!
//! The classes are the sorted names of train's sub-folders. The images of a split are listed by
//! class in turn (the first of each class, then the second of each, ...; sorted by name within a
//! class), so that the first N images hold all classes evenly.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use unicode_normalization::UnicodeNormalization;

use super::left_out::{LeftOut, count_images, extension};
use crate::error::{DataError, Result};
use crate::text::one_line;

pub(crate) struct Item {
    pub path: PathBuf,
    pub label: u32,
    /// Length and time of the last change, which reveal a changed file.
    pub stamp: (u64, u128),
}

pub(crate) struct Tree {
    pub root: PathBuf,
    pub classes: Vec<String>,
    pub train: Vec<Item>,
    pub test: Vec<Item>,
}

impl Tree {
    /// Lists the image files under `root`. The test split is the first folder of `test` that
    /// exists, and empty where there is none and `needs_test` is false.
    pub(crate) fn read(root: &Path, test: &[&str], needs_test: bool) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(DataError::io("read", root))?;
        let test_name =
            test.iter().copied().find(|name| root.join(name).is_dir()).unwrap_or(test[0]);
        let layout = format!("PATH/train/CLASS/*.png|jpg and PATH/{test_name}/CLASS/*.png|jpg");
        let has_test = needs_test || root.join(test_name).is_dir();
        for split in ["train", test_name] {
            if !root.join(split).is_dir() && (split == "train" || has_test) {
                return Err(DataError::bad(
                    &root,
                    format!("no {split} folder"),
                    layout,
                    format!(
                        "put the {split} images in {split}/CLASS/ (no part of another split is \
                         taken in its place)"
                    ),
                ));
            }
        }
        let mut left_out = LeftOut::default();
        let folder = root.join("train");
        let present = sub_folders(&folder)?;
        if present.len() < 2 {
            let found = format!("{} class folders", present.len());
            return Err(DataError::bad(
                folder,
                found,
                "2 or more, each with images",
                "make one sub-folder a class",
            ));
        }
        let classes: Vec<String> = present.iter().map(|class| class.name.clone()).collect();
        let train = list(&folder, &present, &classes, &mut left_out)?;
        if !has_test {
            left_out.tell(&root);
            return Ok(Self { root, classes, train, test: Vec::new() });
        }
        let folder = root.join(test_name);
        let present = sub_folders(&folder)?;
        if let Some(unknown) = present.iter().find(|c| !classes.contains(&c.name)) {
            return Err(DataError::bad(
                &unknown.path,
                "a class that train does not have",
                format!("one of the {} classes of train", classes.len()),
                "rename the folder or add the class to train",
            ));
        }
        if present.is_empty() {
            return Err(DataError::bad(
                folder,
                "no class folders",
                layout,
                format!("put the test images in {test_name}/CLASS/"),
            ));
        }
        let test = list(&folder, &present, &classes, &mut left_out)?;
        left_out.tell(&root);
        Ok(Self { root, classes, train, test })
    }
}

/// A folder of images of one class.
pub(crate) struct Class {
    /// The folder's name in Unicode's composed form (NFC), so that a name means the same class
    /// whichever system wrote it.
    pub name: String,
    pub path: PathBuf,
}

/// The sub-folders, sorted by name, without hidden ones.
pub(crate) fn sub_folders(folder: &Path) -> Result<Vec<Class>> {
    let mut classes = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io("read", folder))? {
        let path = entry.map_err(DataError::io("read", folder))?.path();
        let Some(name) = path.file_name() else { continue };
        let Some(text) = name.to_str() else {
            return Err(DataError::bad(
                &path,
                "a name that is not Unicode",
                "a class name",
                "rename the folder",
            ));
        };
        if !text.starts_with('.') && path.is_dir() {
            let name = one_line(&text.nfc().collect::<String>());
            classes.push(Class { name, path });
        }
    }
    classes.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.path.cmp(&b.path)));
    if let Some(pair) = classes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(DataError::bad(
            &pair[1].path,
            "a second folder of the same name, written with other characters",
            "one folder a class",
            "move the images to one of the two",
        ));
    }
    Ok(classes)
}

/// Lists the images of the classes in `present`, in turn; labels are positions in `classes`.
fn list(
    folder: &Path,
    present: &[Class],
    classes: &[String],
    left_out: &mut LeftOut,
) -> Result<Vec<Item>> {
    left_out.outside_classes += count_images(folder, 0);
    let per_class: Vec<(Vec<Item>, LeftOut)> = present
        .par_iter()
        .map(|class| {
            let label = classes.iter().position(|c| *c == class.name).unwrap_or_default() as u32;
            let (mut items, left_out) = class_images(&class.path, label)?;
            if items.is_empty() {
                let found = match left_out.total() {
                    0 => "no images".to_owned(),
                    n => format!("no images but {n} that are not read ({left_out})"),
                };
                return Err(DataError::bad(
                    &class.path,
                    found,
                    "files ending in .png, .jpg or .jpeg",
                    "add some or remove the folder",
                ));
            }
            items.sort_by(|a, b| a.path.cmp(&b.path));
            Ok((items, left_out))
        })
        // All files are read before the first error is returned, so that of several defects the
        // first in order is named, whichever thread is quickest.
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<Result<_>>()?;
    let lists = per_class.into_iter().map(|(items, more)| {
        left_out.add(more);
        items
    });
    Ok(in_turn(lists.collect()))
}

/// The first of each list, then the second of each, and so on.
pub(crate) fn in_turn<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut items = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    let mut columns: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    loop {
        let before = items.len();
        items.extend(columns.iter_mut().filter_map(Iterator::next));
        if items.len() == before {
            return items;
        }
    }
}

/// The image files of a folder, in no particular order.
pub(crate) fn image_files(folder: &Path, label: u32) -> Result<Vec<Item>> {
    Ok(class_images(folder, label)?.0)
}

/// The image files of a folder, in no particular order, and the count of other files that look like
/// images.
fn class_images(folder: &Path, label: u32) -> Result<(Vec<Item>, LeftOut)> {
    let mut items = Vec::new();
    let mut left_out = LeftOut::default();
    for entry in fs::read_dir(folder).map_err(DataError::io("read", folder))? {
        let path = entry.map_err(DataError::io("read", folder))?.path();
        if !is_image(&path) {
            left_out.look_at(&path);
            continue;
        }
        let meta = fs::metadata(&path).map_err(DataError::io("read", &path))?;
        // Opening a named pipe would block for ever.
        if !meta.is_file() {
            return Err(DataError::bad(
                path,
                "a folder or special file",
                "an image file",
                "rename or remove it",
            ));
        }
        let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        items.push(Item { path, label, stamp: (meta.len(), changed.map_or(0, |d| d.as_nanos())) });
    }
    Ok((items, left_out))
}

/// Whether a file's name is that of an image that is read; hidden files are not.
pub(crate) fn is_image(path: &Path) -> bool {
    matches!(extension(path).as_deref(), Some("png" | "jpg" | "jpeg"))
}
