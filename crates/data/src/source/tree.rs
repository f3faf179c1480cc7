//! Class folders of image files: `ROOT/train/CLASS/*.png|jpg|jpeg` and `ROOT/test/CLASS/...`.
//!
//! The classes are the sorted names of train's sub-folders. The images of a split are listed by
//! class in turn (the first of each class, then the second of each, ...; sorted by name within a
//! class), so that the first N hold all classes evenly.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use crate::error::{DataError, Result};

pub(crate) struct Item {
    pub path: PathBuf,
    pub label: u32,
    /// Length and time of change, to notice a changed file.
    pub stamp: (u64, u128),
}

pub(crate) struct Tree {
    pub root: PathBuf,
    pub classes: Vec<String>,
    pub train: Vec<Item>,
    pub test: Vec<Item>,
}

impl Tree {
    /// Lists the image files under `root`, whose test split is in the first folder of `test` that
    /// is there.
    pub(crate) fn read(root: &Path, test: &[&str]) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(DataError::io("read", root))?;
        let test_name =
            test.iter().copied().find(|name| root.join(name).is_dir()).unwrap_or(test[0]);
        let layout = format!("PATH/train/CLASS/*.png|jpg and PATH/{test_name}/CLASS/*.png|jpg");
        for split in ["train", test_name] {
            if !root.join(split).is_dir() {
                return Err(DataError::bad(
                    &root,
                    format!("no {split} folder"),
                    layout,
                    format!(
                        "put the {split} images in {split}/CLASS/ (no part of another split is taken in its place)"
                    ),
                ));
            }
        }
        let folder = root.join("train");
        let classes = sub_folders(&folder)?;
        if classes.len() < 2 {
            let found = format!("{} class folders", classes.len());
            return Err(DataError::bad(
                folder,
                found,
                "2 or more, each with images",
                "make one sub-folder a class",
            ));
        }
        let train = list(&folder, &classes, &classes)?;
        let folder = root.join(test_name);
        let present = sub_folders(&folder)?;
        if let Some(unknown) = present.iter().find(|c| !classes.contains(c)) {
            return Err(DataError::bad(
                folder.join(unknown),
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
        let test = list(&folder, &present, &classes)?;
        Ok(Self { root, classes, train, test })
    }
}

/// Sorted names of the sub-folders; hidden ones are passed over.
pub(crate) fn sub_folders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
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
            names.push(text.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The images of `present` classes, in turn; labels are positions in `classes`.
fn list(folder: &Path, present: &[String], classes: &[String]) -> Result<Vec<Item>> {
    let per_class: Vec<Vec<Item>> = present
        .par_iter()
        .map(|class| {
            let folder = folder.join(class);
            let label = classes.iter().position(|c| c == class).unwrap_or_default() as u32;
            let mut items = image_files(&folder, label)?;
            if items.is_empty() {
                let fix = "add some or remove the folder";
                return Err(DataError::bad(
                    folder,
                    "no images",
                    "files ending in .png, .jpg or .jpeg",
                    fix,
                ));
            }
            items.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(items)
        })
        // All of them first: of several defects the first in order is named, whichever thread is
        // quickest.
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<Result<_>>()?;
    Ok(in_turn(per_class))
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
    let mut items = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io("read", folder))? {
        let path = entry.map_err(DataError::io("read", folder))?.path();
        if !is_image(&path) {
            continue;
        }
        let meta = fs::metadata(&path).map_err(DataError::io("read", &path))?;
        // Opening a named pipe would wait for ever.
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
    Ok(items)
}

/// Whether a file's name is that of an image; hidden files are passed over.
pub(crate) fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    !hidden && matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
}
