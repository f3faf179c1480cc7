//! Small networks as PyTorch's exporters write them: logits against onnxruntime, gradients for the
//! images and for the weights against PyTorch, and files that are written. The values are made by
//! `scripts/onnx/small.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::PathBuf};

use prost::Message;
use sora_onnx::{
    Error, Network, Normalisation, Options, Role, Trainable, Values, Wanted, Weight,
    proto::{GraphProto, ModelProto, NodeProto, TensorProto, data_type},
};

/// Those whose weights can be trained.
const TRAINABLE: [&str; 7] = [
    "convolutions",
    "pre-activation",
    "pre-activation-fixed",
    "depthwise",
    "transformer",
    "transformer-old",
    "standardised",
];

struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small.safetensors");
        Self(fs::read(path).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn network(&self, name: &str) -> Network {
        let bytes = self.bytes(&format!("{name}.model"));
        Network::from_bytes(&bytes, name, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn trainable(&self, name: &str) -> (Trainable, Vec<Vec<f32>>) {
        open(&self.bytes(&format!("{name}.model"))).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

fn open(bytes: &[u8]) -> Result<(Trainable, Vec<Vec<f32>>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    Trainable::open(&path, &Options::default())
}

fn given(graph: &Trainable, values: &[Vec<f32>]) -> Vec<Values> {
    let each = values.iter().enumerate();
    each.map(|(index, data)| graph.values(index, data.clone()).unwrap()).collect()
}

/// The largest difference over the largest value.
fn gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn trained(graph: &Trainable) -> impl Iterator<Item = (usize, &Weight)> {
    graph.weights().iter().enumerate().filter(|(_, weight)| weight.role == Role::Trained)
}

/// The gradients by the trained weights, under their names.
fn by_name(graph: &Trainable, flat: &[f32]) -> Vec<(String, Vec<f32>)> {
    let mut rest = flat;
    let each = trained(graph).map(|(_, weight)| {
        let (own, others) = rest.split_at(weight.shape.iter().product());
        rest = others;
        (weight.name.clone(), own.to_vec())
    });
    let all: Vec<_> = each.collect();
    assert!(rest.is_empty());
    all
}

#[test]
fn logits_are_onnxruntimes_and_gradients_are_pytorchs() {
    let golden = Golden::read();
    let (x, cotangent) = (golden.floats("x"), golden.floats("cotangent"));
    for name in TRAINABLE.into_iter().chain(["quantised"]) {
        let network = golden.network(name);
        let mut weigh = |first: usize, logits: &[f32]| {
            cotangent[first * 10..first * 10 + logits.len()].to_vec()
        };
        let (logits, gradient) = network.pull_back(&x, &mut weigh).unwrap();
        let expected = golden.floats(&format!("{name}.logits"));
        let found = gap(&logits, &expected);
        // In a quantised network the last bit of a sum decides a step of rounding.
        let most = if name == "quantised" { 0.02 } else { 1e-5 };
        assert!(found < most, "{name}: logits differ by {found:.1e}");
        assert_eq!(network.logits(&x).unwrap(), logits);
        if name != "quantised" {
            let found = gap(&gradient, &golden.floats(&format!("{name}.grad")));
            assert!(found < 1e-4, "{name}: gradients differ by {found:.1e}");
        }
    }
}

#[test]
fn gradients_by_the_weights_are_pytorchs() {
    let golden = Golden::read();
    let (x, cotangent) = (golden.floats("x"), golden.floats("cotangent"));
    let mut held = 0;
    for name in TRAINABLE {
        let (graph, values) = golden.trainable(name);
        let (logits, tape) = graph.record(&given(&graph, &values), &x).unwrap();
        let expected = golden.floats(&format!("{name}.logits"));
        assert!(gap(&logits, &expected) < 1e-5, "{name}");
        assert_eq!(graph.logits(&given(&graph, &values), &x).unwrap(), logits, "{name}");
        let both = graph.pull_back(tape.clone(), &cotangent, Wanted::Both).unwrap();
        let input = graph.pull_back(tape.clone(), &cotangent, Wanted::Input).unwrap();
        let weights = graph.pull_back(tape, &cotangent, Wanted::Weights).unwrap();
        assert_eq!((&both.input, &both.weights), (&input.input, &weights.weights), "{name}");
        assert!(input.weights.is_empty() && weights.input.is_empty());
        assert!(gap(&both.input, &golden.floats(&format!("{name}.grad"))) < 1e-4, "{name}");
        assert_eq!(both.weights.len(), graph.trained_len());
        let found = by_name(&graph, &both.weights);
        let prefix = format!("{name}.grad.");
        for full in golden.names() {
            let Some(weight) = full.strip_prefix(&prefix) else { continue };
            let own = found.iter().find(|(known, _)| known == weight);
            let (_, own) = own.unwrap_or_else(|| panic!("{name}: {weight} is not trained"));
            let gap = gap(own, &golden.floats(&full));
            assert!(gap < 1e-4, "{name}: {weight} differs by {gap:.1e}");
            held += 1;
        }
    }
    assert!(held >= 50, "only {held} weights keep their name");
}

#[test]
fn gradients_by_every_weight_agree_with_differences() {
    let golden = Golden::read();
    let (x, cotangent) = (golden.floats("x"), golden.floats("cotangent"));
    for name in TRAINABLE {
        let (graph, values) = golden.trainable(name);
        let value = |values: &[Vec<f32>]| -> f64 {
            let logits = graph.logits(&given(&graph, values), &x).unwrap();
            logits.iter().zip(&cotangent).map(|(z, c)| f64::from(z * c)).sum()
        };
        let (_, tape) = graph.record(&given(&graph, &values), &x).unwrap();
        let all = graph.pull_back(tape, &cotangent, Wanted::Weights).unwrap();
        let found = by_name(&graph, &all.weights);
        for ((index, weight), (_, gradient)) in trained(&graph).zip(&found) {
            let scale = gradient.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
            let (mut wrong, places) = (0, 6.min(gradient.len()));
            for k in 0..places {
                let i = k * (gradient.len() - 1) / places.max(2).saturating_sub(1);
                let step = 1e-3f32.max(2e-3 * values[index][i].abs());
                let at = |shift: f32| {
                    let mut moved = values.clone();
                    moved[index][i] += shift;
                    value(&moved)
                };
                let slope = ((at(step) - at(-step)) / f64::from(2.0 * step)) as f32;
                wrong += usize::from((slope - gradient[i]).abs() > 0.02 * scale);
            }
            // A kink may lie within a step of one of them.
            assert!(wrong <= 1, "{name}: {wrong} of {places} of {} differ", weight.name);
        }
    }
}

#[test]
fn statistics_options_and_the_normalisation_stay() {
    let golden = Golden::read();
    let (graph, _) = golden.trainable("pre-activation");
    let role = |name: &str| graph.weights().iter().find(|w| w.name == name).map(|w| w.role);
    assert_eq!(role("bn3.running_mean"), Some(Role::Statistic));
    assert_eq!(role("bn3.running_var"), Some(Role::Statistic));
    assert_eq!(role("bn3.weight"), Some(Role::Trained));
    assert_eq!((role("mean"), role("std")), (None, None));
    assert!(graph.normalises() && graph.batch_norms() == 1);
    let (graph, _) = golden.trainable("depthwise");
    assert!(!graph.normalises() && graph.batch_norms() == 0);
    // The exporter's group norm: two of three scales and shifts are stand-ins.
    assert_eq!(trained(&graph).filter(|(_, w)| w.name.starts_with("val_")).count(), 3);
    let error = open(&golden.bytes("quantised.model")).unwrap_err().to_string();
    assert!(error.contains("cannot be trained") && error.contains("quantised"), "{error}");
}

#[test]
fn the_structure_is_enough_and_holds_no_weights() {
    let golden = Golden::read();
    let x = golden.floats("x");
    for name in TRAINABLE {
        let (graph, values) = golden.trainable(name);
        let structure = graph.structure();
        let all = golden.bytes(&format!("{name}.model")).len();
        let numbers: usize = values.iter().map(|value| 4 * value.len()).sum();
        assert!(structure.len() < all - numbers + 200, "{name}: {}", structure.len());
        let again = Trainable::from_structure(&structure, name, &Options::default()).unwrap();
        assert_eq!(again.weights(), graph.weights());
        assert_eq!(again.structure(), structure);
        let logits = |graph: &Trainable| graph.logits(&given(graph, &values), &x).unwrap();
        assert_eq!(logits(&again), logits(&graph));
    }
}

#[test]
fn a_written_file_gives_the_same_logits() {
    let golden = Golden::read();
    let x = golden.floats("x");
    for name in TRAINABLE {
        let (graph, mut values) = golden.trainable(name);
        values.iter_mut().flatten().for_each(|value| *value *= 1.01);
        let logits = graph.logits(&given(&graph, &values), &x).unwrap();
        let slices: Vec<&[f32]> = values.iter().map(|value| &value[..]).collect();
        let file = graph.to_file(&slices, None, &[("key".into(), "text".into())]).unwrap();
        let read = Network::from_bytes(&file, name, &Options::default()).unwrap();
        assert!(gap(&read.logits(&x).unwrap(), &logits) < 1e-5, "{name}");
        assert!(read.producer().starts_with("sora"));
        // With a normalisation inside.
        let normalisation = Normalisation { mean: vec![0.5, 0.4, 0.3], std: vec![0.25; 3] };
        let file = graph.to_file(&slices, Some(&normalisation), &[]).unwrap();
        let read = Network::from_bytes(&file, name, &Options::default()).unwrap();
        let normalised = x.iter().enumerate();
        let normalised: Vec<f32> = normalised
            .map(|(i, v)| (v - normalisation.mean[i / 256 % 3]) / normalisation.std[i / 256 % 3])
            .collect();
        let logits = graph.logits(&given(&graph, &values), &normalised).unwrap();
        assert!(gap(&read.logits(&x).unwrap(), &logits) < 1e-5, "{name}");
        assert!(graph.to_file(&slices[1..], None, &[]).is_err());
    }
}

/// `convolutions` with another graph.
fn changed(golden: &Golden, change: impl Fn(&mut GraphProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(&*golden.bytes("convolutions.model")).unwrap();
    change(model.graph.as_mut().unwrap());
    model.encode_to_vec()
}

/// Lets `node` give the output in place of the last node, which gives `before` then.
fn append(graph: &mut GraphProto, node: &str, inputs: [&str; 2]) {
    let output = graph.output[0].name.clone();
    let last = graph.node.iter_mut().find(|node| node.output[0] == output).unwrap();
    last.output[0] = "before".into();
    graph.node.push(NodeProto {
        op_type: node.into(),
        input: inputs.map(str::to_owned).into(),
        output: vec![output],
        ..NodeProto::default()
    });
}

#[test]
fn a_mask_of_infinities_is_not_trained() {
    let golden = Golden::read();
    let mut of_mask = [0.0f32; 10];
    for masked in [0.0, f32::NEG_INFINITY] {
        of_mask[3] = masked;
        let file = changed(&golden, |graph| {
            append(graph, "Add", ["before", "mask"]);
            graph.initializer.push(TensorProto {
                name: "mask".into(),
                dims: vec![10],
                data_type: data_type::FLOAT,
                float_data: of_mask.to_vec(),
                ..TensorProto::default()
            });
        });
        let (graph, values) = open(&file).unwrap();
        let trained = graph.weights().iter().any(|weight| weight.name == "mask");
        assert_eq!(trained, masked.is_finite());
        let again =
            Trainable::from_structure(&graph.structure(), "s", &Options::default()).unwrap();
        let logits = again.logits(&given(&again, &values), &golden.floats("x")).unwrap();
        assert_eq!(logits[3].is_finite(), masked.is_finite(), "the mask stays");
    }
}

#[test]
fn a_head_in_a_circle_is_none_and_other_outputs_keep_their_size() {
    let golden = Golden::read();
    // Each Transpose reads what it gives: the last one of that name counts.
    let file = changed(&golden, |graph| {
        let head = graph.node.iter_mut().rfind(|node| node.op_type == "Gemm").unwrap();
        let weight = std::mem::replace(&mut head.input[1], "turned".into());
        for input in [weight.as_str(), "turned"] {
            let turn = NodeProto {
                op_type: "Transpose".into(),
                input: vec![input.into()],
                output: vec!["turned".into()],
                ..NodeProto::default()
            };
            let place = graph.node.iter().position(|node| node.op_type == "Gemm").unwrap();
            graph.node.insert(place, turn);
        }
    });
    let (graph, _) = open(&file).unwrap();
    assert!(graph.with_classes(4).unwrap_err().to_string().contains("last layer"));

    let file = changed(&golden, |graph| {
        let mut features = graph.output[0].clone();
        features.name = "features".into();
        graph.node.push(NodeProto {
            op_type: "Relu".into(),
            input: vec![graph.output[0].name.clone()],
            output: vec!["features".into()],
            ..NodeProto::default()
        });
        graph.output.push(features);
    });
    let sizes = |graph: &Trainable| {
        let model = ModelProto::decode(&*graph.structure()).unwrap();
        let size = |output: &sora_onnx::proto::ValueInfoProto| {
            let kind = output.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
            kind.shape.as_ref().unwrap().dim[1].value.clone()
        };
        model.graph.unwrap().output.iter().map(size).collect::<Vec<_>>()
    };
    let options = Options { output: Some("logits".into()), ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two.onnx");
    fs::write(&path, file).unwrap();
    let (graph, _) = Trainable::open(&path, &options).unwrap();
    let (before, after) = (sizes(&graph), sizes(&graph.with_classes(4).unwrap()));
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");
}

#[test]
fn a_pass_counts_its_values_once() {
    let golden = Golden::read();
    for name in TRAINABLE {
        let (graph, _) = golden.trainable(name);
        let [one, nine] = [1, 9].map(|images| graph.least_bytes(images));
        // A recorded pass holds the image and more; beyond eight groups only the values grow.
        let image = 3 * 16 * 16 * 4;
        let weights = graph.trained_len() as u64 * 4;
        let an_image = one - weights;
        assert!(an_image > image && an_image < 200 * image, "{name}: {an_image}");
        assert_eq!(nine, 9 * an_image + 8 * weights, "{name}");
    }
}

#[test]
fn the_head_is_replaced_for_other_classes() {
    let golden = Golden::read();
    let x = golden.floats("x");
    for name in TRAINABLE {
        let (graph, values) = golden.trainable(name);
        let four = graph.with_classes(4).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(four.shape().classes, 4);
        let mut replaced = 0;
        let values = four.weights().iter().zip(graph.weights()).zip(values).enumerate();
        let values: Vec<Values> = values
            .map(|(index, ((new, old), value))| {
                assert_eq!((&new.name, new.head), (&old.name, old.head));
                match new.head {
                    Some(bound) => {
                        assert!(bound > 0.0 && bound < 1.0 && new.shape != old.shape, "{name}");
                        replaced += 1;
                        let len = new.shape.iter().product();
                        four.values(index, vec![bound; len]).unwrap()
                    }
                    None => four.values(index, value).unwrap(),
                }
            })
            .collect();
        assert_eq!(replaced, if name == "standardised" { 1 } else { 2 }, "{name}");
        let (logits, tape) = four.record(&values, &x).unwrap();
        assert_eq!(logits.len(), 16);
        let gradients = four.pull_back(tape, &[1.0; 16], Wanted::Weights).unwrap();
        assert_eq!(gradients.weights.len(), four.trained_len());
        assert!(gradients.weights.iter().any(|g| *g != 0.0));
    }
}

#[test]
fn values_of_another_length_are_refused() {
    let golden = Golden::read();
    let (graph, values) = golden.trainable("convolutions");
    assert!(graph.values(0, vec![0.0; 3]).is_err());
    assert!(graph.values(99, vec![0.0; 3]).is_err());
    let all = given(&graph, &values);
    assert!(graph.logits(&all[1..], &[0.5; 768]).is_err());
    assert!(graph.logits(&all, &[0.5; 769]).is_err());
}

#[test]
fn damaged_structures_are_refused_or_read() {
    let golden = Golden::read();
    for name in ["pre-activation", "transformer"] {
        let structure = golden.trainable(name).0.structure();
        for place in (0..structure.len()).step_by(7) {
            let mut bytes = structure.clone();
            bytes[place] ^= 1 << (place % 8);
            if let Ok(graph) = Trainable::from_structure(&bytes, name, &Options::default()) {
                let zeros = graph.weights().iter().map(|w| vec![0.0; w.shape.iter().product()]);
                let zeros: Vec<Vec<f32>> = zeros.collect();
                let _ = graph.record(&given(&graph, &zeros), &[0.5; 768]);
            }
        }
    }
}
