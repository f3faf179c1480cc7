use super::*;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use std::io::Write;

fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
    out.extend(data);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn array(name: &str, dims: &[usize], kind: u32, data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| (d as u32).to_le_bytes()).collect();
    let parts = [
        element(UINT32, &[9, 0, 0, 0, 0, 0, 0, 0]),
        element(INT32, &dims),
        element(INT8, name.as_bytes()),
        element(kind, data),
    ];
    element(MATRIX, &parts.concat())
}

fn zipped(array: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(array).unwrap();
    let data = encoder.finish().unwrap();
    [&COMPRESSED.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), &data].concat()
}

fn mat(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![b' '; 124];
    file.extend([0, 1, b'I', b'M']);
    file.extend(elements.concat());
    file
}

/// Image i, channel c, row y, column x: 100 i + 50 c + y - x, modulo 256.
fn x(n: usize) -> Vec<u8> {
    let value = |i: usize, c: usize, x: usize, y: usize| (100 * i + 50 * c + y + 256 - x) as u8;
    (0..n)
        .flat_map(|i| {
            (0..3).flat_map(move |c| {
                (0..SIDE).flat_map(move |x| (0..SIDE).map(move |y| value(i, c, x, y)))
            })
        })
        .collect()
}

fn images() -> Vec<u8> {
    array("X", &[32, 32, 3, 2], UINT8, &x(2))
}

fn run(file: &[u8]) -> Result<(Vec<u8>, Vec<u32>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train_32x32.mat");
    std::fs::write(&path, file).unwrap();
    read(&path, 2, &"fetch it again".into())
}

fn message(file: &[u8]) -> String {
    let error = run(file).unwrap_err().to_string();
    assert!(error.ends_with("fetch it again") && !error.contains('\n'), "{error}");
    error
}

fn check((images, labels): (Vec<u8>, Vec<u32>)) {
    assert_eq!(labels, [0, 3]);
    for (at, value) in images.iter().enumerate() {
        let (i, c, y, x) = (at / PIXELS, at / 1024 % 3, at / 32 % 32, at % 32);
        assert_eq!(*value, (100 * i + 50 * c + y + 256 - x) as u8);
    }
}

#[test]
fn plain_compressed_and_in_any_order() {
    let y = array("y", &[2, 1], UINT8, &[10, 3]);
    check(run(&mat(&[images(), y.clone()])).unwrap());
    check(run(&mat(&[zipped(&images()), zipped(&y)])).unwrap());
    let other = array("meta", &[1, 3], UINT8, &[1, 2, 3]);
    let doubles = array("y", &[1, 2], DOUBLE, &[10f64.to_le_bytes(), 3f64.to_le_bytes()].concat());
    check(run(&mat(&[other, doubles, zipped(&images())])).unwrap());
}

/// Written by SciPy's `savemat` (`tests/make_fixtures.py`): compressed and plain.
#[test]
fn what_scipy_writes() {
    check(run(include_bytes!("../../../tests/fixtures/svhn.mat")).unwrap());
    check(run(include_bytes!("../../../tests/fixtures/svhn_plain.mat")).unwrap());
}

#[test]
fn each_corruption_has_its_line() {
    let y = array("y", &[2, 1], UINT8, &[10, 3]);
    let good = mat(&[zipped(&images()), zipped(&y)]);
    assert!(message(b"<html>").contains("cut off or damaged"));
    assert!(message(&[0; 200]).contains("no MATLAB 5 header"));
    assert!(message(&mat(std::slice::from_ref(&y))).contains("found no array X"));
    assert!(message(&mat(&[images()])).contains("found no array y"));
    assert!(
        message(&mat(&[images(), array("y", &[2, 1], UINT8, &[11, 3])]))
            .contains("label 11 at item 0")
    );
    assert!(
        message(&mat(&[images(), array("y", &[3, 1], UINT8, &[1, 2, 3])]))
            .contains("found y of 3 x 1")
    );
    assert!(
        message(&mat(&[array("X", &[32, 32, 3, 3], UINT8, &x(3)), y.clone()]))
            .contains("found X of 32 x 32 x 3 x 3")
    );
    assert!(
        message(&mat(&[array("X", &[32, 32, 3, 2], DOUBLE, &x(2)), y.clone()]))
            .contains("X with 6144 bytes of type 9")
    );
    for cut in [127, 130, 300, good.len() - 3] {
        assert!(message(&good[..cut]).contains("cut off or damaged"), "{cut}");
    }
    let mut version = good.clone();
    version[125] = 2;
    assert!(message(&version).contains("7.3 (HDF5)"));
    // Announced lengths of 4 GB take no memory.
    let mut hostile = mat(&[images(), y]);
    hostile[132..136].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(run(&hostile).is_err());
    let mut dims = images();
    dims[44..48].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(run(&mat(&[dims])).is_err());
}

proptest! {
    #[test]
    fn damaged_files(
        zip: bool, hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let y = array("y", &[2, 1], UINT8, &[10, 3]);
        let mut file = if zip { mat(&[zipped(&images()), zipped(&y)]) } else { mat(&[images(), y]) };
        for (at, value) in hits {
            // Most damage goes to the tags, which are few among the pixels.
            let at = at.index(if zip { file.len() } else { 260 });
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok((images, labels)) = run(&file) {
            prop_assert_eq!((images.len(), labels.len()), (2 * PIXELS, 2));
        }
    }
}
