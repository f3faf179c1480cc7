//! The CIFAR archives, binary or Python. They are read from the `.tar.gz` in place, or from the
//! folder that it unpacks to.
//!
//! Binary: records of one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then
//! 3072 bytes: 32x32 red, green and blue planes. Python: pickles with the same planes in a NumPy
//! array and a list of labels (<https://www.cs.toronto.edu/~kriz/cifar.html>). The reader writes no
//! file and runs no pickle.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::files::{find_file, find_folder, is_damage, missing};
use super::parts::Parts;
use super::pickle;
use crate::error::{DataError, Result};
use crate::info::Info;
use crate::split::Split;
use crate::text::one_line;

const PIXELS: usize = 3 * 32 * 32;

/// Which of the two CIFAR sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Cifar10,
    Cifar100,
}

/// The format of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Python,
}

/// A file of images: its name, and whether it belongs to the training split.
type Member = (&'static str, bool);

impl Layout {
    fn members(self, format: Format) -> &'static [Member] {
        match (self, format) {
            (Self::Cifar10, Format::Binary) => &[
                ("data_batch_1.bin", true),
                ("data_batch_2.bin", true),
                ("data_batch_3.bin", true),
                ("data_batch_4.bin", true),
                ("data_batch_5.bin", true),
                ("test_batch.bin", false),
            ],
            (Self::Cifar10, Format::Python) => &[
                ("data_batch_1", true),
                ("data_batch_2", true),
                ("data_batch_3", true),
                ("data_batch_4", true),
                ("data_batch_5", true),
                ("test_batch", false),
            ],
            (Self::Cifar100, Format::Binary) => &[("train.bin", true), ("test.bin", false)],
            (Self::Cifar100, Format::Python) => &[("train", true), ("test", false)],
        }
    }

    /// The name of the folder in the archive.
    fn folder(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Cifar10, Format::Binary) => "cifar-10-batches-bin",
            (Self::Cifar10, Format::Python) => "cifar-10-batches-py",
            (Self::Cifar100, Format::Binary) => "cifar-100-binary",
            (Self::Cifar100, Format::Python) => "cifar-100-python",
        }
    }

    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }
}

/// Reads the first of these that exists: the binary archive, the Python archive, their unpacked
/// folders.
pub(crate) fn open(info: &Info, data_dir: &Path, layout: Layout) -> Result<Parts> {
    let formats = [Format::Binary, Format::Python];
    for (format, source) in formats.into_iter().zip(info.sources.iter().chain(&info.also)) {
        if let Some(path) = find_file(info, data_dir, &source.file) {
            let set = Set { path: &path, info, layout, format };
            return set.build(set.unpack()?);
        }
    }
    for format in formats {
        if let Some(path) = find_folder(info, data_dir, layout.folder(format)) {
            let set = Set { path: &path, info, layout, format };
            return set.build(set.read_folder()?);
        }
    }
    Err(missing(info, data_dir))
}

struct Set<'a> {
    path: &'a Path,
    info: &'a Info,
    layout: Layout,
    format: Format,
}

/// The bytes of the members, in the order of [`Layout::members`].
type Contents = Vec<Option<Vec<u8>>>;

impl Set<'_> {
    fn bad(&self, found: String, expected: String) -> DataError {
        DataError::bad(self.path, found, expected, self.info.get_again())
    }

    fn broken(&self, error: io::Error) -> DataError {
        if is_damage(&error) {
            self.bad(
                format!("a broken archive ({})", one_line(&error.to_string())),
                "a whole .tar.gz file".into(),
            )
        } else {
            DataError::io("read", self.path)(error)
        }
    }

    fn members(&self) -> &'static [Member] {
        self.layout.members(self.format)
    }

    fn record(&self) -> usize {
        self.layout.label_bytes() + PIXELS
    }

    /// Number of images of a member.
    fn images(&self, train: bool) -> usize {
        let files = self.members().iter().filter(|(_, t)| *t == train).count();
        if train { self.info.train / files } else { self.info.test / files }
    }

    /// Least and greatest number of bytes of a member.
    fn size(&self, train: bool) -> (u64, u64) {
        let n = self.images(train) as u64;
        match self.format {
            Format::Binary => (n * self.record() as u64, n * self.record() as u64),
            // The pickles also hold labels and file names, 34 bytes an image in the official files.
            // Python 3 writes bytes in protocol 2 as text, which takes up to twice the room.
            Format::Python => (n * PIXELS as u64, n * (2 * PIXELS as u64 + 256) + (64 << 10)),
        }
    }

    fn check_size(&self, name: &str, train: bool, found: u64) -> Result<()> {
        let (least, most) = self.size(train);
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let records = self.images(train);
        let expected = match self.format {
            Format::Binary => format!("{least} ({records} records of {})", self.record()),
            Format::Python => format!("{least} to {most} ({records} images)"),
        };
        Err(self.bad(format!("{found} bytes in {name}"), expected))
    }

    /// Reads the members from the archive. A path in it is only compared, by its last part.
    fn unpack(&self) -> Result<Contents> {
        let members = self.members();
        let mut contents: Contents = vec![None; members.len()];
        let file = File::open(self.path).map_err(DataError::io("read", self.path))?;
        // The cap on unpacked bytes keeps a forged archive from occupying the decoder for ever. The
        // official archives hold under 1 MiB besides the images.
        let cap = members.iter().map(|(_, train)| self.size(*train).1).sum::<u64>() + (16 << 20);
        let mut archive =
            Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(cap));
        // A raw iteration skips long-name records, which the reader would otherwise take into
        // memory whole.
        for entry in archive.entries().map_err(|e| self.broken(e))?.raw(true) {
            let mut entry = entry.map_err(|e| self.broken(e))?;
            let name = entry
                .path()
                .map_err(|e| self.broken(e))?
                .file_name()
                .map(|n| n.to_string_lossy().into_owned());
            let Some(at) = members.iter().position(|(member, _)| name.as_deref() == Some(*member))
            else {
                continue;
            };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let (name, train) = members[at];
            let size = entry.size();
            self.check_size(name, train, size)?;
            if contents[at].is_some() {
                return Err(self.bad(format!("{name} twice"), "each member once".into()));
            }
            let mut bytes = Vec::with_capacity(size as usize);
            entry.read_to_end(&mut bytes).map_err(|e| self.broken(e))?;
            if bytes.len() as u64 != size {
                return Err(self.bad(
                    format!("{name} ends after {} bytes", bytes.len()),
                    format!("{size} bytes"),
                ));
            }
            contents[at] = Some(bytes);
        }
        // Read to the end of the file, so that the decoder checks the gzip checksum.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| self.broken(e))?;
        Ok(contents)
    }

    fn read_folder(&self) -> Result<Contents> {
        let read = |&(name, train): &Member| {
            let path = self.path.join(name);
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => self.check_size(name, train, meta.len())?,
                _ => return Ok(None),
            }
            fs::read(&path).map(Some).map_err(DataError::io("read", &path))
        };
        self.members().iter().map(read).collect()
    }

    fn build(&self, mut contents: Contents) -> Result<Parts> {
        let mut build = |train: bool| {
            let n = if train { self.info.train } else { self.info.test };
            let mut images = Vec::with_capacity(n * PIXELS);
            let mut labels = Vec::with_capacity(n);
            for (content, &(name, _)) in
                contents.iter_mut().zip(self.members()).filter(|(_, (_, t))| *t == train)
            {
                let bytes = content.take().ok_or_else(|| {
                    self.bad(format!("no {name}"), format!("the {} archive", self.info.title))
                })?;
                let before = labels.len();
                match self.format {
                    Format::Binary => {
                        for record in bytes.chunks_exact(self.record()) {
                            let (label, pixels) = record.split_at(self.layout.label_bytes());
                            // The fine label is the last one.
                            labels.push(label.last().copied().map_or(0, i64::from));
                            images.extend_from_slice(pixels);
                        }
                    }
                    Format::Python => {
                        let n = self.images(train);
                        let expected =
                            || format!("{n} labels and an array of {n} x {PIXELS} bytes");
                        let batch = pickle::read_batch(&bytes)
                            .map_err(|found| self.bad(format!("{found} in {name}"), expected()))?;
                        if batch.shape != [n, PIXELS] || batch.labels.len() != n {
                            let [rows, columns] = batch.shape;
                            let found = format!(
                                "{} labels and an array of {rows} x {columns} in {name}",
                                batch.labels.len()
                            );
                            return Err(self.bad(found, expected()));
                        }
                        labels.extend(batch.labels);
                        images.extend(batch.data);
                    }
                }
                let wrong = labels
                    .iter()
                    .enumerate()
                    .skip(before)
                    .find(|(_, l)| !(0..self.info.num_classes as i64).contains(l));
                if let Some((i, label)) = wrong {
                    let expected = format!("0 to {}", self.info.num_classes - 1);
                    return Err(self.bad(
                        format!("label {label} in record {} of {name}", i - before),
                        expected,
                    ));
                }
            }
            Split::new(
                images,
                labels.into_iter().map(|l| l as u32).collect(),
                [3, 32, 32],
                self.info.num_classes,
            )
        };
        Ok(Parts { train: build(true)?, test: build(false)? })
    }
}

#[cfg(test)]
mod tests;
