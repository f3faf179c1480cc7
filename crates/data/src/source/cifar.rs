//! The CIFAR binary archives, read from the `.tar.gz` in place.
//!
//! Records of one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then 3072 bytes: 32x32 red, green
//! and blue planes (<https://www.cs.toronto.edu/~kriz/cifar.html>).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::{Parts, is_damage};
use crate::error::{DataError, Result, one_line, shown};
use crate::info::Info;
use crate::split::Split;

const PIXELS: usize = 3 * 32 * 32;

/// Which of the two archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Cifar10,
    Cifar100,
}

impl Layout {
    /// The members that hold images: file name, whether it is for training, and its part of the split.
    fn members(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Cifar10 => &[
                ("data_batch_1.bin", true),
                ("data_batch_2.bin", true),
                ("data_batch_3.bin", true),
                ("data_batch_4.bin", true),
                ("data_batch_5.bin", true),
                ("test_batch.bin", false),
            ],
            Self::Cifar100 => &[("train.bin", true), ("test.bin", false)],
        }
    }

    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }
}

pub(crate) fn open(info: &Info, data_dir: &Path, layout: Layout) -> Result<Parts> {
    let folder = data_dir.join(&info.name);
    let file = info.sources.first().map_or("", |s| s.file.as_str());
    let path = folder.join(file);
    if !path.is_file() {
        return Err(DataError::Missing { name: info.name.clone(), file: file.to_owned(), looked: shown(&folder), get: info.how_to_get() });
    }
    read(&path, info, layout)
}

fn read(path: &Path, info: &Info, layout: Layout) -> Result<Parts> {
    let fix = format!("get it again with {}", info.how_to_get());
    let bad = |found: String, expected: String| DataError::bad(path, found, expected, fix.as_str());
    let broken = |e: io::Error| {
        if is_damage(&e) {
            bad(format!("a broken archive ({})", one_line(&e.to_string())), "a whole .tar.gz file".into())
        } else {
            DataError::io("read", path)(e)
        }
    };
    let members = layout.members();
    let record = layout.label_bytes() + PIXELS;
    let count = |train: bool| members.iter().filter(|(_, t)| *t == train).count();
    let size_of = |train: bool| if train { info.train / count(true) } else { info.test / count(false) } * record;

    let mut contents: Vec<Option<Vec<u8>>> = vec![None; members.len()];
    let file = File::open(path).map_err(DataError::io("read", path))?;
    // A cap on what is unpacked, so that a forged archive cannot keep the decoder busy for ever; the true ones hold
    // under 1 MiB besides the images.
    let cap = (info.train + info.test) * record + (16 << 20);
    let mut archive = Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(cap as u64));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.file_name().map(|n| n.to_string_lossy().into_owned());
        let Some(at) = members.iter().position(|(member, _)| name.as_deref() == Some(*member)) else { continue };
        let (name, train) = members[at];
        let want = size_of(train);
        if entry.size() != want as u64 {
            return Err(bad(format!("{} bytes in {name}", entry.size()), format!("{want} ({} records of {record})", want / record)));
        }
        if contents[at].is_some() {
            return Err(bad(format!("{name} twice"), "each member once".into()));
        }
        let mut bytes = Vec::with_capacity(want);
        entry.read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() != want {
            return Err(bad(format!("{name} ends after {} bytes", bytes.len()), format!("{want} bytes")));
        }
        contents[at] = Some(bytes);
    }
    // To the end of the file, for the gzip checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;

    let mut build = |train: bool| {
        let n = if train { info.train } else { info.test };
        let mut images = Vec::with_capacity(n * PIXELS);
        let mut labels = Vec::with_capacity(n);
        for (content, (name, _)) in contents.iter_mut().zip(members).filter(|(_, (_, t))| *t == train) {
            let bytes = content.take().ok_or_else(|| bad(format!("no {name}"), format!("the {} archive", info.title)))?;
            for (i, record) in bytes.chunks_exact(record).enumerate() {
                let (label, pixels) = record.split_at(layout.label_bytes());
                // The fine label is the last.
                let label = label.last().copied().unwrap_or_default();
                if usize::from(label) >= info.num_classes {
                    let expected = format!("0 to {}", info.num_classes - 1);
                    return Err(bad(format!("label {label} in record {i} of {name}"), expected));
                }
                labels.push(u32::from(label));
                images.extend_from_slice(pixels);
            }
        }
        Split::new(images, labels, [3, 32, 32], info.num_classes)
    };
    Ok(Parts { train: build(true)?, test: build(false)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::fs;
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
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
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

    fn read_bytes(bytes: &[u8], layout: Layout) -> Result<Parts> {
        let dir = tempfile::tempdir().unwrap();
        let info = info(layout);
        let set = dir.path().join(&info.name);
        fs::create_dir(&set).unwrap();
        fs::write(set.join(&info.sources[0].file), bytes).unwrap();
        open(&info, dir.path(), layout)
    }

    fn message(members: &[(&str, Vec<u8>)]) -> String {
        read_bytes(&archive(members), Layout::Cifar10).err().unwrap().to_string()
    }

    #[test]
    fn batches_are_joined_by_name_not_by_place() {
        let parts = read_bytes(&archive(&good10()), Layout::Cifar10).unwrap();
        let labels: Vec<u32> = (0..10).map(|i| parts.train.label(i)).collect();
        assert_eq!(labels, (0..10).collect::<Vec<_>>());
        assert!((0..10).all(|i| parts.train.image(i).iter().all(|&v| usize::from(v) == i)));
        assert_eq!((parts.test.len(), parts.test.label(1)), (2, 5));
    }

    #[test]
    fn the_fine_label_is_used() {
        let members = [
            ("cifar-100-binary/train.bin", member(Layout::Cifar100, 10, 80)),
            ("cifar-100-binary/test.bin", member(Layout::Cifar100, 2, 98)),
        ];
        let parts = read_bytes(&archive(&members), Layout::Cifar100).unwrap();
        assert_eq!((parts.train.label(9), parts.test.label(1)), (89, 99));
        assert_eq!(parts.train.image(0)[0], 80);
    }

    #[test]
    fn each_corruption_has_its_line() {
        let mut short = good10();
        short[1].1.pop();
        assert!(message(&short).contains("found 6145 bytes in data_batch_1.bin; expected 6146 (2 records of 3073)"));
        assert!(message(&good10()[..6]).contains("found no data_batch_3.bin; expected the CIFAR-10 archive"));
        let mut label = good10();
        label[2].1[3073] = 10;
        assert!(message(&label).contains("found label 10 in record 1 of data_batch_2.bin; expected 0 to 9"));
        let mut twice = good10();
        twice.push(twice[1].clone());
        assert!(message(&twice).contains("data_batch_1.bin twice"));
        let whole = archive(&good10());
        for cut in [0, 5, 40, whole.len() / 2, whole.len() - 9] {
            let error = read_bytes(&whole[..cut], Layout::Cifar10).err().unwrap().to_string();
            assert!(error.contains("sora data fetch cifar10") && !error.contains('\n'), "{cut}: {error}");
        }
        let error = read_bytes(b"<html>", Layout::Cifar10).err().unwrap().to_string();
        assert!(error.contains("a broken archive"), "{error}");
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
        fn damaged_archives(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut file = archive(&good10());
            for (at, value) in hits {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Ok(parts) = read_bytes(&file, Layout::Cifar10) {
                prop_assert_eq!(parts.train.len(), 10);
            }
        }
    }
}
