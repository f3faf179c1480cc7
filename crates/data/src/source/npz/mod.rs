//! MedMNIST's `.npz` files: a zip archive of NumPy arrays `train_images`, `train_labels`,
//! `test_images`, `test_labels`. The archive also has a validation part, which is not read: a run
//! takes its validation split from the training images.
//!
//! Images are `uint8` of shape `[N, S, S]` or `[N, S, S, 3]` with S = 28, 64, 128 or 224. Labels
//! are `uint8` of shape `[N, 1]`. ChestMNIST has `[N, 14]`, one column per finding; its class says
//! whether the image has any finding. The array format:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Sets whose pixels do
//! not fit in [`OpenOptions::max_memory`] are unpacked to the data folder once and read from there
//! on demand.

mod raw;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::files::{find_file, is_damage, missing, read_exactly};
use super::parts::Parts;
use crate::error::{DataError, Fix, Result};
use crate::info::{Info, Reader};
use crate::options::OpenOptions;
use crate::picture::{Fit, planes};
use crate::split::Split;
use crate::text::{one_line, shown};
use raw::{Raw, Writer};

/// Largest header of an array in bytes. NumPy writes headers of 118 bytes for such arrays.
const MAX_HEADER: usize = 4096;

/// Number of findings of an image of ChestMNIST.
const FINDINGS: usize = 14;

pub(crate) fn open(info: &Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let file = info.sources.first().map_or("", |s| s.file.as_str());
    let path = find_file(info, data_dir, file).ok_or_else(|| missing(info, data_dir))?;
    let file = File::open(&path).map_err(DataError::io("read", &path))?;
    let fix = info.get_again();
    let place = Place { path: &path, fix: &fix };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| place.broken(e))?;
    let shape = [info.channels, info.height, info.width];
    let pixels: usize = shape.iter().product();
    let in_memory = (info.train + info.test) as u64 * pixels as u64 <= options.max_memory;
    let mut split = |name: &str, n: usize| {
        let [c, h, w] = shape;
        let member = format!("{name}_images.npy");
        let labels_member = format!("{name}_labels.npy");
        // Versions of the sets differ by a few images; the labels give the number in this file.
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
                shown(&path),
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
        let pictures = array.unpacked(&mut archive, &raw, shape, &place)?;
        Split::on_demand(Arc::new(pictures), Fit::Exact, labels, shape, info.num_classes)
    };
    Ok(Parts { train: split("train", info.train)?, test: split("test", info.test)? })
}

/// The file that errors name.
struct Place<'a> {
    path: &'a Path,
    fix: &'a Fix,
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

/// The expected form of an array: `uint8` in C order, a number of items of the shape `item`.
struct Array<'a> {
    member: &'a str,
    /// Largest number of items.
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

    /// The array's data, and their expected number of bytes.
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

    /// Reads all bytes of the array.
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

    /// Opens the array's images in the file `raw`, and writes that file first unless it is there
    /// and belongs to this archive.
    fn unpacked(
        &self,
        archive: &mut ZipArchive<impl Read + Seek>,
        raw: &Path,
        shape: [usize; 3],
        place: &Place<'_>,
    ) -> Result<Raw> {
        let (entry, want) = self.open(archive, place)?;
        let item = shape.iter().product();
        let key = self.key(place)?;
        match Raw::open(raw, &key, shape, want / item) {
            Ok(pictures) => return Ok(pictures),
            Err(reason) if raw.exists() => {
                tracing::info!("unpacking again: {} is not usable: {reason}", shown(raw))
            }
            Err(_) => {}
        }
        tracing::info!("unpacking {} ({} MiB) to {}", self.member, want >> 20, shown(raw));
        let folder = raw.parent().unwrap_or(Path::new("."));
        let out = Writer::new(folder, &key, item).map_err(DataError::io("write", raw))?;
        self.copy(entry, out, want, raw, place)?;
        Raw::open(raw, &key, shape, want / item).map_err(|reason| {
            DataError::bad(raw, reason, "what was just unpacked", "check the disk")
        })
    }

    /// A digest of the archive on disk and of the array, which an unpacked file must carry.
    fn key(&self, place: &Place<'_>) -> Result<[u8; 32]> {
        let meta = fs::metadata(place.path).map_err(DataError::io("read", place.path))?;
        let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mut hash = Sha256::new();
        hash.update(meta.len().to_le_bytes());
        hash.update(changed.map_or(0, |d| d.as_nanos()).to_le_bytes());
        hash.update(self.member);
        Ok(hash.finalize().into())
    }

    /// Copies `want` bytes, which must be all, and gives the file its name `raw`.
    fn copy(
        &self,
        mut entry: impl Read,
        mut out: Writer,
        want: usize,
        raw: &Path,
        place: &Place<'_>,
    ) -> Result<()> {
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
            out.write(&buffer[..n]).map_err(DataError::io("write", raw))?;
        }
        if done < want {
            return Err(self.bad(&format!("the data end after {done} bytes"), place));
        }
        out.finish(raw).map_err(DataError::io("write", raw))
    }
}

/// The length of the first dimension, if `header` (a Python dictionary) describes a `uint8` array
/// in C order of items of the given shape.
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
mod tests;
