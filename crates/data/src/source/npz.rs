//! MedMNIST's `.npz` files: a zip archive of NumPy arrays `train_images`, `train_labels`,
//! `test_images`, `test_labels` (and a validation part, which is left alone: the validation split
//! of a run is taken from train).
//!
//! Images are `uint8` of shape `[N, S, S]` or `[N, S, S, 3]` with S = 28, 64, 128 or 224, labels
//! `uint8` of shape `[N, 1]` (ChestMNIST: `[N, 14]`, a finding each, reduced to whether there is
//! any). The array format:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Sets whose pixels do
//! not fit in [`OpenOptions::max_memory`] are unpacked to the data folder once and read from there
//! on demand.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::{Parts, find_file, is_damage, missing, read_exactly};
use crate::error::{DataError, Result, one_line};
use crate::info::{Info, Reader};
use crate::open::OpenOptions;
use crate::picture::{Fit, Picture, Pictures, planes};
use crate::split::Split;

/// NumPy writes headers of 118 bytes for such arrays.
const MAX_HEADER: usize = 4096;

/// Findings of an image of ChestMNIST.
const FINDINGS: usize = 14;

pub(crate) fn open(info: &Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let file = info.sources.first().map_or("", |s| s.file.as_str());
    let path = find_file(info, data_dir, file).ok_or_else(|| missing(info, data_dir))?;
    let file = File::open(&path).map_err(DataError::io("read", &path))?;
    let fix = format!("get it again with {}", info.how_to_get());
    let place = Place { path: &path, fix: &fix };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| place.broken(e))?;
    let shape = [info.channels, info.height, info.width];
    let pixels: usize = shape.iter().product();
    let in_memory = (info.train + info.test) as u64 * pixels as u64 <= options.max_memory;
    let mut split = |name: &str, n: usize| {
        let [c, h, w] = shape;
        let member = format!("{name}_images.npy");
        let labels_member = format!("{name}_labels.npy");
        // Versions of the sets differ by a few images; the labels say how many there are here.
        let per_image = if info.reader == Reader::Findings { FINDINGS } else { 1 };
        let labels = Array { member: &labels_member, most: 2 * n, item: &[per_image] }
            .read(&mut archive, &place)?;
        let labels: Vec<u8> = match info.reader {
            Reader::Findings => labels
                .chunks_exact(FINDINGS)
                .map(|row| u8::from(row.iter().any(|&finding| finding != 0)))
                .collect(),
            _ => labels,
        };
        if labels.len() != n {
            tracing::warn!(
                "{}: {} {name} images, the official set has {n}",
                path.display(),
                labels.len()
            );
        }
        let n = labels.len();
        let item = if c == 1 { vec![h, w] } else { vec![h, w, c] };
        let array = Array { member: &member, most: n, item: &item };
        if let Some((i, label)) =
            labels.iter().enumerate().find(|(_, l)| usize::from(**l) >= info.num_classes)
        {
            return Err(place.bad(
                format!("label {label} at item {i} of {labels_member}"),
                format!("0 to {}", info.num_classes - 1),
            ));
        }
        let labels = labels.into_iter().map(u32::from).collect();
        if in_memory {
            let mut images = array.read(&mut archive, &place)?;
            if c > 1 {
                images
                    .par_chunks_exact_mut(pixels)
                    .for_each(|image| image.copy_from_slice(&planes(image, c)));
            }
            return Split::new(images, labels, shape, info.num_classes);
        }
        let raw = data_dir.join(info.folder()).join(format!("{}-{name}.raw", info.name));
        array.unpack(&mut archive, &raw, &place)?;
        let file = File::open(&raw).map_err(DataError::io("read", &raw))?;
        Split::on_demand(
            Arc::new(Raw { file: Mutex::new(file), path: raw, shape, n }),
            Fit::Exact,
            labels,
            shape,
            info.num_classes,
        )
    };
    Ok(Parts { train: split("train", info.train)?, test: split("test", info.test)? })
}

/// The bytes of an array in a file of their own.
#[derive(Debug)]
struct Raw {
    file: Mutex<File>,
    path: PathBuf,
    shape: [usize; 3],
    n: usize,
}

impl Pictures for Raw {
    fn picture(&self, i: usize) -> Result<Picture> {
        if i >= self.n {
            return Err(DataError::value("image index", i, format!("below {}", self.n)));
        }
        let [channels, height, width] = self.shape;
        let mut bytes = vec![0; channels * height * width];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file
            .seek(SeekFrom::Start(i as u64 * bytes.len() as u64))
            .and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        read.map_err(DataError::io("read", &self.path))?;
        Picture::new(height, width, channels, bytes)
    }
}

/// The file that errors speak of.
struct Place<'a> {
    path: &'a Path,
    fix: &'a str,
}

impl Place<'_> {
    fn bad(&self, found: String, expected: String) -> DataError {
        DataError::bad(self.path, found, expected, self.fix)
    }

    fn broken(&self, error: ZipError) -> DataError {
        match error {
            ZipError::Io(error) => self.failed(error),
            other => self.bad(
                format!("a broken zip archive ({})", one_line(&other.to_string())),
                "a whole .npz file".into(),
            ),
        }
    }

    fn failed(&self, error: io::Error) -> DataError {
        if is_damage(&error) {
            self.bad(
                format!("a broken zip archive ({})", one_line(&error.to_string())),
                "a whole .npz file".into(),
            )
        } else {
            DataError::io("read", self.path)(error)
        }
    }
}

/// What an array must be: `uint8` in C order, some items of the shape `item`.
struct Array<'a> {
    member: &'a str,
    /// Most items.
    most: usize,
    item: &'a [usize],
}

impl Array<'_> {
    fn described(&self) -> String {
        format!("uint8 in C order, 1 to {} items of shape {:?}", self.most, self.item)
    }

    fn bad(&self, found: &str, place: &Place<'_>) -> DataError {
        place.bad(format!("{}: {found}", self.member), self.described())
    }

    /// The array's data, and how many bytes they must be.
    fn open<'z, R: Read + Seek>(
        &self,
        archive: &'z mut ZipArchive<R>,
        place: &Place<'_>,
    ) -> Result<(ZipFile<'z, R>, usize)> {
        let mut entry = archive.by_name(self.member).map_err(|e| match e {
            ZipError::FileNotFound => {
                place.bad(format!("no {}", self.member), "a MedMNIST .npz file".into())
            }
            other => place.broken(other),
        })?;
        let mut start = [0; 8];
        let mut length = [0; 4];
        entry.read_exact(&mut start).map_err(|e| place.failed(e))?;
        let wide = start[6] > 1;
        entry.read_exact(&mut length[..if wide { 4 } else { 2 }]).map_err(|e| place.failed(e))?;
        let length = u32::from_le_bytes(length) as usize;
        if !start.starts_with(b"\x93NUMPY") || length > MAX_HEADER {
            return Err(self.bad("no NumPy array", place));
        }
        let mut header = vec![0; length];
        entry.read_exact(&mut header).map_err(|e| place.failed(e))?;
        let header = String::from_utf8_lossy(&header);
        let items = items(&header, self.item).filter(|n| (1..=self.most).contains(n));
        let items = items
            .ok_or_else(|| self.bad(&format!("an array with header {}", header.trim()), place))?;
        Ok((entry, items * self.item.iter().product::<usize>()))
    }

    /// All its bytes.
    fn read(
        &self,
        archive: &mut ZipArchive<impl Read + Seek>,
        place: &Place<'_>,
    ) -> Result<Vec<u8>> {
        let (mut entry, want) = self.open(archive, place)?;
        read_exactly(&mut entry, want)
            .map_err(|e| place.failed(e))?
            .map_err(|found| self.bad(&found, place))
    }

    /// Writes its bytes to `raw`, unless they are there and not older than the archive.
    fn unpack(
        &self,
        archive: &mut ZipArchive<impl Read + Seek>,
        raw: &Path,
        place: &Place<'_>,
    ) -> Result<()> {
        let (mut entry, want) = self.open(archive, place)?;
        let age = |path: &Path| {
            fs::metadata(path)
                .ok()
                .and_then(|m| Some((m.len(), m.modified().ok()?.duration_since(UNIX_EPOCH).ok()?)))
        };
        if let (Some((length, written)), Some((_, packed))) = (age(raw), age(place.path))
            && length == want as u64
            && written >= packed
        {
            return Ok(());
        }
        tracing::info!("unpacking {} ({} MiB) to {}", self.member, want >> 20, raw.display());
        let folder = raw.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
        // Beside its place and renamed: a kill leaves nothing that could be taken for whole.
        let mut out = tempfile::Builder::new()
            .prefix(".unpacked-")
            .tempfile_in(folder)
            .map_err(DataError::io("write", raw))?;
        let mut done = 0;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(place.failed(e)),
            };
            done += n;
            if done > want {
                return Err(self.bad(&format!("more than {want} bytes"), place));
            }
            out.write_all(&buffer[..n]).map_err(DataError::io("write", raw))?;
        }
        if done < want {
            return Err(self.bad(&format!("the data end after {done} bytes"), place));
        }
        out.persist(raw).map_err(|e| DataError::io("write", raw)(e.error))?;
        Ok(())
    }
}

/// The length of the first dimension, if a header, a Python dictionary, is that of a `uint8` array
/// in C order of items of the shape given.
fn items(header: &str, item: &[usize]) -> Option<usize> {
    let text: String = header
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| if c == '"' { '\'' } else { c })
        .collect();
    let (_, rest) = text.split_once("'shape':(")?;
    let shape: Vec<usize> = rest
        .split_once(')')?
        .0
        .split(',')
        .filter(|d| !d.is_empty())
        .map(|d| d.parse().ok())
        .collect::<Option<_>>()?;
    let (items, found) = shape.split_first()?;
    (text.contains("'descr':'|u1'") && text.contains("'fortran_order':False") && found == item)
        .then_some(*items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn npy(dims: &[usize], bytes: &[u8]) -> Vec<u8> {
        let shape: String = dims.iter().map(|d| format!("{d}, ")).collect();
        let mut header = format!(
            "{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}",
            shape.trim_end()
        );
        header.push_str(&" ".repeat(117 - header.len()));
        header.push('\n');
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), bytes]
            .concat()
    }

    fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn info() -> Info {
        Info { train: 3, test: 2, ..crate::find("pathmnist").unwrap() }
    }

    fn good() -> Vec<(&'static str, Vec<u8>)> {
        let images = |n: usize| {
            (0..n * 28 * 28 * 3)
                .map(|i| (i % 3) as u8 * 100 + (i / (28 * 28 * 3)) as u8)
                .collect::<Vec<u8>>()
        };
        vec![
            ("train_images.npy", npy(&[3, 28, 28, 3], &images(3))),
            ("val_images.npy", b"left alone".to_vec()),
            ("test_images.npy", npy(&[2, 28, 28, 3], &images(2))),
            ("train_labels.npy", npy(&[3, 1], &[8, 0, 5])),
            ("test_labels.npy", npy(&[2, 1], &[1, 2])),
        ]
    }

    fn read(file: &[u8]) -> Result<Parts> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pathmnist")).unwrap();
        fs::write(dir.path().join("pathmnist/pathmnist.npz"), file).unwrap();
        open(&info(), dir.path(), &OpenOptions::default())
    }

    fn message(file: &[u8]) -> String {
        let message = read(file).err().unwrap().to_string();
        assert!(
            !message.contains('\n')
                && message.ends_with("get it again with `sora data fetch pathmnist`"),
            "{message}"
        );
        message
    }

    #[test]
    fn findings_become_two_classes() {
        let mut rows = [0; 3 * FINDINGS];
        (rows[FINDINGS], rows[FINDINGS + 9], rows[3 * FINDINGS - 1]) = (1, 1, 1);
        let file = |labels: &[u8], columns| {
            npz(&[
                ("train_images.npy", npy(&[3, 28, 28], &[7; 3 * 784])),
                ("test_images.npy", npy(&[1, 28, 28], &[7; 784])),
                ("train_labels.npy", npy(&[3, columns], labels)),
                ("test_labels.npy", npy(&[1, columns], &labels[..columns])),
            ])
        };
        let read = |file: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("chestmnist")).unwrap();
            fs::write(dir.path().join("chestmnist/chestmnist.npz"), file).unwrap();
            open(
                &Info { train: 3, test: 1, ..crate::find("chestmnist").unwrap() },
                dir.path(),
                &OpenOptions::default(),
            )
        };
        let parts = read(&file(&rows, FINDINGS)).unwrap();
        assert_eq!((0..3).map(|i| parts.train.label(i)).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!((parts.test.label(0), parts.train.num_classes()), (0, 2));
        assert!(read(&file(&rows[..3], 1)).err().unwrap().to_string().contains("train_labels.npy"));
    }

    #[test]
    fn images_become_planes() {
        let parts = read(&npz(&good())).unwrap();
        assert_eq!((parts.train.len(), parts.test.len(), parts.train.shape()), (3, 2, [3, 28, 28]));
        assert_eq!((0..3).map(|i| parts.train.label(i)).collect::<Vec<_>>(), [8, 0, 5]);
        for (channel, plane) in parts.train.image(2).unwrap().chunks(784).enumerate() {
            assert!(plane.iter().all(|&v| usize::from(v) == channel * 100 + 2));
        }
    }

    #[test]
    fn each_corruption_has_its_line() {
        let with = |at: usize, bytes: Vec<u8>| {
            let mut members = good();
            members[at].1 = bytes;
            npz(&members)
        };
        assert!(message(&npz(&good()[..4])).contains("found no test_labels.npy"));
        assert!(
            message(&with(3, npy(&[3, 1], &[8, 9, 0])))
                .contains("label 9 at item 1 of train_labels.npy; expected 0 to 8")
        );
        assert!(
            message(&with(3, npy(&[2, 1], &[0; 2])))
                .contains("train_images.npy: an array with header {'descr': '|u1'")
        );
        assert!(
            message(&with(3, npy(&[3, 2], &[0; 6])))
                .contains("train_labels.npy: an array with header {'descr': '|u1'")
        );
        assert!(
            message(&with(3, npy(&[1 << 40, 1], &[0; 6])))
                .contains("expected uint8 in C order, 1 to 6 items of shape [1]")
        );
        assert!(message(&with(3, npy(&[3, 1], &[0; 2]))).contains("the data end after 2 bytes"));
        assert!(message(&with(3, npy(&[3, 1], &[0; 4]))).contains("more than 3 bytes"));
        assert!(
            message(&with(3, b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()))
                .contains("no NumPy array")
        );
        assert!(message(&with(3, b"GIF".to_vec())).contains("a broken zip archive"));
        let wrong_type = String::from_utf8_lossy(&npy(&[3, 1], &[]))
            .into_owned()
            .replace("|u1", "<f8")
            .into_bytes();
        assert!(message(&with(3, [b"\x93", &wrong_type[3..]].concat())).contains("<f8"));
        let file = npz(&good());
        assert!(message(&file[..file.len() / 2]).contains("a broken zip archive"));
        assert!(message(b"<html>").contains("a broken zip archive"));
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        assert_eq!(
            items(
                "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }   \n",
                &[28, 28]
            ),
            Some(3)
        );
        assert_eq!(
            items("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", &[]),
            Some(3)
        );
        for wrong in [
            "{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }",
            "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 1), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (x,), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
            "{'descr': '|u1', 'fortran_order': False}",
        ] {
            assert_eq!(items(wrong, &[]), None, "{wrong}");
        }
    }

    #[test]
    fn another_version_has_another_number_of_images() {
        let mut other = good();
        other[2].1 = npy(&[1, 28, 28, 3], &[9; 28 * 28 * 3]);
        other[4].1 = npy(&[1, 1], &[4]);
        let parts = read(&npz(&other)).unwrap();
        assert_eq!((parts.train.len(), parts.test.len(), parts.test.label(0)), (3, 1, 4));
    }

    #[test]
    fn large_sets_are_unpacked_once_to_the_same_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("pathmnist/pathmnist.npz");
        fs::create_dir(dir.path().join("pathmnist")).unwrap();
        fs::write(&archive, npz(&good())).unwrap();
        let small = OpenOptions { max_memory: 100, ..Default::default() };
        let kept = open(&info(), dir.path(), &OpenOptions::default()).unwrap();
        let raw = dir.path().join("pathmnist/pathmnist-train.raw");
        assert!(!raw.exists());
        for _ in 0..2 {
            let on_demand = open(&info(), dir.path(), &small).unwrap();
            assert!(on_demand.train.is_on_demand());
            for (a, b) in [(&kept.train, &on_demand.train), (&kept.test, &on_demand.test)] {
                assert!((0..a.len()).all(
                    |i| a.image(i).unwrap() == b.image(i).unwrap() && a.label(i) == b.label(i)
                ));
            }
        }
        // A part is not taken for the whole, and an older one not for the new.
        fs::write(&raw, b"cut off").unwrap();
        assert_eq!(
            open(&info(), dir.path(), &small).unwrap().train.image(2).unwrap(),
            kept.train.image(2).unwrap()
        );
        let mut other = good();
        other[0].1 = npy(&[3, 28, 28, 3], &[7; 3 * 28 * 28 * 3]);
        fs::write(&archive, npz(&other)).unwrap();
        File::options().append(true).open(&raw).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(open(&info(), dir.path(), &small).unwrap().train.image(0).unwrap()[0], 7);
        let mut short = good();
        short[0].1 = npy(&[3, 28, 28, 3], &[7; 100]);
        fs::write(&archive, npz(&short)).unwrap();
        File::options().append(true).open(&raw).unwrap().set_modified(UNIX_EPOCH).unwrap();
        let error = open(&info(), dir.path(), &small).err().unwrap().to_string();
        assert!(error.contains("train_images.npy: the data end after 100 bytes"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn damaged_files(
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut file = npz(&good());
            for (at, value) in hits {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            if let Ok(parts) = read(&file) {
                prop_assert!(parts.train.len() <= 6 && parts.test.len() <= 4);
            }
        }
    }
}
