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

use super::files::{find_file, is_damage, missing, read_exactly};
use super::parts::Parts;
use crate::error::{DataError, Fix, Result};
use crate::info::{Info, Reader};
use crate::options::OpenOptions;
use crate::picture::{Fit, Picture, Pictures, planes};
use crate::split::Split;
use crate::text::{one_line, shown};

/// NumPy writes headers of 118 bytes for such arrays.
const MAX_HEADER: usize = 4096;

/// Findings of an image of ChestMNIST.
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
        tracing::info!("unpacking {} ({} MiB) to {}", self.member, want >> 20, shown(raw));
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
mod tests;
