//! Networks: the registry, and [`Model`], a network together with its values.

mod preact_resnet;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    nn::{Backend, BatchStats, BnMode, Flat, HostTensor, Pass, Precision, SpecBuilder, TensorSet, Weights, normalize},
    profile::{self, Part},
};

pub use preact_resnet::PreActResNet;

/// PyTorch's default momentum of the running statistics.
const BN_MOMENTUM: f32 = 0.1;

/// What a network takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Image channels.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

/// A network's structure: a pure function of weights, buffers and input.
pub trait Network: Debug + Send + Sync {
    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`.
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat;
}

/// One row of the registry.
#[derive(Debug)]
pub struct NetworkInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `sora models`.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// The paper's width.
    pub default_width: usize,
    build: fn(&mut SpecBuilder, usize, Shape) -> Box<dyn Network>,
}

/// Every network, in the order of `sora models`.
pub const NETWORKS: &[NetworkInfo] = &[
    NetworkInfo {
        name: "preact-resnet18",
        summary: "PreActResNet-18, CIFAR stem; width scales every layer",
        source: "He et al. 2016, arXiv 1603.05027",
        default_width: 64,
        build: |specs, width, shape| Box::new(PreActResNet::new(specs, [2, 2, 2, 2], width, shape)),
    },
    NetworkInfo {
        name: "preact-resnet34",
        summary: "PreActResNet-34, CIFAR stem; width scales every layer",
        source: "He et al. 2016, arXiv 1603.05027",
        default_width: 64,
        build: |specs, width, shape| Box::new(PreActResNet::new(specs, [3, 4, 6, 3], width, shape)),
    },
];

/// The registry row of `name`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn network(name: &str) -> Result<&'static NetworkInfo> {
    NETWORKS.iter().find(|info| info.name == name).ok_or_else(|| {
        let known: Vec<_> = NETWORKS.iter().map(|info| info.name).collect();
        Error::input(format!("--model '{name}': no such network; choose one of {}", known.join(", ")))
    })
}

/// Everything that decides a network's structure and its normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Registry name.
    pub name: String,
    /// Channels of the first stage.
    pub width: usize,
    /// Images and classes.
    pub shape: Shape,
    /// Mean of each channel in pixel space, in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel in pixel space.
    pub std: Vec<f32>,
}

impl ModelConfig {
    fn check(&self) -> Result<()> {
        let Shape { channels, height, width, classes } = self.shape;
        if self.width == 0 || self.width > 4096 {
            return Err(Error::input(format!("--width {}: expected 1 to 4096", self.width)));
        }
        if channels == 0 || height == 0 || width == 0 || classes == 0 {
            return Err(Error::input(format!(
                "model: images of {channels}x{height}x{width} in {classes} classes; expected at least 1 of each"
            )));
        }
        if self.mean.len() != channels || self.std.len() != channels {
            return Err(Error::input(format!(
                "model: normalisation has {} means and {} standard deviations; expected one of each for the {channels} channels",
                self.mean.len(),
                self.std.len()
            )));
        }
        if !self.mean.iter().all(|m| m.is_finite()) || !self.std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::input("model: normalisation values must be finite and the standard deviations above 0"));
        }
        Ok(())
    }
}

/// A network with its values, on a device. Images go in as pixels in [0, 1]: the normalisation is the first layer.
#[derive(Clone, Debug)]
pub struct Model {
    /// Structure and normalisation.
    pub config: ModelConfig,
    /// Trained values.
    pub params: TensorSet,
    /// Running statistics.
    pub buffers: TensorSet,
    /// What computes the layers: by default the CPU engine on the CPU, Burn elsewhere.
    backend: Backend,
    precision: Precision,
    network: Arc<dyn Network>,
    device: Device,
}

impl Model {
    /// A freshly initialised network; `seed` alone decides the values, whatever the device.
    ///
    /// # Errors
    /// An unknown network or an impossible configuration.
    pub fn init(config: ModelConfig, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let mut specs = SpecBuilder::default();
        let network = (network(&config.name)?.build)(&mut specs, config.width, config.shape);
        Ok(Self {
            config,
            params: TensorSet::init(specs.params, seed, device),
            buffers: TensorSet::init(specs.buffers, seed, device),
            backend: if *device == Device::flex() { Backend::Engine } else { Backend::Burn },
            precision: Precision::F32,
            network: network.into(),
            device: device.clone(),
        })
    }

    /// What computes the layers.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Chooses what computes the layers.
    ///
    /// # Errors
    /// The CPU engine on another device.
    pub fn set_backend(&mut self, backend: Backend) -> Result<()> {
        if backend == Backend::Engine && self.device != Device::flex() {
            return Err(Error::input("the CPU engine works on --device cpu only; choose the backend burn"));
        }
        self.backend = backend;
        Ok(())
    }

    /// How the layers store their results: f32 unless set otherwise.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Chooses how the layers store their results. On the CPU engine feature maps and their gradients are kept as bf16; Burn's own operations
    /// round them to bf16 at the same points and compute in f32.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// The same network and values in f32, as evaluations want them.
    pub fn in_f32(&self) -> Self {
        Self { precision: Precision::F32, ..self.clone() }
    }

    fn pass(&self, mode: BnMode) -> Pass {
        Pass { precision: self.precision, ..Pass::new(self.backend, mode, self.buffers.frozen()) }
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Logits `[N, classes]` of pixels `x` `[N, C, H, W]` in [0, 1], and the batch statistics of a training-mode pass.
    pub fn forward(&self, weights: &Weights, x: Tensor<4>, mode: BnMode) -> (Tensor<2>, Vec<BatchStats>) {
        let mut pass = self.pass(mode);
        let logits = self.network.forward(weights, normalize(x, &self.config.mean, &self.config.std), &mut pass);
        (logits.values, pass.stats)
    }

    /// Logits `[N, classes]` of pixels `x` and their derivative along `direction`, both `[N, C, H, W]`. The derivative can be differentiated;
    /// ReLUs count as linear on either side of 0.
    pub fn forward_along(&self, weights: &Weights, x: Tensor<4>, direction: Tensor<4>, mode: BnMode) -> (Tensor<2>, Tensor<2>) {
        let mut pass = self.pass(mode);
        let origin = vec![0.0; self.config.mean.len()];
        pass.tangent = Some(normalize(direction, &origin, &self.config.std));
        let logits = self.network.forward(weights, normalize(x, &self.config.mean, &self.config.std), &mut pass);
        let along = logits.tangent.unwrap_or_else(|| logits.values.zeros_like());
        (logits.values, along)
    }

    /// Logits in eval mode, no gradient recorded.
    pub fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward(&self.params.frozen(), x, BnMode::Eval).0
    }

    /// Moves the running statistics towards those of a pass: `r <- 0.9 r + 0.1 batch`.
    pub fn absorb(&mut self, stats: Vec<BatchStats>) {
        profile::time(Part::Statistics, || {
            for s in stats {
                for (id, batch) in [(s.mean, s.batch_mean), (s.variance, s.batch_variance)] {
                    let running = self.buffers.take(id.0);
                    self.buffers.set(id.0, running * (1.0 - BN_MOMENTUM) + batch * BN_MOMENTUM);
                }
            }
        });
    }

    /// Parameters and buffers on the host, with PyTorch's names.
    pub fn to_host(&self) -> Result<Vec<HostTensor>> {
        let mut tensors = self.params.to_host()?;
        tensors.extend(self.buffers.to_host()?);
        Ok(tensors)
    }

    /// Loads parameters and buffers by name; `origin` names their file in errors.
    pub fn load(&mut self, tensors: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        self.params.load(tensors, origin)?;
        self.buffers.load(tensors, origin)
    }
}
