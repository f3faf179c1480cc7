//! Helpers that the tests share.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use sora::{
    data::{self, AugmentDraw, OpenOptions},
    evaluate,
    method::TrainBatch,
    model::{Model, ModelConfig, Shape},
    nn::{BnMode, HostTensor, to_vec},
    threat::Norm,
};

/// A golden file made by `scripts/golden/make.py`.
pub struct Golden {
    name: String,
    tensors: BTreeMap<String, HostTensor>,
    pub labels: BTreeMap<String, Vec<i32>>,
    pub settings: std::collections::HashMap<String, String>,
}

/// A file of the repository.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let bytes =
            std::fs::read(path(&format!("crates/sora/tests/golden/{name}.safetensors"))).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (mut tensors, mut labels) = (BTreeMap::new(), BTreeMap::new());
        for (key, view) in file.iter() {
            if view.dtype() == safetensors::Dtype::I64 {
                labels.insert(
                    key.to_owned(),
                    view.data()
                        .as_chunks::<8>()
                        .0
                        .iter()
                        .map(|b| i64::from_le_bytes(*b) as i32)
                        .collect(),
                );
            } else {
                let data =
                    view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                tensors.insert(
                    key.to_owned(),
                    HostTensor { name: key.to_owned(), shape: view.shape().to_vec(), data },
                );
            }
        }
        Self {
            name: name.to_owned(),
            tensors,
            labels,
            settings: header.metadata().clone().unwrap_or_default(),
        }
    }

    pub fn host(&self, key: &str) -> &HostTensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor '{key}'", self.name))
    }

    pub fn values(&self, key: &str) -> &[f32] {
        &self.host(key).data
    }

    pub fn scalar(&self, key: &str) -> f32 {
        self.values(key)[0]
    }

    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    pub fn tensors(&self) -> &BTreeMap<String, HostTensor> {
        &self.tensors
    }

    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [f32])> {
        self.tensors.iter().filter_map(move |(key, tensor)| {
            Some((key.strip_prefix(prefix)?, tensor.data.as_slice()))
        })
    }

    pub fn image(&self, key: &str) -> Tensor<4> {
        let host = self.host(key);
        Tensor::from_data(TensorData::new(host.data.clone(), host.shape.clone()), &Device::flex())
    }

    pub fn labels(&self, key: &str) -> Tensor<1, Int> {
        Tensor::from_data(self.labels[key].as_slice(), &Device::flex())
    }

    pub fn draws(&self, step: usize) -> BTreeMap<String, Vec<f32>> {
        let mut found = BTreeMap::new();
        for (key, values) in self.with_prefix("draw.") {
            let mut parts = key.split('.');
            let (name, t, k) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
            if t.parse() == Ok(step) {
                // The first of several draws of a name is called by the name alone.
                let k = k.map_or(0, |k| k.parse::<u16>().unwrap() - 1);
                found.insert(
                    if k == 0 { name.to_owned() } else { format!("{name}.{k}") },
                    values.to_vec(),
                );
            }
        }
        found
    }

    /// Asserts that `found` agrees within `tolerance`, relative to the largest expected value,
    /// because users of the whole tensor see differences on that scale.
    #[track_caller]
    pub fn check(&self, key: &str, found: &[f32], tolerance: f32) {
        assert_close(&format!("{} {key}", self.name), found, self.values(key), tolerance);
    }
}

/// Largest difference relative to the largest expected magnitude.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    assert!(found.iter().all(|v| v.is_finite()), "{what}: not finite");
    let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-12);
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0f32, f32::max);
    assert!(
        worst <= tolerance,
        "{what}: differs by {worst:.2e} of its largest value, allowed {tolerance:.0e}"
    );
}

pub fn host<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    to_vec(tensor).unwrap()
}

/// A PreActResNet-18 of width 4 with the golden weights.
pub fn golden_model(images: &Golden, channels: usize, height: usize, width: usize) -> Model {
    let config = ModelConfig {
        name: "preact-resnet18".into(),
        width: 4,
        shape: Shape { channels, height, width, classes: 10 },
        mean: images.values("mean").to_vec(),
        std: images.values("std").to_vec(),
        options: Default::default(),
        onnx: None,
    };
    let mut model = Model::init(config, 0, &Device::flex()).unwrap();
    let weights = Golden::load("weights");
    let mut tensors = weights.tensors().clone();
    if images.has("conv1.weight") {
        tensors.insert("conv1.weight".into(), images.host("conv1.weight").clone());
    }
    model.load(&tensors, "golden weights").unwrap();
    model
}

/// An untrained model of width 4 on `side` x `side` images.
pub fn small_model(seed: u64, channels: usize, side: usize) -> Model {
    let config = ModelConfig {
        name: "preact-resnet18".into(),
        width: 4,
        shape: Shape { channels, height: side, width: side, classes: 10 },
        mean: vec![0.5; channels],
        std: vec![0.25; channels],
        options: Default::default(),
        onnx: None,
    };
    Model::init(config, seed, &Device::flex()).unwrap()
}

/// Side of the images of [`batch`].
pub const SIDE: usize = 8;

/// The usual radius.
pub fn threat(norm: Norm) -> sora::threat::Threat {
    sora::threat::Threat { norm, epsilon: if norm == Norm::Linf { 8.0 / 255.0 } else { 0.5 } }
}

/// `n` synthetic images, not augmented.
pub fn batch(n: usize) -> TrainBatch {
    let options = OpenOptions {
        image_size: Some(SIDE),
        limit_train: Some(n),
        limit_test: Some(1),
        ..Default::default()
    };
    let dataset = data::open("synthetic", &options).unwrap();
    let indices: Vec<usize> = (0..n).collect();
    let device = Device::flex();
    let [c, h, w] = dataset.train.shape();
    let labels: Vec<i32> = indices.iter().map(|&i| dataset.train.label(i) as i32).collect();
    let x = Tensor::from_data(
        TensorData::new(evaluate::pixels(&dataset.train, &indices).unwrap(), [n, c, h, w]),
        &device,
    );
    let labels = Tensor::from_data(labels.as_slice(), &device);
    TrainBatch {
        x,
        labels,
        ids: dataset.train.ids().to_vec(),
        draws: vec![AugmentDraw::IDENTITY; n],
    }
}

/// The network `name` of width 8, untrained, with running statistics of a pass.
pub fn warm_model(name: &str, shape: Shape) -> Model {
    let Shape { channels, height, width, .. } = shape;
    let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
    let config = ModelConfig {
        name: name.into(),
        width: 8,
        shape,
        mean,
        std,
        options: Default::default(),
        onnx: None,
    };
    let mut model = Model::init(config, 3, &Device::flex()).unwrap();
    let pixels =
        (0..8 * channels * height * width).map(|p| (p as f32 * 0.618).fract()).collect::<Vec<_>>();
    let x =
        Tensor::from_data(TensorData::new(pixels, [8, channels, height, width]), &Device::flex());
    let (_, stats) = model.forward(&model.params.frozen(), x, BnMode::Train);
    model.absorb(stats);
    model
}
