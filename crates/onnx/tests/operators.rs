//! Every operator against onnxruntime, and its gradient against differences of itself. The values
//! are made by `scripts/onnx/operators.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use proptest::prelude::*;
use sora_onnx::{Error, Network, Options, operators};

struct Case {
    label: String,
    model: Vec<u8>,
    logits: Vec<f32>,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn golden() -> (Vec<f32>, Vec<Case>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/operators.safetensors");
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = Vec::new();
    for (name, view) in file.iter() {
        if let Some(label) = name.strip_suffix(".model") {
            let logits = floats(file.tensor(&format!("{label}.logits")).unwrap().data());
            cases.push(Case { label: label.into(), model: view.data().to_vec(), logits });
        }
    }
    cases.sort_by(|a, b| a.label.cmp(&b.label));
    (floats(file.tensor("x").unwrap().data()), cases)
}

fn open(bytes: &[u8]) -> Result<Network, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    fs::write(&path, bytes).unwrap();
    Network::open(&path, &Options::default())
}

fn gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn logits_are_those_of_onnxruntime() {
    let (x, cases) = golden();
    for case in &cases {
        let network = open(&case.model).unwrap_or_else(|e| panic!("{}: {e}", case.label));
        let found = network.logits(&x).unwrap_or_else(|e| panic!("{}: {e}", case.label));
        let gap = gap(&found, &case.logits);
        assert!(gap < 1e-5, "{}: {gap:.1e}: {found:?} and {:?}", case.label, case.logits);
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let (x, cases) = golden();
    for case in &cases {
        // These constants differ for each row of the batch.
        if ["concat", "gather-elements", "scatter-nd", "scatter-nd-add"].contains(&&*case.label) {
            continue;
        }
        let network = open(&case.model).unwrap();
        for (i, image) in x.chunks(72).enumerate() {
            let found = network.logits(image).unwrap_or_else(|e| panic!("{}: {e}", case.label));
            assert!(gap(&found, &case.logits[3 * i..3 * i + 3]) < 1e-5, "{}", case.label);
        }
    }
}

#[test]
fn gradients_agree_with_differences() {
    let (x, cases) = golden();
    for case in &cases {
        // Rounding passes a gradient that no difference of values shows.
        if case.label.contains("quantize") || case.label == "cast-half" {
            continue;
        }
        let network = open(&case.model).unwrap();
        if case.label == "equal-or" {
            let ones = &mut |_: usize, logits: &[f32]| vec![1.0; logits.len()];
            let error = network.pull_back(&x, ones).unwrap_err().to_string();
            assert!(error.contains("smooth"), "{error}");
            continue;
        }
        let cotangent: Vec<f32> = (0..case.logits.len()).map(|i| 0.5 - 0.3 * i as f32).collect();
        let (_, gradient) = network
            .pull_back(&x, &mut |first, logits| {
                cotangent[3 * first..3 * first + logits.len()].to_vec()
            })
            .unwrap_or_else(|e| panic!("{}: {e}", case.label));
        let value = |x: &[f32]| -> f64 {
            let logits = network.logits(x).unwrap();
            logits.iter().zip(&cotangent).map(|(z, c)| f64::from(z * c)).sum()
        };
        let scale = gradient.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
        let mut wrong = 0;
        for i in 0..x.len() {
            let step = 2e-3;
            let at = |shift: f32| {
                let mut x = x.clone();
                x[i] += shift;
                value(&x)
            };
            let difference = ((at(step) - at(-step)) / f64::from(2.0 * step)) as f32;
            wrong += usize::from((difference - gradient[i]).abs() > 0.02 * scale);
        }
        // A kink or a jump may lie within a step of a pixel or two.
        assert!(wrong <= 4, "{}: {wrong} of {} values differ", case.label, x.len());
    }
}

#[test]
fn quantised_values_pass_the_gradient_within_their_range() {
    let (x, cases) = golden();
    let case = cases.iter().find(|case| case.label == "quantize").unwrap();
    let plain = cases.iter().find(|case| case.label == "identity").unwrap();
    let ones = &mut |_: usize, logits: &[f32]| vec![1.0; logits.len()];
    let (_, through) = open(&case.model).unwrap().pull_back(&x, ones).unwrap();
    // Scale 0.02, zero point 10, unsigned: all of [0, 1] lies within.
    assert!(through.iter().all(|g| *g != 0.0));
    assert_eq!(open(&plain.model).unwrap().pull_back(&x, ones).unwrap().1.len(), through.len());
}

#[test]
fn every_operator_that_is_listed_has_a_case() {
    let (_, cases) = golden();
    let mut seen = BTreeSet::new();
    for case in &cases {
        use prost::Message;
        let model = sora_onnx::proto::ModelProto::decode(&case.model[..]).unwrap();
        seen.extend(model.graph.unwrap().node.into_iter().map(|node| node.op_type));
    }
    let missing: Vec<_> = operators().iter().filter(|name| !seen.contains(**name)).collect();
    // Exporters write constants as initializers.
    assert_eq!(missing, [&"Constant"]);
}

#[test]
fn what_is_not_supported_is_one_line_that_names_it() {
    use prost::Message;
    let (_, cases) = golden();
    let bytes = &cases.iter().find(|case| case.label == "relu").unwrap().model;
    let mut model = sora_onnx::proto::ModelProto::decode(&bytes[..]).unwrap();
    model.graph.as_mut().unwrap().node[0].op_type = "Det".into();
    let error = open(&model.encode_to_vec()).unwrap_err().to_string();
    assert!(
        !error.contains('\n') && error.contains("Det") && error.contains("opset 17"),
        "{error}"
    );
    model.opset_import[0].version = 5;
    let error = open(&model.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("operator set 5"), "{error}");
}

/// Names that would break a line or steer a terminal, wherever a file has one.
#[test]
fn names_in_a_file_break_no_line_of_an_error() {
    use prost::Message;
    let (_, cases) = golden();
    let bytes = &cases.iter().find(|case| case.label == "relu").unwrap().model;
    let odd = "x\r\n\u{1b}[2J\u{202e}y";
    let said = |change: &dyn Fn(&mut sora_onnx::proto::GraphProto)| {
        let mut model = sora_onnx::proto::ModelProto::decode(&bytes[..]).unwrap();
        change(model.graph.as_mut().unwrap());
        let error = open(&model.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains(r"x\r\n\u{1b}[2J\u{202e}y"), "{error}");
        assert!(!error.chars().any(|c| c.is_control() || c == '\u{202e}'), "{error}");
    };
    said(&|graph| graph.node[0].op_type = odd.into());
    said(&|graph| graph.node[0].input[0] = odd.into());
    said(&|graph| graph.output[0].name = odd.into());
    said(&|graph| {
        graph.input[0].name = odd.into();
        graph.input[0].r#type = None;
    });
    said(&|graph| {
        graph.node[0].name = odd.into();
        graph.node[0].op_type = "Det".into();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damaged_files_are_refused_or_read(
        which in any::<prop::sample::Index>(),
        cut in 0.0f64..1.0,
        spots in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..8),
    ) {
        let (_, cases) = golden();
        let mut bytes = which.get(&cases).model.clone();
        if cut < 0.2 {
            bytes.truncate((bytes.len() as f64 * cut * 5.0) as usize);
        }
        for (at, value) in spots {
            let at = (at * bytes.len() as f64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        match open(&bytes) {
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{error}"),
            Ok(network) => {
                let shape = network.shape();
                let row = shape.channels * shape.height * shape.width;
                if row < 1 << 20 {
                    let x = vec![0.5; row];
                    let _ = network.pull_back(&x, &mut |_, logits| vec![1.0; logits.len()]);
                }
            }
        }
    }
}
