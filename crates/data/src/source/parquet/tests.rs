use super::thrift::PageHeader;
use super::*;
use crate::{OpenOptions, open};
use parquet::basic::Compression;
use proptest::prelude::*;
use std::fs;

/// Written by PyArrow (`tests/make_fixtures.py`): 7 PNG files of one colour in 3 row groups
/// with small pages; labels 0 to 2 with names.
const TRAIN: &[u8] = include_bytes!("../../../tests/fixtures/train-00000-of-00001.parquet");
const VALIDATION: &[u8] =
    include_bytes!("../../../tests/fixtures/validation-00000-of-00001.parquet");

fn folder(train: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/train-00000-of-00001.parquet"), train).unwrap();
    fs::write(dir.path().join("data/validation-00000-of-00001.parquet"), VALIDATION).unwrap();
    dir
}

fn opened(train: &[u8], limit_train: Option<usize>) -> Result<(tempfile::TempDir, crate::Dataset)> {
    let dir = folder(train);
    let options = OpenOptions { image_size: Some(4), limit_train, ..Default::default() };
    let data = open(&format!("imagefolder:{}", dir.path().display()), &options)?;
    Ok((dir, data))
}

#[test]
fn rows_of_every_group_are_read_in_any_order() {
    let (_dir, data) = opened(TRAIN, None).unwrap();
    assert_eq!(data.info.classes, ["ant", "bee", "wasp"]);
    assert_eq!((data.train.len(), data.test.len(), data.train.shape()), (7, 2, [3, 4, 4]));
    for i in [6, 0, 3, 5, 1, 2, 4, 0] {
        assert_eq!(
            (data.train.label(i), data.train.image(i).unwrap()[0]),
            (i as u32 % 3, 10 * i as u8),
            "{i}"
        );
    }
    assert_eq!((data.test.label(1), data.test.image(1).unwrap()[0]), (2, 201));
    // A limit takes rows from the whole file.
    let (_dir, few) = opened(TRAIN, Some(3)).unwrap();
    assert_eq!((0..3).map(|i| few.train.image(i).unwrap()[0]).collect::<Vec<_>>(), [0, 20, 40]);
}

#[test]
fn each_defect_has_its_line() {
    let message = |bytes: &[u8]| opened(bytes, None).unwrap_err().to_string();
    for bytes in [
        &b""[..],
        b"PAR1",
        b"<html>no</html>",
        &TRAIN[..TRAIN.len() / 2],
        &TRAIN[..TRAIN.len() - 1],
    ] {
        let error = message(bytes);
        assert!(
            error.contains("train-00000-of-00001.parquet: found what is no whole Parquet file")
                && !error.contains('\n'),
            "{error}"
        );
    }
    let mut renamed = TRAIN.to_vec();
    while let Some(at) = renamed.windows(7).position(|w| w == b"\x18\x05label") {
        renamed[at + 2..at + 7].copy_from_slice(b"lapel");
    }
    let error = message(&renamed);
    assert!(
        error.contains("expected columns image.bytes") || error.contains("no whole Parquet"),
        "{error}"
    );
    let dir = folder(TRAIN);
    fs::remove_file(dir.path().join("data/validation-00000-of-00001.parquet")).unwrap();
    let error = open(&format!("imagefolder:{}", dir.path().display()), &OpenOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected validation-*.parquet"), "{error}");
}

#[test]
fn headers_that_promise_much_are_refused() {
    // Field 2 is the size after decoding: 2^31 - 1.
    let header = |size: &[u8]| {
        [
            &[0x15, 0x00, 0x15],
            size,
            &[0x15, 0x14, 0x2c, 0x15, 0x02, 0x15, 0, 0x15, 0, 0x15, 0, 0, 0],
        ]
        .concat()
    };
    let parsed = PageHeader::parse(&header(&[0xfe, 0xff, 0xff, 0xff, 0x0f])).unwrap();
    assert_eq!((parsed.uncompressed, parsed.compressed, parsed.rows), (i32::MAX, 10, Some(1)));
    assert!(!parsed.is_plausible(Compression::SNAPPY));
    assert!(PageHeader::parse(&header(&[0xff; 11])).is_none());
    assert!(PageHeader::parse(&[0x1c; 100]).is_none(), "nested without end");
}

/// A file of 674 KB that claims 134 million rows took 2.5 GB.
#[test]
fn rows_are_bounded_by_the_bytes_of_the_file() {
    let file = include_bytes!("../../../tests/fixtures/many_rows.parquet");
    let error = opened(file, None).unwrap_err().to_string();
    assert!(error.contains("rows in a file of"), "{error}");
}

#[test]
fn dictionaries_are_bounded_by_their_bytes() {
    let plausible = |compressed, uncompressed, entries| {
        PageHeader { length: 9, compressed, uncompressed, rows: None, entries }
            .is_plausible(Compression::SNAPPY)
    };
    assert!(plausible(100, 1000, Some(250)) && plausible(100, 2464, None));
    assert!(!plausible(100, 1000, Some(251)) && !plausible(100, 2465, None));
    assert!(!plausible(100, 1000, Some(-1)) && !plausible(100, -1, None));
    let stored =
        PageHeader { length: 9, compressed: 10, uncompressed: 11, rows: None, entries: None };
    assert!(!stored.is_plausible(Compression::UNCOMPRESSED));
}

#[test]
fn metadata_are_bounded_by_the_file() {
    let mut file = TRAIN.to_vec();
    let at = file.len() - 8;
    file[at..at + 4].copy_from_slice(&(2u32 << 20).to_le_bytes());
    let error = opened(&file, None).unwrap_err().to_string();
    assert!(error.contains("2097152 bytes of metadata"), "{error}");
}

#[test]
fn labels_from_one_are_classes_from_zero() {
    let (mut train, mut test) = (vec![1, 3, 2], vec![2, 1]);
    let from_one = super::super::imagenet::count_from_zero(&mut train, &mut test);
    assert_eq!((from_one, train, test), (true, vec![0, 2, 1], vec![1, 0]));
    for (train, test) in [(vec![0, 1], vec![1]), (vec![1, 2], vec![0]), (vec![2, 3], vec![2])] {
        let (mut a, mut b) = (train.clone(), test.clone());
        assert!(!super::super::imagenet::count_from_zero(&mut a, &mut b));
        assert_eq!((a, b), (train, test));
    }
    let file = include_bytes!("../../../tests/fixtures/from_one.parquet");
    let (classes, images) = both_splits(file);
    assert_eq!(classes, ["1", "2", "3"]);
    assert_eq!(images, [(0, 10), (2, 20), (1, 30)]);
}

/// The class names, and label and grey value of each training image, where both splits are `file`.
fn both_splits(file: &[u8]) -> (Vec<String>, Vec<(u32, u8)>) {
    let dir = folder(file);
    fs::write(dir.path().join("data/validation-00000-of-00001.parquet"), file).unwrap();
    let options = OpenOptions { image_size: Some(4), ..Default::default() };
    let data = open(&format!("imagefolder:{}", dir.path().display()), &options).unwrap();
    let of = |i| (data.train.label(i), data.train.image(i).unwrap()[0]);
    (data.info.classes.clone(), (0..data.train.len()).map(of).collect())
}

#[test]
fn labels_are_places_in_the_names_of_the_file() {
    let names = ["ant", "bee", "wasp"];
    // No image is an ant.
    let file = include_bytes!("../../../tests/fixtures/named_first_missing.parquet");
    let (classes, images) = both_splits(file);
    assert_eq!(classes, names);
    assert_eq!(images, [(1, 10), (2, 20), (1, 30)]);
    // Label 3 has no name, unless they count from 1.
    let file = include_bytes!("../../../tests/fixtures/named_from_one.parquet");
    let (classes, images) = both_splits(file);
    assert_eq!(classes, names);
    assert_eq!(images, [(0, 10), (2, 20), (1, 30)]);
}

#[test]
fn a_label_is_bounded() {
    let file = include_bytes!("../../../tests/fixtures/huge_label.parquet");
    let error = opened(file, None).unwrap_err().to_string();
    assert!(error.contains("10000001 classes") && error.contains("at most 65536"), "{error}");
}

/// A file whose column says that it has a dictionary and has none; the decoder panics on it.
#[test]
fn a_missing_dictionary_is_an_error() {
    let file = include_bytes!("../../../tests/fixtures/no_dictionary.parquet");
    let read = opened(file, None).and_then(|(_dir, data)| {
        (0..data.train.len()).try_for_each(|i| data.train.image(i).map(drop))
    });
    let error = read.unwrap_err().to_string();
    assert!(error.contains("train-00000-of-00001.parquet") && !error.contains('\n'), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damaged_files(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        tail: bool,
    ) {
        let mut file = TRAIN.to_vec();
        for (at, value) in hits {
            // The metadata are the last third of the file.
            let at = if tail { file.len() - 1 - at.index(file.len() / 3) } else { at.index(file.len()) };
            file[at] = value;
        }
        let dir = folder(&file);
        let name = format!("imagefolder:{}", dir.path().display());
        match open(&name, &OpenOptions { image_size: Some(4), ..Default::default() }) {
            Ok(data) => (0..data.train.len()).for_each(|i| {
                if let Err(error) = data.train.image(i) {
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }),
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        }
    }
}
