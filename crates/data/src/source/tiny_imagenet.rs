//! Tiny ImageNet: `tiny-imagenet-200.zip`, read in place, or the folder that it unpacks to.
//!
//! `train/CLASS/images/*.JPEG` (and boxes, which are not read), `val/images/*.JPEG` with the
//! classes in `val/val_annotations.txt` (file, class and box of each, tab-separated), `words.txt`
//! with the classes' names. The official test split has no labels; the validation split serves as
//! test split. The archive's files are kept in memory as they are (about 240 MB) and decoded on
//! demand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use zip::ZipArchive;
use zip::result::ZipError;

use super::encoded::{InMemory, MAX_FILE, OnDisk};
use super::tree::{image_files, in_turn, is_image, sub_folders};
use super::{Parts, find_file, find_folder, is_damage, missing};
use crate::error::{DataError, Result, one_line};
use crate::info::Info;
use crate::open::{Channels, OpenOptions};
use crate::picture::{Fit, Pictures};
use crate::split::Split;

const FOLDER: &str = "tiny-imagenet-200";
const ANNOTATIONS: &str = "val/val_annotations.txt";
/// Most bytes of the lists, and of all image files together (the true ones: 1 MB and 240 MB).
const MAX_LIST: u64 = 16 << 20;
const MAX_IMAGES: u64 = 1 << 30;

/// A split: file names and labels, in turn.
type Listed = Vec<(String, u32)>;

pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    if let Some(zip) = info.sources.first().and_then(|s| find_file(info, data_dir, &s.file)) {
        let mut archive = Zip::open(&zip, info)?;
        let names: Vec<String> =
            archive.zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let images = |prefix: &str| -> Vec<(String, String)> {
            // PREFIX/CLASS/images/FILE, wherever the archive's top folder lies.
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
            let folder = root.join("train").join(&class).join("images");
            train.extend(
                image_files(&folder, 0)?
                    .into_iter()
                    .map(|item| (class.clone(), item.path.to_string_lossy().into_owned())),
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
            // The name comes from a list: it must be a plain file name.
            let path = root.join("val/images").join(Path::new(file).file_name()?);
            path.is_file().then(|| path.to_string_lossy().into_owned())
        };
        let (classes, train, test) = lists(info, &root, train, annotations.as_deref(), at)?;
        info.classes = named(classes, list("words.txt")?.as_deref());
        let split = |listed: Listed, limit: Option<usize>| {
            let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
            let (paths, labels): (Vec<_>, Vec<_>) =
                listed.into_iter().take(n).map(|(path, label)| (path.into(), label)).unzip();
            on_demand(Arc::new(OnDisk { paths, channels: Channels::Rgb }), labels, info)
        };
        return Ok(Parts {
            train: split(train, options.limit_train)?,
            test: split(test, options.limit_test)?,
        });
    }
    Err(missing(info, data_dir))
}

fn on_demand(pictures: Arc<dyn Pictures>, labels: Vec<u32>, info: &Info) -> Result<Split> {
    // All are of 64x64; one that is not is refused by name.
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
    let bad = |found: String, expected: &str| {
        DataError::bad(place, found, expected, format!("get it again with {}", info.how_to_get()))
    };
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
            place.display(),
            train.len(),
            test.len(),
            info.train,
            info.test
        );
    }
    Ok((classes, train, test))
}

/// Class identifiers with the first of their names, as `n01443537 goldfish`.
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

/// The archive and what to say of it.
struct Zip<'a> {
    zip: ZipArchive<BufReader<File>>,
    path: &'a Path,
    fix: String,
}

impl<'a> Zip<'a> {
    fn open(path: &'a Path, info: &Info) -> Result<Self> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let fix = format!("get it again with {}", info.how_to_get());
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| broken(path, &fix, e))?;
        Ok(Self { zip, path, fix })
    }

    fn text(&mut self, name: &str) -> Result<String> {
        let entry = self.zip.by_name(name).map_err(|e| broken(self.path, &self.fix, e))?;
        read_text(entry).map_err(|e| broken(self.path, &self.fix, ZipError::Io(e)))
    }

    /// The first `limit` files as a split.
    fn read(&mut self, listed: Listed, limit: Option<usize>, info: &Info) -> Result<Split> {
        let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
        let mut bytes = Vec::new();
        let mut files = Vec::with_capacity(n);
        let mut labels = Vec::with_capacity(n);
        for (name, label) in listed.into_iter().take(n) {
            let start = bytes.len();
            let entry = self.zip.by_name(&name).map_err(|e| broken(self.path, &self.fix, e))?;
            let cap = MAX_FILE.min(MAX_IMAGES.saturating_sub(start as u64)) + 1;
            let read = entry
                .take(cap)
                .read_to_end(&mut bytes)
                .map_err(|e| broken(self.path, &self.fix, ZipError::Io(e)))?;
            if read as u64 == cap {
                let found = format!("more than {} MiB of image files", (start as u64 + cap) >> 20);
                return Err(DataError::bad(
                    self.path,
                    found,
                    "the official archive",
                    self.fix.clone(),
                ));
            }
            files.push((name, start..bytes.len()));
            labels.push(label);
        }
        on_demand(Arc::new(InMemory { archive: self.path.to_owned(), bytes, files }), labels, info)
    }
}

fn broken(path: &Path, fix: &str, error: ZipError) -> DataError {
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
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;
    use std::fs;
    use std::io::{Cursor, Write};
    use std::path::PathBuf;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn jpeg(value: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(64, 64, Rgb([value; 3]))
            .write_to(&mut bytes, image::ImageFormat::Jpeg)
            .unwrap();
        bytes.into_inner()
    }

    /// Names and contents.
    type Files = Vec<(String, Vec<u8>)>;

    /// Two classes with two training images and one validation image each.
    fn files() -> Files {
        let mut files = vec![
            ("wnids.txt".to_owned(), b"n2\nn1\n".to_vec()),
            ("words.txt".into(), b"n1\tgoldfish, Carassius auratus\nn3\tother\n".to_vec()),
            (
                ANNOTATIONS.into(),
                b"val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t1\t1\t9\t9\n".to_vec(),
            ),
            ("val/images/val_0.JPEG".into(), jpeg(200)),
            ("val/images/val_1.JPEG".into(), jpeg(100)),
            ("test/images/test_0.JPEG".into(), jpeg(9)),
        ];
        for (class, first) in [("n2", 20), ("n1", 10)] {
            files.push((format!("train/{class}/{class}_boxes.txt"), b"x".to_vec()));
            for k in 0..2u8 {
                files.push((
                    format!("train/{class}/images/{class}_{k}.JPEG"),
                    jpeg(first + 100 * k),
                ));
            }
        }
        files
    }

    fn zipped(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(format!("{FOLDER}/{name}"), SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn info() -> Info {
        Info { num_classes: 2, train: 4, test: 2, ..crate::find("tiny-imagenet").unwrap() }
    }

    fn run(dir: &Path, options: &OpenOptions<'_>) -> Result<(Info, Parts)> {
        let mut info = info();
        let parts = open(&mut info, dir, options)?;
        Ok((info, parts))
    }

    fn in_zip(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tiny-imagenet")).unwrap();
        fs::write(dir.path().join("tiny-imagenet/tiny-imagenet-200.zip"), bytes).unwrap();
        let path = dir.path().to_owned();
        (dir, path)
    }

    fn check(result: Result<(Info, Parts)>) {
        let (info, parts) = result.unwrap();
        assert_eq!(info.classes, ["n1 goldfish", "n2"]);
        let read = |split: &Split| -> Vec<(u32, u8)> {
            (0..split.len()).map(|i| (split.label(i), split.image(i).unwrap()[5])).collect()
        };
        assert_eq!(read(&parts.train), [(0, 10), (1, 20), (0, 110), (1, 120)]);
        assert_eq!(read(&parts.test), [(0, 100), (1, 200)]);
        assert_eq!(parts.train.shape(), [3, 64, 64]);
    }

    #[test]
    fn zip_and_folder_give_the_same() {
        let (_dir, path) = in_zip(&zipped(&files()));
        check(run(&path, &OpenOptions::default()));
        let limited =
            run(&path, &OpenOptions { limit_train: Some(3), ..Default::default() }).unwrap().1;
        assert_eq!((limited.train.len(), limited.test.len()), (3, 2));
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files() {
            let file = dir.path().join(FOLDER).join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        check(run(dir.path(), &OpenOptions::default()));
    }

    #[test]
    fn each_defect_has_its_line() {
        let message = |change: &dyn Fn(&mut Files)| {
            let mut all = files();
            change(&mut all);
            let (_dir, path) = in_zip(&zipped(&all));
            let error = run(&path, &OpenOptions::default()).err().unwrap().to_string();
            assert!(
                error.contains("sora data fetch tiny-imagenet") && !error.contains('\n'),
                "{error}"
            );
            error
        };
        assert!(
            message(&|f| f.retain(|(n, _)| !n.contains("train/n1")))
                .contains("found 1 classes in train/")
        );
        assert!(
            message(&|f| f.retain(|(n, _)| n != ANNOTATIONS))
                .contains("found no val/val_annotations.txt")
        );
        assert!(
            message(&|f| f[2].1 = b"val_0.JPEG\n".to_vec())
                .contains("line 1 of val/val_annotations.txt without a class")
        );
        assert!(
            message(&|f| f[2].1 = b"val_0.JPEG\tn9\t0\n".to_vec()).contains("class 'n9' in line 1")
        );
        assert!(
            message(&|f| f[2].1 = b"../../../etc/passwd\tn1\n".to_vec())
                .contains("no val/images/../../../etc/passwd")
        );
        assert!(message(&|f| f[2].1 = vec![]).contains("no line in val/"));
        let (_dir, path) = in_zip(b"<html>");
        assert!(
            run(&path, &OpenOptions::default())
                .err()
                .unwrap()
                .to_string()
                .contains("a broken zip archive")
        );
        // A bad image is told when it is decoded, by name.
        let mut all = files();
        all[3].1 = b"no image".to_vec();
        let (_dir, path) = in_zip(&zipped(&all));
        let parts = run(&path, &OpenOptions::default()).unwrap().1;
        assert!(
            parts
                .test
                .image(1)
                .unwrap_err()
                .to_string()
                .contains("as tiny-imagenet-200/val/images/val_0.JPEG")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_archives(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut file = zipped(&files());
            for (at, value) in hits {
                let at = at.index(file.len());
                file[at] = value;
            }
            let (_dir, path) = in_zip(&file);
            if let Ok((_, parts)) = run(&path, &OpenOptions::default()) {
                for i in 0..parts.train.len() {
                    let _ = parts.train.image(i);
                }
            }
        }
    }
}
