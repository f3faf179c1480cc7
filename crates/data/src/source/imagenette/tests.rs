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
    let parts = open(&mut info, dir, &OpenOptions { image_size: Some(8), ..Default::default() })?;
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
        assert!(error.ends_with("; get it again") && !error.contains('\n'), "{error}");
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
    fn damaged_archives(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
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
