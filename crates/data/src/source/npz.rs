//! MedMNIST's `.npz` files: a zip archive of NumPy arrays `train_images`, `train_labels`, `test_images`, `test_labels`
//! (and a validation part, which is left alone: the validation split of a run is taken from train).
//!
//! Images are `uint8` of shape `[N, 28, 28]` or `[N, 28, 28, 3]`, labels `uint8` of shape `[N, 1]`. The array format:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use rayon::prelude::*;
use zip::ZipArchive;
use zip::result::ZipError;

use super::{Parts, is_damage, read_exactly};
use crate::error::{DataError, Result, one_line, shown};
use crate::info::Info;
use crate::split::Split;

/// NumPy writes headers of 118 bytes for such arrays.
const MAX_HEADER: usize = 4096;

pub(crate) fn open(info: &Info, data_dir: &Path) -> Result<Parts> {
    let folder = data_dir.join(&info.name);
    let file = info.sources.first().map_or("", |s| s.file.as_str());
    let path = folder.join(file);
    if !path.is_file() {
        return Err(DataError::Missing { name: info.name.clone(), file: file.to_owned(), looked: shown(&folder), get: info.how_to_get() });
    }
    let file = File::open(&path).map_err(DataError::io("read", &path))?;
    let fix = format!("get it again with {}", info.how_to_get());
    let place = Place { path: &path, fix: &fix };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| place.broken(e))?;
    let mut split = |name: &str, n: usize| {
        let [c, h, w] = [info.channels, info.height, info.width];
        let dims = if c == 1 { vec![n, h, w] } else { vec![n, h, w, c] };
        let images = planes(array(&mut archive, &format!("{name}_images.npy"), &dims, &place)?, c, h * w);
        let member = format!("{name}_labels.npy");
        let labels = array(&mut archive, &member, &[n, 1], &place)?;
        if let Some((i, label)) = labels.iter().enumerate().find(|(_, l)| usize::from(**l) >= info.num_classes) {
            return Err(place.bad(format!("label {label} at item {i} of {member}"), format!("0 to {}", info.num_classes - 1)));
        }
        Split::new(images, labels.into_iter().map(u32::from).collect(), [c, h, w], info.num_classes)
    };
    Ok(Parts { train: split("train", info.train)?, test: split("test", info.test)? })
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
            other => self.bad(format!("a broken zip archive ({})", one_line(&other.to_string())), "a whole .npz file".into()),
        }
    }

    fn failed(&self, error: io::Error) -> DataError {
        if is_damage(&error) {
            self.bad(format!("a broken zip archive ({})", one_line(&error.to_string())), "a whole .npz file".into())
        } else {
            DataError::io("read", self.path)(error)
        }
    }
}

/// The bytes of a `uint8` array, which must have the shape `dims`. Allocates for `dims` only.
fn array(archive: &mut ZipArchive<impl Read + Seek>, member: &str, dims: &[usize], place: &Place<'_>) -> Result<Vec<u8>> {
    let mut entry = archive.by_name(member).map_err(|e| match e {
        ZipError::FileNotFound => place.bad(format!("no {member}"), "a MedMNIST .npz file".into()),
        other => place.broken(other),
    })?;
    let expected = format!("uint8 in C order of shape {dims:?}");
    let mut start = [0; 8];
    let mut length = [0; 4];
    entry.read_exact(&mut start).map_err(|e| place.failed(e))?;
    let wide = start[6] > 1;
    entry.read_exact(&mut length[..if wide { 4 } else { 2 }]).map_err(|e| place.failed(e))?;
    let length = u32::from_le_bytes(length) as usize;
    if !start.starts_with(b"\x93NUMPY") || length > MAX_HEADER {
        return Err(place.bad(format!("{member} that is no NumPy array"), expected));
    }
    let mut header = vec![0; length];
    entry.read_exact(&mut header).map_err(|e| place.failed(e))?;
    let header = String::from_utf8_lossy(&header);
    if !describes(&header, dims) {
        return Err(place.bad(format!("{member} with header {}", header.trim()), expected));
    }
    let want = dims.iter().product();
    read_exactly(&mut entry, want).map_err(|e| place.failed(e))?.map_err(|found| place.bad(format!("{member}: {found}"), expected))
}

/// Whether a header, a Python dictionary, is that of a `uint8` array in C order of shape `dims`.
fn describes(header: &str, dims: &[usize]) -> bool {
    let text: String = header.chars().filter(|c| !c.is_whitespace()).map(|c| if c == '"' { '\'' } else { c }).collect();
    let shape: Option<Vec<usize>> = text
        .split_once("'shape':(")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(shape, _)| shape.split(',').filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect());
    text.contains("'descr':'|u1'") && text.contains("'fortran_order':False") && shape.as_deref() == Some(dims)
}

/// Interleaved channels to planes, image by image.
fn planes(images: Vec<u8>, channels: usize, pixels: usize) -> Vec<u8> {
    if channels == 1 {
        return images;
    }
    let mut out = vec![0; images.len()];
    out.par_chunks_exact_mut(channels * pixels).zip(images.par_chunks_exact(channels * pixels)).for_each(|(out, image)| {
        for (channel, plane) in out.chunks_exact_mut(pixels).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(image.chunks_exact(channels)) {
                *value = pixel[channel];
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::io::{Cursor, Write};
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn npy(dims: &[usize], bytes: &[u8]) -> Vec<u8> {
        let shape: String = dims.iter().map(|d| format!("{d}, ")).collect();
        let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
        header.push_str(&" ".repeat(117 - header.len()));
        header.push('\n');
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), bytes].concat()
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
        let images = |n: usize| (0..n * 28 * 28 * 3).map(|i| (i % 3) as u8 * 100 + (i / (28 * 28 * 3)) as u8).collect::<Vec<u8>>();
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
        open(&info(), dir.path())
    }

    fn message(file: &[u8]) -> String {
        let message = read(file).err().unwrap().to_string();
        assert!(!message.contains('\n') && message.ends_with("get it again with `sora data fetch pathmnist`"), "{message}");
        message
    }

    #[test]
    fn images_become_planes() {
        let parts = read(&npz(&good())).unwrap();
        assert_eq!((parts.train.len(), parts.test.len(), parts.train.shape()), (3, 2, [3, 28, 28]));
        assert_eq!((0..3).map(|i| parts.train.label(i)).collect::<Vec<_>>(), [8, 0, 5]);
        for (channel, plane) in parts.train.image(2).chunks(784).enumerate() {
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
        assert!(message(&with(3, npy(&[3, 1], &[8, 9, 0]))).contains("label 9 at item 1 of train_labels.npy; expected 0 to 8"));
        assert!(message(&with(3, npy(&[4, 1], &[0; 4]))).contains("train_labels.npy with header {'descr': '|u1'"));
        assert!(message(&with(3, npy(&[3, 1], &[0; 2]))).contains("the data end after 2 bytes"));
        assert!(message(&with(3, npy(&[3, 1], &[0; 4]))).contains("more than 3 bytes"));
        assert!(message(&with(3, b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec())).contains("no NumPy array"));
        assert!(message(&with(3, b"GIF".to_vec())).contains("a broken zip archive"));
        let wrong_type = String::from_utf8_lossy(&npy(&[3, 1], &[])).into_owned().replace("|u1", "<f8").into_bytes();
        assert!(message(&with(3, [b"\x93", &wrong_type[3..]].concat())).contains("<f8"));
        let file = npz(&good());
        assert!(message(&file[..file.len() / 2]).contains("a broken zip archive"));
        assert!(message(b"<html>").contains("a broken zip archive"));
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        assert!(describes("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }   \n", &[3, 28, 28]));
        assert!(describes("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", &[3]));
        for wrong in [
            "{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }",
            "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 1), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (x,), }",
            "{'descr': '|u1', 'fortran_order': False}",
        ] {
            assert!(!describes(wrong, &[3]), "{wrong}");
        }
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
                prop_assert_eq!((parts.train.len(), parts.test.len()), (3, 2));
            }
        }
    }
}
