//! Tiny ImageNet: `tiny-imagenet-200.zip`, read in place, or the folder that it unpacks to.
//!
//! The set has `train/CLASS/images/*.JPEG` (and boxes, which are not read), `val/images/*.JPEG`
//! with the classes in `val/val_annotations.txt` (file, class and box of each, tab-separated), and
//! `words.txt` with the classes' names. The official test split has no labels, so the validation
//! split serves as test split. The archive's files are kept in memory as they are (about 240 MB)
//! and decoded on demand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use zip::ZipArchive;
use zip::result::ZipError;

use super::encoded::{InMemory, MAX_FILE, OnDisk};
use super::files::{find_file, find_folder, is_damage, missing, most_unpacked};
use super::parts::Parts;
use super::tree::{image_files, in_turn, is_image, sub_folders};
use crate::error::{DataError, Fix, Result};
use crate::info::Info;
use crate::options::{Decoding, OpenOptions};
use crate::picture::{Fit, Pictures};
use crate::split::Split;
use crate::text::{one_line, shown};

const FOLDER: &str = "tiny-imagenet-200";
const ANNOTATIONS: &str = "val/val_annotations.txt";
/// Most bytes of the lists, and of all image files together (the official files: 1 MB and 240 MB).
const MAX_LIST: u64 = 16 << 20;
const MAX_IMAGES: u64 = 1 << 30;

/// A split: the name and label of each file, with the classes in turn.
type Listed = Vec<(String, u32)>;

pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    if let Some(zip) = info.sources.first().and_then(|s| find_file(info, data_dir, &s.file)) {
        let mut archive = Zip::open(&zip, info)?;
        let names: Vec<String> =
            archive.zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let images = |prefix: &str| -> Vec<(String, String)> {
            // The form is PREFIX/CLASS/images/FILE, wherever the archive's top folder lies.
            let part = |name: &str| -> Option<(String, String)> {
                let (_, rest) = name.split_once(prefix)?;
                let [class, "images", file] = rest.split('/').collect::<Vec<_>>()[..] else {
                    return None;
                };
                is_image(Path::new(file)).then(|| (class.to_owned(), name.to_owned()))
            };
            names.iter().filter_map(|name| part(name)).collect()
        };
        let text = |archive: &mut Zip<'_>, file: &str| -> Result<Option<String>> {
            let suffix = format!("/{file}");
            match names.iter().find(|n| n.ends_with(&suffix) || *n == file) {
                Some(name) => archive.text(name).map(Some),
                None => Ok(None),
            }
        };
        let train = images("train/");
        let annotations = text(&mut archive, ANNOTATIONS)?;
        let by_file: HashMap<&str, &String> = names
            .iter()
            .filter_map(|n| Some((n.split_once("val/images/")?.1, n)))
            .filter(|(file, _)| !file.is_empty())
            .collect();
        let (classes, train, test) = lists(info, &zip, train, annotations.as_deref(), |file| {
            by_file.get(file).map(|n| (*n).clone())
        })?;
        info.classes = named(classes, text(&mut archive, "words.txt")?.as_deref());
        let mut read = |listed: Listed, limit: Option<usize>| archive.read(listed, limit, info);
        return Ok(Parts {
            train: read(train, options.limit_train)?,
            test: read(test, options.limit_test)?,
        });
    }
    if let Some(root) = find_folder(info, data_dir, FOLDER) {
        let mut train = Vec::new();
        for class in sub_folders(&root.join("train"))? {
            let folder = class.path.join("images");
            train.extend(
                image_files(&folder, 0)?
                    .into_iter()
                    .map(|item| (class.name.clone(), item.path.to_string_lossy().into_owned())),
            );
        }
        let list = |file: &str| {
            let path = root.join(file);
            match File::open(&path) {
                Ok(file) => read_text(file).map(Some).map_err(DataError::io("read", &path)),
                Err(_) => Ok(None),
            }
        };
        let annotations = list(ANNOTATIONS)?;
        let at = |file: &str| {
            // The name comes from a list, so only a plain file name is accepted.
            let path = root.join("val/images").join(Path::new(file).file_name()?);
            path.is_file().then(|| path.to_string_lossy().into_owned())
        };
        let (classes, train, test) = lists(info, &root, train, annotations.as_deref(), at)?;
        info.classes = named(classes, list("words.txt")?.as_deref());
        let split = |listed: Listed, limit: Option<usize>| {
            let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
            let (paths, labels): (Vec<_>, Vec<_>) =
                listed.into_iter().take(n).map(|(path, label)| (path.into(), label)).unzip();
            on_demand(Arc::new(OnDisk { paths, decoding: Decoding::PUBLISHED }), labels, info)
        };
        return Ok(Parts {
            train: split(train, options.limit_train)?,
            test: split(test, options.limit_test)?,
        });
    }
    Err(missing(info, data_dir))
}

fn on_demand(pictures: Arc<dyn Pictures>, labels: Vec<u32>, info: &Info) -> Result<Split> {
    // All images are 64x64; an image of another size gives an error that names it.
    Split::on_demand(pictures, Fit::Square, labels, [3, info.height, info.width], info.num_classes)
}

/// The sorted classes and both splits from the (class, file) pairs of train and the annotations of
/// val.
fn lists(
    info: &Info,
    place: &Path,
    mut train: Vec<(String, String)>,
    annotations: Option<&str>,
    val: impl Fn(&str) -> Option<String>,
) -> Result<(Vec<String>, Listed, Listed)> {
    let bad =
        |found: String, expected: &str| DataError::bad(place, found, expected, info.get_again());
    train.sort();
    let mut classes: Vec<String> = train.iter().map(|(class, _)| class.clone()).collect();
    classes.dedup();
    if classes.len() != info.num_classes {
        return Err(bad(
            format!("{} classes in train/", classes.len()),
            &format!("train/CLASS/images/*.JPEG of {} classes", info.num_classes),
        ));
    }
    let label = |class: &str| classes.binary_search_by(|c| c.as_str().cmp(class)).ok();
    let mut by_class = vec![Vec::new(); classes.len()];
    for (class, file) in train {
        if let Some(label) = label(&class) {
            by_class[label].push((file, label as u32));
        }
    }
    let annotations =
        annotations.ok_or_else(|| bad(format!("no {ANNOTATIONS}"), "the official layout"))?;
    let mut test = vec![Vec::new(); classes.len()];
    for (line, text) in annotations.lines().enumerate().filter(|(_, text)| !text.trim().is_empty())
    {
        let mut columns = text.split('\t');
        let (Some(file), Some(class)) = (columns.next(), columns.next()) else {
            return Err(bad(
                format!("line {} of {ANNOTATIONS} without a class", line + 1),
                "FILE, a tab, CLASS, ...",
            ));
        };
        let label = label(class).ok_or_else(|| {
            bad(
                format!("class '{}' in line {} of {ANNOTATIONS}", one_line(class), line + 1),
                "a class of train",
            )
        })?;
        let found = val(file).ok_or_else(|| {
            bad(
                format!("no val/images/{}", one_line(file)),
                &format!("the file of line {} of {ANNOTATIONS}", line + 1),
            )
        })?;
        test[label].push((found, label as u32));
    }
    test.iter_mut().for_each(|list| list.sort());
    if test.iter().all(Vec::is_empty) {
        return Err(bad(format!("no line in {ANNOTATIONS}"), "a line an image"));
    }
    let (train, test) = (in_turn(by_class), in_turn(test));
    if (train.len(), test.len()) != (info.train, info.test) {
        tracing::warn!(
            "{}: {} training and {} validation images, the official set has {} and {}",
            shown(place),
            train.len(),
            test.len(),
            info.train,
            info.test
        );
    }
    Ok((classes, train, test))
}

/// Class identifiers, each with the first of its names, such as `n01443537 goldfish`.
fn named(classes: Vec<String>, words: Option<&str>) -> Vec<String> {
    let words: HashMap<&str, &str> =
        words.unwrap_or_default().lines().filter_map(|line| line.split_once('\t')).collect();
    let name = |class: String| match words
        .get(class.as_str())
        .and_then(|names| names.split(',').next())
        .map(str::trim)
    {
        Some(word) if !word.is_empty() => format!("{class} {}", one_line(word)),
        _ => class,
    };
    classes.into_iter().map(name).collect()
}

fn read_text(file: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(MAX_LIST).read_to_string(&mut text)?;
    Ok(text)
}

/// The archive, and the advice for its errors.
struct Zip<'a> {
    zip: ZipArchive<BufReader<File>>,
    path: &'a Path,
    fix: Fix,
    /// Most bytes of the image files of a split.
    most: u64,
}

impl<'a> Zip<'a> {
    fn open(path: &'a Path, info: &Info) -> Result<Self> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        let most = most_unpacked(length).min(MAX_IMAGES);
        let fix = info.get_again();
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| broken(path, &fix, e))?;
        Ok(Self { zip, path, fix, most })
    }

    fn text(&mut self, name: &str) -> Result<String> {
        let entry = self.zip.by_name(name).map_err(|e| broken(self.path, &self.fix, e))?;
        read_text(entry).map_err(|e| broken(self.path, &self.fix, ZipError::Io(e)))
    }

    /// Reads the first `limit` files as a split.
    fn read(&mut self, listed: Listed, limit: Option<usize>, info: &Info) -> Result<Split> {
        let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
        let mut bytes = Vec::new();
        let mut files = Vec::with_capacity(n);
        let mut labels = Vec::with_capacity(n);
        for (name, label) in listed.into_iter().take(n) {
            let start = bytes.len();
            let entry = self.zip.by_name(&name).map_err(|e| broken(self.path, &self.fix, e))?;
            let cap = MAX_FILE.min(self.most.saturating_sub(start as u64)) + 1;
            let read = entry
                .take(cap)
                .read_to_end(&mut bytes)
                .map_err(|e| broken(self.path, &self.fix, ZipError::Io(e)))?;
            if read as u64 == cap {
                let found = format!("more than {} MiB of image files", (start as u64 + cap) >> 20);
                return Err(DataError::bad(self.path, found, "the official archive", &self.fix));
            }
            files.push((name, start..bytes.len()));
            labels.push(label);
        }
        on_demand(
            Arc::new(InMemory {
                archive: self.path.to_owned(),
                bytes,
                files,
                decoding: Decoding::PUBLISHED,
            }),
            labels,
            info,
        )
    }
}

fn broken(path: &Path, fix: &Fix, error: ZipError) -> DataError {
    match error {
        ZipError::Io(error) if !is_damage(&error) => DataError::io("read", path)(error),
        error => DataError::bad(
            path,
            format!("a broken zip archive ({})", one_line(&error.to_string())),
            "a whole .zip file",
            fix,
        ),
    }
}

#[cfg(test)]
mod tests;
