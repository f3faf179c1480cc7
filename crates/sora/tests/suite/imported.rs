//! Networks of ONNX files: gradients through a model, and trainings with every method that can. The
//! files and values are made by `scripts/onnx/small.py`.

use std::{collections::BTreeMap, fs};

use burn::tensor::{Device, Tensor, TensorData};
use sora::{
    exchange,
    gradient::TrainPass,
    method::{METHODS, TrainBatch},
    model::{IMPORTED, Model, ModelConfig},
    nn::HostTensor,
    threat::Norm,
};
use sora_onnx::{Network, Options, Role, Trainable};

use crate::{
    methods::run,
    support::{batch, host, path},
};

const NAMES: [&str; 3] = ["pre-activation", "depthwise", "transformer"];

pub fn values(name: &str) -> Vec<u8> {
    let bytes = fs::read(path("crates/onnx/tests/golden/small.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    values(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn imported(name: &str) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.onnx");
    fs::write(&file, values(&format!("{name}.model"))).unwrap();
    let (graph, values) = Trainable::open(&file, &Options::default()).unwrap();
    let config = ModelConfig::imported(&graph, [vec![0.0; 3], vec![1.0; 3]], name).unwrap();
    let tensors = graph.weights().iter().zip(values).map(|(weight, data)| {
        let (name, shape) = (weight.name.clone(), weight.shape.clone());
        (name.clone(), HostTensor { name, shape, data })
    });
    let tensors: BTreeMap<_, _> = tensors.collect();
    Model::from_tensors(config, &tensors, name, &Device::flex()).unwrap()
}

/// Eight images of 16x16.
fn images() -> TrainBatch {
    let small = batch(8);
    let wide = Tensor::cat(vec![small.x.clone(), small.x.clone()], 3);
    TrainBatch { x: Tensor::cat(vec![wide.clone(), wide], 2), ..small }
}

fn gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn a_model_gives_the_logits_and_gradients_of_its_file() {
    let device = Device::flex();
    let x = Tensor::from_data(TensorData::new(floats("x"), [4, 3, 16, 16]), &device);
    let cotangent = TensorData::new(floats("cotangent"), [4, 10]);
    let cotangent: Tensor<2> = Tensor::from_data(cotangent, &device);
    for name in NAMES {
        let model = imported(name);
        assert_eq!(model.config.name, IMPORTED);
        let logits = host(&model.logits(x.clone()));
        assert!(gap(&logits, &floats(&format!("{name}.logits"))) < 1e-5, "{name}");
        let mut pass = TrainPass::new(&model, x.clone(), 0.0);
        let logits = pass.at_point();
        let loss = (logits.clone() * cotangent.clone().autodiff()).sum();
        let found = pass.finish(loss, logits);
        assert!(found.stats.is_empty(), "running statistics stay");
        assert!(gap(&host(&found.input), &floats(&format!("{name}.grad"))) < 1e-4, "{name}");
        let mut held = 0;
        for (spec, gradient) in model.params.specs().iter().zip(&found.params) {
            let golden = format!("{name}.grad.{}", spec.name);
            let bytes = fs::read(path("crates/onnx/tests/golden/small.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            if file.names().contains(&&*golden) {
                assert!(gap(&host(gradient), &floats(&golden)) < 1e-4, "{golden}");
                held += 1;
            }
        }
        assert!(held >= 6, "{name}: {held}");
        let statistics = model.buffers.specs().len();
        assert_eq!(statistics, if name == "pre-activation" { 2 } else { 0 });
    }
}

#[test]
fn every_method_but_those_that_need_tangents_trains_it() {
    let batch = images();
    let mut refused = Vec::new();
    for info in METHODS {
        let threat = crate::support::threat(info.norms[0]);
        let built = info.build(&(info.options)().unwrap(), threat).unwrap();
        if built.needs_tangents() {
            refused.push(info.name);
            continue;
        }
        let mut model = imported("pre-activation");
        let before = host(&model.params.values()[0]);
        let trace = run(info, info.norms[0], &mut model, &batch, 3, Some(2));
        assert!(trace.losses.iter().all(|loss| loss.is_finite()), "{}", info.name);
        assert_ne!(before, host(&model.params.values()[0]), "{}", info.name);
    }
    assert_eq!(refused, ["gradalign"]);
}

#[test]
fn a_short_training_lowers_the_loss_and_leaves_the_statistics() {
    let (info, batch) = (sora::method::method("sora").unwrap(), images());
    for name in NAMES {
        let mut model = imported(name);
        let statistics: Vec<Vec<f32>> = model.buffers.values().iter().map(host).collect();
        let trace = run(info, Norm::Linf, &mut model, &batch, 24, None);
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        let (first, last) = (mean(&trace.losses[..3]), mean(&trace.losses[21..]));
        assert!(last < first - 0.02, "{name}: {:?}", trace.losses);
        assert_eq!(statistics, model.buffers.values().iter().map(host).collect::<Vec<_>>());
        // The same steps give the same bits, and the weights are used that were set last.
        let again = run(info, Norm::Linf, &mut imported(name), &batch, 24, None);
        assert_eq!(trace.weights, again.weights, "{name}");
        let logits = host(&model.logits(batch.x.clone()));
        let file = exchange::to_onnx(&model, &[("made".into(), "here".into())]).unwrap();
        let read = Network::from_bytes(&file, name, &Options::default()).unwrap();
        assert!(gap(&read.logits(&host(&batch.x)).unwrap(), &logits) < 1e-5, "{name}");
    }
}

#[test]
fn a_derivative_along_a_direction_is_not_taken_for_zero() {
    let (model, x) = (imported("depthwise"), images().x);
    let weights = model.params.frozen();
    let (logits, along) = model.forward_along(&weights, x.clone(), x, sora::nn::BnMode::Eval);
    assert!(host(&logits).iter().all(|v| v.is_finite()));
    assert!(host(&along).iter().all(|v| v.is_nan()));
}

#[test]
fn the_configuration_keeps_the_graph_through_a_file() {
    let model = imported("transformer");
    let text = toml::to_string(&model.config).unwrap();
    assert!(text.len() < 8000, "{} characters", text.len());
    let config: ModelConfig = toml::from_str(&text).unwrap();
    assert_eq!(config, model.config);
    let short = serde_json::to_string(&config.for_identity()).unwrap();
    assert!(short.len() < 400 && short.contains("sha256:"), "{short}");
    let graph = config.onnx_graph().unwrap();
    assert!(graph.weights().iter().all(|weight| weight.role == Role::Trained));
    let tensors = model.to_host().unwrap();
    let tensors: BTreeMap<_, _> = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
    let other =
        ModelConfig { shape: sora::model::Shape { classes: 11, ..config.shape }, ..config.clone() };
    let from = |config| Model::from_tensors(config, &tensors, "w", &Device::flex());
    assert!(from(other).unwrap_err().to_string().contains("its graph is one for"));
    assert!(from(ModelConfig { onnx: None, ..config.clone() }).is_err());
    for place in (0..text.len()).step_by(97) {
        let mut damaged = text.clone().into_bytes();
        damaged[place] = b'x';
        if let Ok(Ok(config)) = String::from_utf8(damaged).map(|t| toml::from_str(&t)) {
            let _ = from(config);
        }
    }
}
