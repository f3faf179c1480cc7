use super::machine::MAX_VALUES;
use super::*;
use proptest::prelude::*;

/// A batch as Python 2 wrote the official files (protocol 2, `str` keys and data).
pub(crate) fn python2(
    rows: usize,
    columns: usize,
    data: &[u8],
    labels: &[u8],
    key: &str,
) -> Vec<u8> {
    let mut out = b"\x80\x02}q\x01(".to_vec();
    let string = |out: &mut Vec<u8>, text: &[u8]| {
        out.extend([b'U', text.len() as u8]);
        out.extend(text);
    };
    string(&mut out, b"batch_label");
    string(&mut out, b"training batch 1 of 5");
    string(&mut out, key.as_bytes());
    out.extend(b"]q\x05(");
    labels.iter().for_each(|&l| out.extend([b'K', l]));
    out.push(b'e');
    string(&mut out, b"data");
    out.extend(
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\n\
                 q\x08K\x00\x85U\x01b\x87Rq\x09(K\x01",
    );
    for n in [rows, columns] {
        out.push(b'J');
        out.extend((n as i32).to_le_bytes());
    }
    out.extend(
        b"\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN\
        J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
    );
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out.extend(b"tbu.");
    out
}

fn small() -> Vec<u8> {
    python2(2, 3, &[1, 2, 200, 4, 5, 255], &[7, 9], "labels")
}

fn want() -> Batch {
    Batch { shape: [2, 3], data: vec![1, 2, 200, 4, 5, 255], labels: vec![7, 9] }
}

#[test]
fn what_python_2_writes() {
    assert_eq!(read_batch(&small()).unwrap(), want());
    assert_eq!(read_batch(&python2(1, 1, &[3], &[19], "fine_labels")).unwrap().labels, [19]);
}

/// Written by NumPy 2 under Python 3 (`tests/make_fixtures.py`).
#[test]
fn what_python_3_writes() {
    for (protocol, bytes) in [
        (2, &include_bytes!("../../../tests/fixtures/batch_protocol2.pkl")[..]),
        (4, include_bytes!("../../../tests/fixtures/batch_protocol4.pkl")),
        (5, include_bytes!("../../../tests/fixtures/batch_protocol5.pkl")),
    ] {
        assert_eq!(read_batch(bytes), Ok(want()), "protocol {protocol}");
    }
}

#[test]
fn code_is_never_run() {
    for (pickle, named) in [
        (&b"cos\nsystem\n(U\x04ls /tR."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nU\x0bprint('no')\x85R.", "builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.", "posix.system"),
        (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
    ] {
        let error = read_batch(pickle).unwrap_err();
        assert!(error.contains(named) && error.contains("not run"), "{error}");
    }
    // Other ways to make objects: INST, OBJ, NEWOBJ, PERSID, EXT1.
    for pickle in [&b"(ios\nsystem\n."[..], b"(o.", b")\x81.", b"Pid\n.", b"\x82\x01."] {
        assert!(read_batch(pickle).unwrap_err().contains("opcode"));
    }
}

#[test]
fn each_defect_is_named() {
    let message = |bytes: &[u8]| read_batch(bytes).unwrap_err();
    assert!(message(&small()[..50]).contains("breaks off"));
    assert!(message(b"").contains("breaks off"));
    assert!(
        message(&python2(2, 4, &[0; 6], &[], "labels")).contains("an array of 2 x 4 with 6 bytes")
    );
    assert!(message(&python2(2, 3, &[0; 6], &[], "names")).contains("without 'labels'"));
    assert!(message(b"]. ").contains("something else than a dictionary"));
    // A length of 4 GB in a file of a few bytes, and a pop from nothing.
    assert!(message(b"T\xff\xff\xff\xff.").contains("breaks off"));
    assert!(message(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.").contains("breaks off"));
    assert!(message(b"0").contains("empty stack"));
    assert!(message(&vec![b'N'; MAX_VALUES + 2]).contains("more than 1048576 values"));
    let wide: Vec<u8> = String::from_utf8_lossy(&small()[..]).into_owned().into_bytes();
    assert!(read_batch(&wide).is_err());
    let other = small().windows(2).position(|w| w == b"u1").unwrap();
    let mut floats = small();
    floats[other..other + 2].copy_from_slice(b"f4");
    assert!(message(&floats).contains("an array of 'f4'"));
}

/// A list that contains itself twice, many times over: a reader that copies would take exponential
/// memory.
#[test]
fn doubling_takes_no_memory() {
    let mut bomb = b"\x80\x02]q\x00".to_vec();
    for i in 1..200u8 {
        bomb.extend([b'h', i - 1, b'h', i - 1, 0x86, b'q', i]);
    }
    bomb.push(b'.');
    assert!(read_batch(&bomb).unwrap_err().contains("something else"));
}

proptest! {
    #[test]
    fn damaged_pickles(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = small();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(batch) = read_batch(&bytes) {
            prop_assert_eq!(batch.data.len(), batch.shape[0] * batch.shape[1]);
        }
    }

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_batch(&bytes);
    }
}
