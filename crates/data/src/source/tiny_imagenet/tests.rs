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
        (ANNOTATIONS.into(), b"val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t1\t1\t9\t9\n".to_vec()),
        ("val/images/val_0.JPEG".into(), jpeg(200)),
        ("val/images/val_1.JPEG".into(), jpeg(100)),
        ("test/images/test_0.JPEG".into(), jpeg(9)),
    ];
    for (class, first) in [("n2", 20), ("n1", 10)] {
        files.push((format!("train/{class}/{class}_boxes.txt"), b"x".to_vec()));
        for k in 0..2u8 {
            files.push((format!("train/{class}/images/{class}_{k}.JPEG"), jpeg(first + 100 * k)));
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
        assert!(error.ends_with("; get it again") && !error.contains('\n'), "{error}");
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
    // Decoding a bad image gives an error with its name.
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

#[test]
fn a_small_archive_does_not_unpack_to_much() {
    let mut all = files();
    let bomb = vec![0; 40 << 20];
    all.iter_mut().find(|(name, _)| name.ends_with(".JPEG")).unwrap().1 = bomb;
    let (_dir, path) = in_zip(&zipped(&all));
    let error = run(&path, &OpenOptions::default()).err().unwrap().to_string();
    assert!(error.contains("MiB of image files"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_archives(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
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
