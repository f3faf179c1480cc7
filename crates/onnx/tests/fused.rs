//! Graphs that tempt a pass to compute nodes together: each against the same graph with an identity
//! behind every node, which keeps the nodes apart.

#![allow(clippy::unwrap_used, clippy::panic)]

use prost::Message;
use sora_onnx::{
    Network, Options, Trainable, Wanted,
    proto::{
        AttributeProto, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto,
        OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
        ValueInfoProto, data_type,
    },
};

/// Images of a batch, and numbers of an image.
const IMAGES: usize = 5;
const ROW: usize = 3 * 5 * 5;
/// Channels behind the first convolution.
const CHANNELS: usize = 8;

/// Graphs from `x` to `end`, images of `CHANNELS` channels. A node is an operator, its inputs and
/// its output.
const GRAPHS: [(&str, &[&str]); 14] = [
    (
        "residual blocks, whose sums have two readers",
        &[
            "Conv x w b a",
            "Relu a r",
            "Conv r v c",
            "Add c a s",
            "BatchNormalization s g h m q n",
            "Relu n t",
            "Conv t v d",
            "Add s d u",
            "Relu u end",
        ],
    ),
    ("a batch norm without rectifier", &["Conv x w b a", "BatchNormalization a g h m q end"]),
    (
        "a batch norm with two readers",
        &["Conv x w a", "BatchNormalization a g h m q n", "Relu n r", "Add n r end"],
    ),
    (
        "two batch norms of one sum",
        &[
            "Conv x w a",
            "Conv a v c",
            "Add a c s",
            "BatchNormalization s g h m q n",
            "BatchNormalization s h g m q o",
            "Relu o r",
            "Relu n t",
            "Add r t end",
        ],
    ),
    ("a rectifier of a value with two readers", &["Conv x w b a", "Relu a r", "Add r a end"]),
    ("the same summand twice", &["Conv x w b a", "Conv a v c", "Add c c s", "Relu s end"]),
    (
        "a second input that a rectifier does not read",
        &["Conv x w b a", "Conv x w c", "Relu c a end"],
    ),
    ("a sum with the images", &["Conv x z a", "Add x a s", "Relu s t", "Conv t w end"]),
    ("three summands", &["Conv x w b a", "Conv a v c", "Sum c a a s", "Relu s end"]),
    ("a broadcast constant", &["Conv x w b a", "Add a k s", "Add k s t", "Relu t end"]),
    (
        "a broadcast value",
        &["Conv x w b a", "GlobalAveragePool a p", "Conv a v c", "Add p c s", "Relu s end"],
    ),
    (
        "a sum that is broadcast to the other side",
        &["Conv x w b a", "GlobalAveragePool a p", "Conv p o c", "Add c a s", "Relu s end"],
    ),
    (
        "a shortcut that comes after",
        &["Conv x w b a", "Conv a v c", "Relu a r", "Conv r v d", "Add c d s", "Relu s end"],
    ),
    (
        "a batch norm of the images and parameters that are computed",
        &[
            "BatchNormalization x e e f f i",
            "Relu i j",
            "Conv j w a",
            "Exp g l",
            "BatchNormalization a l h m q n",
            "Relu n end",
        ],
    ),
];

/// Names and shapes of the numbers in the file.
const NUMBERS: [(&str, &[usize]); 12] = [
    ("w", &[CHANNELS, 3, 3, 3]),
    ("v", &[CHANNELS, CHANNELS, 3, 3]),
    ("o", &[CHANNELS, CHANNELS, 1, 1]),
    ("z", &[3, 3, 3, 3]),
    ("b", &[CHANNELS]),
    ("g", &[CHANNELS]),
    ("h", &[CHANNELS]),
    ("m", &[CHANNELS]),
    ("q", &[CHANNELS]),
    ("k", &[1, CHANNELS, 1, 1]),
    ("e", &[3]),
    ("f", &[3]),
];

/// Numbers from -1 to 1, the same ones each time.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 37 * seed) * 7919 % 1009) as f32 / 504.5) - 1.0).collect()
}

fn images() -> Vec<f32> {
    numbers(100, IMAGES * ROW).into_iter().map(|v| 0.5 + 0.5 * v).collect()
}

fn node(line: &str) -> NodeProto {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let [kind, inputs @ .., output] = &words[..] else { panic!("{line}") };
    let pads = AttributeProto {
        name: "pads".into(),
        ints: vec![if line.contains(" o ") { 0 } else { 1 }; 4],
        r#type: 7,
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: kind.clone(),
        input: inputs.to_vec(),
        output: vec![output.clone()],
        attribute: if kind == "Conv" { vec![pads] } else { Vec::new() },
        ..NodeProto::default()
    }
}

/// `nodes` with an identity behind each.
fn apart(nodes: Vec<NodeProto>) -> Vec<NodeProto> {
    let each = nodes.into_iter().flat_map(|mut node| {
        let output = node.output.remove(0);
        node.output.push(format!("{output}'"));
        let identity = NodeProto {
            op_type: "Identity".into(),
            input: node.output.clone(),
            output: vec![output],
            ..NodeProto::default()
        };
        [node, identity]
    });
    each.collect()
}

fn value(name: &str, sides: &[usize]) -> ValueInfoProto {
    let batch = Dimension::Named("n".into());
    let sides = sides.iter().map(|&side| Dimension::Size(side as i64));
    let dim = std::iter::once(batch).chain(sides);
    let dim = dim.map(|value| DimensionProto { value: Some(value) }).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type: data_type::FLOAT, shape });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

fn tensor(seed: usize, name: &str, shape: &[usize]) -> TensorProto {
    let mut data = numbers(seed, shape.iter().product());
    if matches!(name, "q" | "f") {
        data.iter_mut().for_each(|v| *v = 0.2 + v.abs());
    }
    TensorProto {
        name: name.into(),
        dims: shape.iter().map(|&side| side as i64).collect(),
        data_type: data_type::FLOAT,
        float_data: data,
        ..TensorProto::default()
    }
}

/// A file with `nodes` and the mean of each channel of `end` as logits.
fn file(mut nodes: Vec<NodeProto>) -> Vec<u8> {
    nodes.extend(["GlobalAveragePool end mean", "Flatten mean logits"].map(node));
    let numbers = NUMBERS.iter().enumerate();
    let initializer = numbers.map(|(seed, (name, shape))| tensor(seed, name, shape)).collect();
    let graph = GraphProto {
        node: nodes,
        initializer,
        input: vec![value("x", &[3, 5, 5])],
        output: vec![value("logits", &[CHANNELS])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let model =
        ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    model.encode_to_vec()
}

fn nodes(lines: &[&str]) -> Vec<NodeProto> {
    lines.iter().copied().map(node).collect()
}

fn network(nodes: Vec<NodeProto>) -> Network {
    Network::from_bytes(&file(nodes), "test", &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn pulled(network: &Network, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut weigh = |first: usize, logits: &[f32]| {
        numbers(7, first * CHANNELS + logits.len()).split_off(first * CHANNELS)
    };
    network.pull_back(x, &mut weigh).unwrap()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * scale, "{what}: {a} and {b}");
    }
}

#[test]
fn nodes_that_are_computed_together_give_what_they_give_apart() {
    let x = images();
    for (name, lines) in GRAPHS {
        let (together, alone) = (network(nodes(lines)), network(apart(nodes(lines))));
        let ((logits, gradient), expected) = (pulled(&together, &x), pulled(&alone, &x));
        close(&logits, &expected.0, name);
        close(&gradient, &expected.1, name);
        assert_eq!(together.logits(&x).unwrap(), logits, "{name}");
        assert!(together.logits(&[]).unwrap().is_empty());
    }
}

#[test]
fn weights_get_the_same_gradients() {
    let x = images();
    for (name, lines) in GRAPHS {
        let gradients = |nodes: Vec<NodeProto>| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.onnx");
            std::fs::write(&path, file(nodes)).unwrap();
            let (graph, values) = Trainable::open(&path, &Options::default()).unwrap();
            let each = values.into_iter().enumerate();
            let given: Vec<_> = each.map(|(i, data)| graph.values(i, data).unwrap()).collect();
            let (logits, tape) = graph.record(&given, &x).unwrap();
            let cotangent = numbers(7, logits.len());
            let found = graph.pull_back(tape, &cotangent, Wanted::Both).unwrap();
            (logits, found)
        };
        let (found, expected) = (gradients(nodes(lines)), gradients(apart(nodes(lines))));
        close(&found.0, &expected.0, name);
        close(&found.1.input, &expected.1.input, name);
        close(&found.1.weights, &expected.1.weights, name);
    }
}

#[test]
fn neither_threads_nor_other_images_change_a_result() {
    let x = images();
    for (name, lines) in GRAPHS {
        let network = network(nodes(lines));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| network.logits(&x).unwrap())
        };
        let expected = on(1);
        assert_eq!(on(2), expected, "{name}");
        assert_eq!(on(3), expected, "{name}");
        let each: Vec<_> = x.chunks(ROW).flat_map(|image| network.logits(image).unwrap()).collect();
        assert_eq!(each, expected, "{name}");
    }
}

#[test]
fn what_is_no_number_is_not_hidden() {
    let mut x = images();
    let whole = x.clone();
    x[ROW + 7] = f32::NAN;
    let rectified: [&[&str]; 6] = [
        &["Conv x w b a", "Relu a end"],
        &["Conv x w b a", "BatchNormalization a g h m q n", "Relu n end"],
        &["Conv x w b a", "Conv a v c", "Add c a s", "Relu s end"],
        &["BatchNormalization x e e f f i", "Relu i j", "Conv j w end"],
        &["Relu x i", "Conv i w end"],
        &["Clip x i", "LeakyRelu i j", "Conv j w end"],
    ];
    for lines in rectified {
        for nodes in [nodes(lines), apart(nodes(lines))] {
            let network = network(nodes);
            let (found, expected) = (network.logits(&x).unwrap(), network.logits(&whole).unwrap());
            for (row, (found, expected)) in
                found.chunks(CHANNELS).zip(expected.chunks(CHANNELS)).enumerate()
            {
                match row {
                    1 => assert!(found.iter().all(|v| v.is_nan()), "{lines:?}: {found:?}"),
                    _ => assert_eq!(found, expected, "{lines:?}"),
                }
            }
        }
    }
}
