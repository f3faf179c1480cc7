use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write};
use zip::write::{SimpleFileOptions, ZipWriter};

fn npy(dims: &[usize], bytes: &[u8]) -> Vec<u8> {
    let shape: String = dims.iter().map(|d| format!("{d}, ")).collect();
    let mut header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), bytes]
        .concat()
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn info() -> Info {
    Info { train: 3, test: 2, ..crate::find("pathmnist").unwrap() }
}

fn good() -> Vec<(&'static str, Vec<u8>)> {
    let images = |n: usize| {
        (0..n * 28 * 28 * 3)
            .map(|i| (i % 3) as u8 * 100 + (i / (28 * 28 * 3)) as u8)
            .collect::<Vec<u8>>()
    };
    vec![
        ("train_images.npy", npy(&[3, 28, 28, 3], &images(3))),
        ("val_images.npy", b"left alone".to_vec()),
        ("test_images.npy", npy(&[2, 28, 28, 3], &images(2))),
        ("train_labels.npy", npy(&[3, 1], &[8, 0, 5])),
        ("test_labels.npy", npy(&[2, 1], &[1, 2])),
    ]
}

fn read(file: &[u8]) -> Result<Parts> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("pathmnist")).unwrap();
    fs::write(dir.path().join("pathmnist/pathmnist.npz"), file).unwrap();
    open(&info(), dir.path(), &OpenOptions::default())
}

fn message(file: &[u8]) -> String {
    let message = read(file).err().unwrap().to_string();
    assert!(!message.contains('\n') && message.ends_with("get it again"), "{message}");
    message
}

#[test]
fn findings_become_two_classes() {
    let mut rows = [0; 3 * FINDINGS];
    (rows[FINDINGS], rows[FINDINGS + 9], rows[3 * FINDINGS - 1]) = (1, 1, 1);
    let file = |labels: &[u8], columns| {
        npz(&[
            ("train_images.npy", npy(&[3, 28, 28], &[7; 3 * 784])),
            ("test_images.npy", npy(&[1, 28, 28], &[7; 784])),
            ("train_labels.npy", npy(&[3, columns], labels)),
            ("test_labels.npy", npy(&[1, columns], &labels[..columns])),
        ])
    };
    let read = |file: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("chestmnist")).unwrap();
        fs::write(dir.path().join("chestmnist/chestmnist.npz"), file).unwrap();
        open(
            &Info { train: 3, test: 1, ..crate::find("chestmnist").unwrap() },
            dir.path(),
            &OpenOptions::default(),
        )
    };
    let parts = read(&file(&rows, FINDINGS)).unwrap();
    assert_eq!((0..3).map(|i| parts.train.label(i)).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!((parts.test.label(0), parts.train.num_classes()), (0, 2));
    assert!(read(&file(&rows[..3], 1)).err().unwrap().to_string().contains("train_labels.npy"));
}

#[test]
fn images_become_planes() {
    let parts = read(&npz(&good())).unwrap();
    assert_eq!((parts.train.len(), parts.test.len(), parts.train.shape()), (3, 2, [3, 28, 28]));
    assert_eq!((0..3).map(|i| parts.train.label(i)).collect::<Vec<_>>(), [8, 0, 5]);
    for (channel, plane) in parts.train.image(2).unwrap().chunks(784).enumerate() {
        assert!(plane.iter().all(|&v| usize::from(v) == channel * 100 + 2));
    }
}

#[test]
fn each_corruption_has_its_line() {
    let with = |at: usize, bytes: Vec<u8>| {
        let mut members = good();
        members[at].1 = bytes;
        npz(&members)
    };
    assert!(message(&npz(&good()[..4])).contains("found no test_labels.npy"));
    assert!(
        message(&with(3, npy(&[3, 1], &[8, 9, 0])))
            .contains("label 9 at item 1 of train_labels.npy; expected 0 to 8")
    );
    assert!(
        message(&with(3, npy(&[2, 1], &[0; 2])))
            .contains("train_images.npy: an array with header {'descr': '|u1'")
    );
    assert!(
        message(&with(3, npy(&[3, 2], &[0; 6])))
            .contains("train_labels.npy: an array with header {'descr': '|u1'")
    );
    assert!(
        message(&with(3, npy(&[1 << 40, 1], &[0; 6])))
            .contains("expected uint8 in C order, 1 to 6 items of shape [1]")
    );
    assert!(message(&with(3, npy(&[3, 1], &[0; 2]))).contains("the data end after 2 bytes"));
    assert!(message(&with(3, npy(&[3, 1], &[0; 4]))).contains("more than 3 bytes"));
    assert!(
        message(&with(3, b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec())).contains("no NumPy array")
    );
    assert!(message(&with(3, b"GIF".to_vec())).contains("a broken zip archive"));
    let wrong_type =
        String::from_utf8_lossy(&npy(&[3, 1], &[])).into_owned().replace("|u1", "<f8").into_bytes();
    assert!(message(&with(3, [b"\x93", &wrong_type[3..]].concat())).contains("<f8"));
    let file = npz(&good());
    assert!(message(&file[..file.len() / 2]).contains("a broken zip archive"));
    assert!(message(b"<html>").contains("a broken zip archive"));
}

#[test]
fn headers_as_numpy_writes_them() {
    assert_eq!(
        items("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }   \n", &[28, 28]),
        Some(3)
    );
    assert_eq!(items("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", &[]), Some(3));
    for wrong in [
        "{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }",
        "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 1), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (x,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
        "{'descr': '|u1', 'fortran_order': False}",
    ] {
        assert_eq!(items(wrong, &[]), None, "{wrong}");
    }
}

#[test]
fn another_version_has_another_number_of_images() {
    let mut other = good();
    other[2].1 = npy(&[1, 28, 28, 3], &[9; 28 * 28 * 3]);
    other[4].1 = npy(&[1, 1], &[4]);
    let parts = read(&npz(&other)).unwrap();
    assert_eq!((parts.train.len(), parts.test.len(), parts.test.label(0)), (3, 1, 4));
}

#[test]
fn large_sets_are_unpacked_once_to_the_same_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("pathmnist/pathmnist.npz");
    fs::create_dir(dir.path().join("pathmnist")).unwrap();
    fs::write(&archive, npz(&good())).unwrap();
    let small = OpenOptions { max_memory: 100, ..Default::default() };
    let kept = open(&info(), dir.path(), &OpenOptions::default()).unwrap();
    let raw = dir.path().join("pathmnist/pathmnist-train.raw");
    assert!(!raw.exists());
    for _ in 0..2 {
        let on_demand = open(&info(), dir.path(), &small).unwrap();
        assert!(on_demand.train.is_on_demand());
        for (a, b) in [(&kept.train, &on_demand.train), (&kept.test, &on_demand.test)] {
            assert!((0..a.len()).all(
                |i| a.image(i).unwrap() == b.image(i).unwrap() && a.label(i) == b.label(i)
            ));
        }
    }
    // Noise of the same length in its place, all of it or a byte of an image.
    let length = fs::metadata(&raw).unwrap().len() as usize;
    let noise: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8).collect();
    fs::write(&raw, noise).unwrap();
    let again = open(&info(), dir.path(), &small).unwrap().train;
    assert_eq!(again.image(1).unwrap(), kept.train.image(1).unwrap());
    let mut bytes = fs::read(&raw).unwrap();
    bytes[length / 3] ^= 4;
    fs::write(&raw, bytes).unwrap();
    let damaged = open(&info(), dir.path(), &small).unwrap().train;
    let errors: Vec<String> =
        (0..3).filter_map(|i| damaged.image(i).err()).map(|e| e.to_string()).collect();
    assert!(
        errors.len() == 1 && errors[0].contains("pathmnist-train.raw: found image 1 changed"),
        "{errors:?}"
    );
    // A part is not taken for the whole, and an older one not for the new.
    fs::write(&raw, b"cut off").unwrap();
    assert_eq!(
        open(&info(), dir.path(), &small).unwrap().train.image(2).unwrap(),
        kept.train.image(2).unwrap()
    );
    let mut other = good();
    other[0].1 = npy(&[3, 28, 28, 3], &[7; 3 * 28 * 28 * 3]);
    fs::write(&archive, npz(&other)).unwrap();
    assert_eq!(open(&info(), dir.path(), &small).unwrap().train.image(0).unwrap()[0], 7);
    let mut short = good();
    short[0].1 = npy(&[3, 28, 28, 3], &[7; 100]);
    fs::write(&archive, npz(&short)).unwrap();
    let error = open(&info(), dir.path(), &small).err().unwrap().to_string();
    assert!(error.contains("train_images.npy: the data end after 100 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damaged_files(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = npz(&good());
        for (at, value) in hits {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(parts) = read(&file) {
            prop_assert!(parts.train.len() <= 6 && parts.test.len() <= 4);
        }
    }
}
