//! Imagenette: the `.tgz` archive, whose image files are kept in memory as they are, or the class
//! folders that it unpacks to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};
use std::sync::Arc;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::encoded::{InMemory, MAX_FILE};
use super::imagenet::{Layout, on_demand, split_sizes};
use super::tree::{in_turn, is_image};
use super::{Parts, find_file, find_folder, is_damage, missing};
use crate::error::{DataError, Result, one_line};
use crate::info::Info;
use crate::open::OpenOptions;

/// Most bytes of image files, and of the unpacked archive (the largest true ones: 340 MB).
const MAX_IMAGES: usize = 1 << 30;
const MAX_UNPACKED: u64 = 2 << 30;

pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let source = info.sources.first().map_or("", |s| s.file.as_str()).to_owned();
    if let Some(root) = find_folder(info, data_dir, source.trim_end_matches(".tgz")) {
        return super::imagenet::class_folders(info, &root, options);
    }
    let path = find_file(info, data_dir, &source).ok_or_else(|| missing(info, data_dir))?;
    archive(info, &path, options)
}

/// Class, member and place in the bytes of an image file of a split.
type Found = (String, String, std::ops::Range<usize>);

fn archive(info: &mut Info, path: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let fix = format!("get it again with {}", info.how_to_get());
    let bad = |found: String, expected: &str| DataError::bad(path, found, expected, fix.clone());
    let broken = |e: io::Error| {
        if is_damage(&e) {
            bad(format!("a broken archive ({})", one_line(&e.to_string())), "a whole .tgz file")
        } else {
            DataError::io("read", path)(e)
        }
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let mut archive =
        Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(MAX_UNPACKED));
    let mut bytes = [Vec::new(), Vec::new()];
    let mut found: [Vec<Found>; 2] = [vec![], vec![]];
    // Raw: long names, which the reader would take into memory whole, are not looked at.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path().map_err(broken)?.into_owned();
        let Some((split, class)) = place(&member) else { continue };
        let size = entry.size();
        let name = one_line(&member.to_string_lossy());
        if size > MAX_FILE || bytes[split].len() + size as usize > MAX_IMAGES {
            return Err(bad(format!("{size} bytes in {name}"), "image files of 1 GiB at most"));
        }
        let start = bytes[split].len();
        entry.read_to_end(&mut bytes[split]).map_err(broken)?;
        found[split].push((class, name, start..bytes[split].len()));
    }
    // To the end of the file, for the gzip checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;

    let mut ids: Vec<String> = found[0].iter().map(|(class, ..)| class.clone()).collect();
    ids.sort();
    ids.dedup();
    if ids.len() != info.num_classes {
        return Err(bad(
            format!("{} classes in train/", ids.len()),
            &format!("train/CLASS/*.JPEG of {} classes", info.num_classes),
        ));
    }
    let [train_bytes, test_bytes] = bytes;
    let [train, test] = found;
    let split = |bytes: Vec<u8>, found: Vec<Found>, limit: Option<usize>| {
        let mut by_class = vec![Vec::new(); ids.len()];
        for (class, name, range) in found {
            let label = ids
                .binary_search(&class)
                .map_err(|_| bad(format!("class '{class}' in val/"), "a class of train"))?;
            by_class[label].push((name, range, label as u32));
        }
        by_class
            .iter_mut()
            .for_each(|list: &mut Vec<(String, _, u32)>| list.sort_by(|a, b| a.0.cmp(&b.0)));
        let listed = in_turn(by_class);
        let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
        let (files, labels) =
            listed.into_iter().take(n).map(|(name, range, label)| ((name, range), label)).unzip();
        on_demand(
            Arc::new(InMemory { archive: path.to_owned(), bytes, files }),
            labels,
            info,
            options,
        )
    };
    let counts = [train.len(), test.len()];
    let train = split(train_bytes, train, options.limit_train)?;
    let test = split(test_bytes, test, options.limit_test)?;
    if test.is_empty() {
        return Err(bad("no images in val/".into(), "val/CLASS/*.JPEG"));
    }
    split_sizes(info, path, counts);
    Layout::Ids(ids).name(info);
    Ok(Parts { train, test })
}

/// Split (0: train, 1: val) and class of a member `.../train/CLASS/FILE`.
fn place(member: &Path) -> Option<(usize, String)> {
    let parts: Vec<&str> = member
        .components()
        .map(|c| match c {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let [.., split, class, _] = parts[..] else { return None };
    let split = ["train", "val"].iter().position(|s| *s == split)?;
    is_image(member).then(|| (split, class.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Split;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;
    use std::fs;
    use std::io::{Cursor, Write};

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(40, 30, Rgb([value; 3]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    }

    fn files() -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("imagenette2-160/noisy_imagenette.csv".to_owned(), b"path".to_vec())];
        for (k, class) in ["n01440764", "n02102040"].iter().enumerate() {
            for i in (0..3).rev() {
                files.push((
                    format!("imagenette2-160/train/{class}/{class}_{i}.JPEG"),
                    png((100 * k + i) as u8),
                ));
            }
            files.push((
                format!("imagenette2-160/val/{class}/{class}_7.JPEG"),
                png((100 * k + 50) as u8),
            ));
        }
        files
    }

    fn tgz(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, &bytes[..]).unwrap();
        }
        let mut encoder = tar.into_inner().unwrap();
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    }

    fn run(dir: &Path) -> Result<(Info, Parts)> {
        let mut info =
            Info { num_classes: 2, train: 6, test: 2, ..crate::find("imagenette-160").unwrap() };
        info.classes.truncate(2);
        let parts =
            open(&mut info, dir, &OpenOptions { image_size: Some(8), ..Default::default() })?;
        Ok((info, parts))
    }

    fn packed(bytes: &[u8]) -> Result<(Info, Parts)> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("imagenette2-160.tgz"), bytes).unwrap();
        let result = run(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written");
        result
    }

    fn check(result: Result<(Info, Parts)>) {
        let (info, parts) = result.unwrap();
        assert_eq!(info.classes, ["n01440764 tench", "n02102040 English springer"]);
        let read = |split: &Split| -> Vec<(u32, u8)> {
            (0..split.len()).map(|i| (split.label(i), split.image(i).unwrap()[0])).collect()
        };
        assert_eq!(read(&parts.train), [(0, 0), (1, 100), (0, 1), (1, 101), (0, 2), (1, 102)]);
        assert_eq!(read(&parts.test), [(0, 50), (1, 150)]);
    }

    #[test]
    fn archive_and_folder_give_the_same() {
        check(packed(&tgz(&files())));
        let mut hostile = files();
        hostile.push(("../../train/n01440764/x.JPEG".into(), png(1)));
        hostile.push(("/train/n01440764/x.JPEG".into(), png(1)));
        check(packed(&tgz(&hostile)));
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files() {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        check(run(dir.path()));
    }

    #[test]
    fn each_defect_has_its_line() {
        let message = |bytes: &[u8]| {
            let error = packed(bytes).err().unwrap().to_string();
            assert!(
                error.contains("sora data fetch imagenette-160") && !error.contains('\n'),
                "{error}"
            );
            error
        };
        assert!(message(b"<html>").contains("a broken archive"));
        let whole = tgz(&files());
        assert!(message(&whole[..whole.len() / 2]).contains("a broken archive"));
        let no_val: Vec<_> = files().into_iter().filter(|(n, _)| !n.contains("/val/")).collect();
        assert!(message(&tgz(&no_val)).contains("no images in val/"));
        let one: Vec<_> = files().into_iter().filter(|(n, _)| !n.contains("n01440764")).collect();
        assert!(message(&tgz(&one)).contains("found 1 classes in train/"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_archives(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut file = tgz(&files());
            for (at, value) in hits {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Ok((_, parts)) = packed(&file) {
                for i in 0..parts.train.len() {
                    let _ = parts.train.image(i);
                }
            }
        }
    }
}
