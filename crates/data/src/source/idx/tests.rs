use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::fs;
use std::io::Write;

const DIMS: [usize; 3] = [5, 4, 3];

fn idx(dims: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = (0x0800 + dims.len() as u32).to_be_bytes().to_vec();
    dims.iter().for_each(|&d| file.extend((d as u32).to_be_bytes()));
    file.extend(bytes);
    file
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images() -> Vec<u8> {
    idx(&DIMS, &(0..60).collect::<Vec<u8>>())
}

fn read(file: &[u8], dims: &[usize]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, file).unwrap();
    read_bytes(&path, dims, &"fetch it again".into())
}

#[test]
fn plain_and_gzipped() {
    assert_eq!(read(&images(), &DIMS).unwrap(), (0..60).collect::<Vec<u8>>());
    assert_eq!(read(&gz(&images()), &DIMS).unwrap(), (0..60).collect::<Vec<u8>>());
}

#[test]
fn each_corruption_has_its_line() {
    let good = images();
    let zipped = gz(&good);
    let patched = |at: usize, with: &[u8]| {
        let mut file = good.clone();
        file[at..at + with.len()].copy_from_slice(with);
        file
    };
    let mut wrong_crc = zipped.clone();
    let at = wrong_crc.len() - 8;
    wrong_crc[at] ^= 1;
    let longer = [&good[..], &[0]].concat();
    for (file, wanted) in [
        (vec![], "only 0 bytes; expected an IDX header of 16 bytes"),
        (good[..10].to_vec(), "only 10 bytes"),
        (patched(2, &[9]), "magic number 0x00000903; expected 0x00000803"),
        (idx(&[5], &[0; 5]), "magic number 0x00000801; expected 0x00000803"),
        (
            patched(4, &[0xff; 12]),
            "a header for 4294967295 x 4294967295 x 4294967295 pixels; expected 5 x 4 x 3 pixels",
        ),
        (patched(7, &[6]), "a header for 6 x 4 x 3 pixels; expected 5 x 4 x 3"),
        (good[..75].to_vec(), "the data end after 59 bytes; expected 60 bytes (5 x 4 x 3)"),
        (longer.clone(), "more than 60 bytes"),
        (gz(&longer), "more than 60 bytes"),
        (zipped[..zipped.len() - 20].to_vec(), "a broken gzip stream"),
        (zipped[..6].to_vec(), "a broken gzip stream"),
        (wrong_crc, "a broken gzip stream"),
        (b"<html>not found</html>".to_vec(), "magic number 0x3c68746d"),
    ] {
        let error = read(&file, &DIMS).unwrap_err().to_string();
        assert!(
            error.contains(wanted) && error.ends_with("; fetch it again") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn labels_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels");
    fs::write(&path, idx(&[3], &[0, 9, 10])).unwrap();
    assert_eq!(read_labels(&path, 3, 11, &"x".into()).unwrap(), [0, 9, 10]);
    let error = read_labels(&path, 3, 10, &"fetch it again".into()).unwrap_err().to_string();
    assert!(
        error.ends_with("labels: found label 10 at item 2; expected 0 to 9; fetch it again"),
        "{error}"
    );
}

proptest! {
    /// Any damage gives the true bytes or an error; never a panic.
    #[test]
    fn damaged_files(
        zip: bool, cut in 0usize..200,
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut file = if zip { gz(&images()) } else { images() };
        for (at, value) in hits {
            let at = at.index(file.len());
            file[at] = value;
        }
        file.truncate(cut.max(1));
        if let Ok(bytes) = read(&file, &DIMS) {
            prop_assert_eq!(bytes.len(), 60);
        }
    }

    #[test]
    fn arbitrary_files(file in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&file, &DIMS).is_err());
    }
}

/// A small set in its four files, to test finding and combining them.
fn write_set(dir: &Path, info: &Info) {
    fs::create_dir_all(dir).unwrap();
    for (prefix, n) in [("train", info.train), ("t10k", info.test)] {
        fs::write(
            dir.join(format!("{prefix}-images-idx3-ubyte.gz")),
            gz(&idx(&[n, 28, 28], &vec![7; n * 784])),
        )
        .unwrap();
        let labels: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
        fs::write(dir.join(format!("{prefix}-labels-idx1-ubyte")), idx(&[n], &labels)).unwrap();
    }
}

#[test]
fn a_set_is_found_in_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let info = Info { train: 30, test: 12, ..crate::find("mnist").unwrap() };
    let set = dir.path().join("mnist");
    write_set(&set, &info);
    let parts = open(&info, dir.path()).unwrap();
    assert_eq!((parts.train.len(), parts.test.len(), parts.test.label(11)), (30, 12, 1));

    let error = open(&Info { test: 13, ..info.clone() }, dir.path()).err().unwrap().to_string();
    assert!(
        error.contains(
            "t10k-images-idx3-ubyte.gz: found a header for 12 x 28 x 28 pixels; expected 13 x"
        ),
        "{error}"
    );

    fs::remove_file(set.join("t10k-labels-idx1-ubyte")).unwrap();
    let error = open(&info, dir.path()).err().unwrap().to_string();
    assert!(error.contains("t10k-labels-idx1-ubyte.gz is in none of"), "{error}");
}
