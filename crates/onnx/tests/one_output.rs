//! Networks of two classes with one output. The files and values are made by
//! `scripts/onnx/one_output.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::PathBuf};

use robustness::OneOutput;
use sora_onnx::{Network, Options};

/// The images, the file `label`, and what onnxruntime computes.
fn golden(label: &str) -> (Vec<f32>, Vec<u8>, Vec<f32>) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/one_output.safetensors");
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>()
    };
    let model = file.tensor(&format!("{label}.model")).unwrap().data().to_vec();
    (floats("x"), model, floats(&format!("{label}.values")))
}

fn open(label: &str, one_output: Option<OneOutput>) -> Network {
    let options = Options { one_output, ..Options::default() };
    Network::from_bytes(&golden(label).1, label, &options).unwrap()
}

#[test]
fn each_form_of_the_same_network_has_the_same_logits_and_gradients() {
    let (x, _, z) = golden("logit");
    let reference = open("logit", None);
    assert!(reference.has_one_output() && reference.one_output().is_none());
    assert_eq!(reference.shape().classes, 2);
    let expected: Vec<f32> = z.iter().flat_map(|&z| [0.0, z]).collect();
    let close = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    };
    let mut weigh = |_: usize, logits: &[f32]| {
        (0..logits.len()).map(|i| if i % 2 == 0 { 5.0 } else { 0.5 }).collect()
    };
    let (_, gradient) = reference.pull_back(&x, &mut weigh).unwrap();
    for network in [
        reference,
        // What goes into the last sigmoid is the logit, whatever is said.
        open("sigmoid", None),
        open("sigmoid", Some(OneOutput::Probability)),
        open("probability", Some(OneOutput::Probability)),
    ] {
        close(&network.logits(&x).unwrap(), &expected);
        let (logits, found) = network.pull_back(&x, &mut weigh).unwrap();
        close(&logits, &expected);
        close(&found, &gradient);
    }
    assert_eq!(open("sigmoid", None).one_output(), Some(OneOutput::Logit));
}

#[test]
fn unasked_the_output_is_taken_as_it_is() {
    let (x, _, p) = golden("probability");
    let found = open("probability", None).logits(&x).unwrap();
    for (row, p) in found.chunks(2).zip(p) {
        assert!(row[0] == 0.0 && (row[1] - p).abs() < 1e-6);
    }
}
