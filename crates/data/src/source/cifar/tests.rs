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
        // `set_path` would refuse the hostile names.
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

/// The same images in pickles.
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
    assert!((0..10).all(|i| parts.train.image(i).unwrap().iter().all(|&v| usize::from(v) == i)));
    assert_eq!((parts.test.len(), parts.test.label(1)), (2, 5));
}

#[test]
fn batches_are_joined_by_name_not_by_place() {
    is_good(&read_bytes(&archive(&good10()), Layout::Cifar10).unwrap());
}

#[test]
fn the_python_archive_and_unpacked_folders_give_the_same() {
    is_good(&read_as("cifar-10-python.tar.gz", &archive(&python10()), Layout::Cifar10).unwrap());
    for members in [good10(), python10()] {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &members {
            // The folder that torchvision would call its root.
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        is_good(&open(&info(Layout::Cifar10), dir.path(), Layout::Cifar10).unwrap());
        fs::remove_file(dir.path().join(members[3].0)).unwrap();
        let error =
            open(&info(Layout::Cifar10), dir.path(), Layout::Cifar10).err().unwrap().to_string();
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
    let parts = read_as("cifar-100-python.tar.gz", &archive(&members), Layout::Cifar100).unwrap();
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
        message(&short)
            .contains("found 6145 bytes in data_batch_1.bin; expected 6146 (2 records of 3073)")
    );
    assert!(
        message(&good10()[..6])
            .contains("found no data_batch_3.bin; expected the CIFAR-10 archive")
    );
    let mut label = good10();
    label[2].1[3073] = 10;
    assert!(
        message(&label).contains("found label 10 in record 1 of data_batch_2.bin; expected 0 to 9")
    );
    let mut twice = good10();
    twice.push(twice[1].clone());
    assert!(message(&twice).contains("data_batch_1.bin twice"));
    let whole = archive(&good10());
    for cut in [0, 5, 40, whole.len() / 2, whole.len() - 9] {
        let error = read_bytes(&whole[..cut], Layout::Cifar10).err().unwrap().to_string();
        assert!(error.ends_with("; get it again") && !error.contains('\n'), "{cut}: {error}");
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
        error.contains("found a pickle that asks for os.system, which was not run in data_batch_5"),
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
    fn damaged_archives(
        python: bool,
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (name, members) = if python {
            ("cifar-10-python.tar.gz", python10())
        } else {
            ("cifar-10-binary.tar.gz", good10())
        };
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
