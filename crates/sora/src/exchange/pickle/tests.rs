use super::*;

/// `_rebuild_from_type_v2` of a module `x._rebuild_tensor`, called with a list that holds the
/// function and the list itself.
#[test]
fn a_call_that_calls_itself_ends() {
    for function in ["_rebuild_from_type_v2", "_rebuild_from_type"] {
        let mut pickle = b"\x80\x02cx._rebuild_tensor\n".to_vec();
        pickle.extend(function.as_bytes());
        pickle.extend(b"\nq\x00]q\x01(h\x00h\x01h\x01eR.");
        let read = Pickle::read(&mut &pickle[..]).unwrap();
        assert!(matches!(read.node(&read.root), Some(Node::Object { .. })), "{:?}", read.root);
    }
}

/// `(storage, offset, shape, stride)` with a long shape, recalled again and again.
#[test]
fn a_short_pickle_does_not_make_much_of_little() {
    let sizes = [b"(", &b"K\x01".repeat(100_000)[..], b"t"].concat();
    let storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x01tQ";
    let arguments = [&storage[..], b"K\x00", &sizes, &sizes, b"tq\x01"].concat();
    let tensors = |count: usize| {
        let call = b"ctorch._utils\n_rebuild_tensor_v2\nh\x01R0".repeat(count);
        [b"\x80\x02", &arguments[..], &call[..], b"."].concat()
    };
    let read = Pickle::read(&mut &tensors(2)[..]).unwrap();
    let made = read.nodes().filter(|node| matches!(node, Node::Tensor(_))).count();
    assert_eq!(made, 2);
    let problem = Pickle::read(&mut &tensors(200)[..]).unwrap_err();
    assert!(problem.contains("too many values"), "{problem}");
    // Names that are put together from a long text, and memory that is filled with one value.
    let long = [b"X\x40\x42\x0f\x00", &vec![b'm'; 1_000_000][..], b"q\x00"].concat();
    let names = [b"\x80\x04", &long[..], &b"h\x00h\x00\x93".repeat(20), b"."].concat();
    assert!(Pickle::read(&mut &names[..]).unwrap_err().contains("too many values"));
    let memory = [b"\x80\x04N", &vec![0x94; (1 << 24) + 2][..], b"."].concat();
    assert!(Pickle::read(&mut &memory[..]).unwrap_err().contains("too many values"));
}
