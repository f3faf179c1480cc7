//! The CIFAR archives, binary or Python, read from the `.tar.gz` in place or from the folder that
//! it unpacks to.
//!
//! Binary: records of one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then
//! 3072 bytes: 32x32 red, green and blue planes. Python: pickles with the same planes in a NumPy
//! array and a list of labels (<https://www.cs.toronto.edu/~kriz/cifar.html>). Nothing is written
//! from an archive, and no pickle is run.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::{Parts, find_file, find_folder, is_damage, missing, pickle};
use crate::error::{DataError, Result, one_line};
use crate::info::Info;
use crate::split::Split;

const PIXELS: usize = 3 * 32 * 32;

/// Which of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Cifar10,
    Cifar100,
}

/// How the images are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Python,
}

/// A file of images: its name and whether it is for training.
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

    /// The folder in the archive.
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

/// Reads the first of: the binary archive, the Python archive, their unpacked folders.
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

/// The members' bytes, in the order of [`Layout::members`].
type Contents = Vec<Option<Vec<u8>>>;

impl Set<'_> {
    fn bad(&self, found: String, expected: String) -> DataError {
        DataError::bad(
            self.path,
            found,
            expected,
            format!("get it again with {}", self.info.how_to_get()),
        )
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

    /// Images of a member.
    fn images(&self, train: bool) -> usize {
        let files = self.members().iter().filter(|(_, t)| *t == train).count();
        if train { self.info.train / files } else { self.info.test / files }
    }

    /// Bytes that a member has at least and at most.
    fn size(&self, train: bool) -> (u64, u64) {
        let n = self.images(train) as u64;
        match self.format {
            Format::Binary => (n * self.record() as u64, n * self.record() as u64),
            // The pickles also hold labels and file names, 34 bytes an image in the official ones;
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

    /// The members of the archive. A path in it is only compared, by its last part.
    fn unpack(&self) -> Result<Contents> {
        let members = self.members();
        let mut contents: Contents = vec![None; members.len()];
        let file = File::open(self.path).map_err(DataError::io("read", self.path))?;
        // A cap on what is unpacked, so that a forged archive cannot keep the decoder busy for
        // ever; the true ones hold under 1 MiB besides the images.
        let cap = members.iter().map(|(_, train)| self.size(*train).1).sum::<u64>() + (16 << 20);
        let mut archive =
            Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(cap));
        // Raw: long names, which the reader would take into memory whole, are not looked at.
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
        // To the end of the file, for the gzip checksum.
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
                            // The fine label is the last.
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
mod tests {
    use super::super::pickle::tests::python2;
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn info(layout: Layout) -> Info {
        let name = if layout == Layout::Cifar10 { "cifar10" } else { "cifar100" };
        Info { train: 10, test: 2, ..crate::find(name).unwrap() }
    }

    fn member(layout: Layout, records: usize, first: u8) -> Vec<u8> {
        (0..records)
            .flat_map(|i| {
                let label = first + i as u8;
                let mut record = vec![label; PIXELS + 1];
                if layout == Layout::Cifar100 {
                    record.insert(0, 19);
                }
                record
            })
            .collect()
    }

    fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Not through `set_path`, which refuses the hostile ones.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, &bytes[..]).unwrap();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar.into_inner().unwrap()).unwrap();
        encoder.finish().unwrap()
    }

    fn good10() -> Vec<(&'static str, Vec<u8>)> {
        let batch = |k: u8| member(Layout::Cifar10, 2, 2 * k);
        vec![
            ("cifar-10-batches-bin/batches.meta.txt", b"airplane\n".to_vec()),
            ("cifar-10-batches-bin/data_batch_1.bin", batch(0)),
            ("cifar-10-batches-bin/data_batch_2.bin", batch(1)),
            ("cifar-10-batches-bin/data_batch_4.bin", batch(3)),
            ("cifar-10-batches-bin/data_batch_5.bin", batch(4)),
            ("cifar-10-batches-bin/test_batch.bin", batch(2)),
            ("cifar-10-batches-bin/data_batch_3.bin", batch(2)),
        ]
    }

    /// The same in pickles.
    fn python10() -> Vec<(&'static str, Vec<u8>)> {
        let batch = |k: u8| {
            let data: Vec<u8> = [2 * k, 2 * k + 1].iter().flat_map(|&l| [l; PIXELS]).collect();
            python2(2, PIXELS, &data, &[2 * k, 2 * k + 1], "labels")
        };
        vec![
            ("cifar-10-batches-py/batches.meta", b"not looked at".to_vec()),
            ("cifar-10-batches-py/data_batch_5", batch(4)),
            ("cifar-10-batches-py/data_batch_1", batch(0)),
            ("cifar-10-batches-py/data_batch_2", batch(1)),
            ("cifar-10-batches-py/data_batch_3", batch(2)),
            ("cifar-10-batches-py/data_batch_4", batch(3)),
            ("cifar-10-batches-py/test_batch", batch(2)),
        ]
    }

    fn read_as(file: &str, bytes: &[u8], layout: Layout) -> Result<Parts> {
        let dir = tempfile::tempdir().unwrap();
        let info = info(layout);
        let set = dir.path().join(&info.name);
        fs::create_dir(&set).unwrap();
        fs::write(set.join(file), bytes).unwrap();
        let result = open(&info, dir.path(), layout);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written");
        result
    }

    fn read_bytes(bytes: &[u8], layout: Layout) -> Result<Parts> {
        read_as(&info(layout).sources[0].file, bytes, layout)
    }

    fn message(members: &[(&str, Vec<u8>)]) -> String {
        read_bytes(&archive(members), Layout::Cifar10).err().unwrap().to_string()
    }

    fn is_good(parts: &Parts) {
        let labels: Vec<u32> = (0..10).map(|i| parts.train.label(i)).collect();
        assert_eq!(labels, (0..10).collect::<Vec<_>>());
        assert!(
            (0..10).all(|i| parts.train.image(i).unwrap().iter().all(|&v| usize::from(v) == i))
        );
        assert_eq!((parts.test.len(), parts.test.label(1)), (2, 5));
    }

    #[test]
    fn batches_are_joined_by_name_not_by_place() {
        is_good(&read_bytes(&archive(&good10()), Layout::Cifar10).unwrap());
    }

    #[test]
    fn the_python_archive_and_unpacked_folders_give_the_same() {
        is_good(
            &read_as("cifar-10-python.tar.gz", &archive(&python10()), Layout::Cifar10).unwrap(),
        );
        for members in [good10(), python10()] {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in &members {
                // Where torchvision's root would be.
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            is_good(&open(&info(Layout::Cifar10), dir.path(), Layout::Cifar10).unwrap());
            fs::remove_file(dir.path().join(members[3].0)).unwrap();
            let error = open(&info(Layout::Cifar10), dir.path(), Layout::Cifar10)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("found no data_batch_"), "{error}");
        }
    }

    #[test]
    fn the_fine_label_is_used() {
        let members = [
            ("cifar-100-binary/train.bin", member(Layout::Cifar100, 10, 80)),
            ("cifar-100-binary/test.bin", member(Layout::Cifar100, 2, 98)),
        ];
        let parts = read_bytes(&archive(&members), Layout::Cifar100).unwrap();
        assert_eq!((parts.train.label(9), parts.test.label(1)), (89, 99));
        assert_eq!(parts.train.image(0).unwrap()[0], 80);
        let python = |n: usize, first: u8| {
            let labels: Vec<u8> = (0..n).map(|i| first + i as u8).collect();
            python2(n, PIXELS, &vec![first; n * PIXELS], &labels, "fine_labels")
        };
        let members =
            [("cifar-100-python/train", python(10, 80)), ("cifar-100-python/test", python(2, 98))];
        let parts =
            read_as("cifar-100-python.tar.gz", &archive(&members), Layout::Cifar100).unwrap();
        assert_eq!(
            (parts.train.label(9), parts.test.label(1), parts.train.image(0).unwrap()[0]),
            (89, 99, 80)
        );
    }

    #[test]
    fn each_corruption_has_its_line() {
        let mut short = good10();
        short[1].1.pop();
        assert!(
            message(&short).contains(
                "found 6145 bytes in data_batch_1.bin; expected 6146 (2 records of 3073)"
            )
        );
        assert!(
            message(&good10()[..6])
                .contains("found no data_batch_3.bin; expected the CIFAR-10 archive")
        );
        let mut label = good10();
        label[2].1[3073] = 10;
        assert!(
            message(&label)
                .contains("found label 10 in record 1 of data_batch_2.bin; expected 0 to 9")
        );
        let mut twice = good10();
        twice.push(twice[1].clone());
        assert!(message(&twice).contains("data_batch_1.bin twice"));
        let whole = archive(&good10());
        for cut in [0, 5, 40, whole.len() / 2, whole.len() - 9] {
            let error = read_bytes(&whole[..cut], Layout::Cifar10).err().unwrap().to_string();
            assert!(
                error.contains("sora data fetch cifar10") && !error.contains('\n'),
                "{cut}: {error}"
            );
        }
        let error = read_bytes(b"<html>", Layout::Cifar10).err().unwrap().to_string();
        assert!(error.contains("a broken archive"), "{error}");
    }

    #[test]
    fn a_dangerous_pickle_is_refused() {
        let mut members = python10();
        let mut evil = b"cos\nsystem\n(U\x04ls /tR.".to_vec();
        evil.resize(2 * PIXELS + 10, b'.');
        members[1].1 = evil;
        let error = read_as("cifar-10-python.tar.gz", &archive(&members), Layout::Cifar10)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(
                "found a pickle that asks for os.system, which was not run in data_batch_5"
            ),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }

    #[test]
    fn paths_in_an_archive_lead_nowhere() {
        let mut members = good10();
        members.push(("../../../escaped.txt", b"no".to_vec()));
        members.push(("/tmp/escaped.txt", b"no".to_vec()));
        is_good(&read_bytes(&archive(&members), Layout::Cifar10).unwrap());
    }

    #[test]
    fn a_bomb_is_cut_off() {
        // 200 MB of zeros as a long-name record, which the tar reader would take into memory whole.
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(200 << 20);
        header.set_cksum();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(header.as_bytes()).unwrap();
        for _ in 0..200 {
            encoder.write_all(&vec![b'a'; 1 << 20]).unwrap();
        }
        assert!(read_bytes(&encoder.finish().unwrap(), Layout::Cifar10).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_archives(python: bool, hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let (name, members) = if python { ("cifar-10-python.tar.gz", python10()) } else { ("cifar-10-binary.tar.gz", good10()) };
            let mut file = archive(&members);
            for (at, value) in hits {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Ok(parts) = read_as(name, &file, Layout::Cifar10) {
                prop_assert_eq!(parts.train.len(), 10);
            }
        }
    }
}
