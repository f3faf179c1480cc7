//! Networks: the registry, and [`Model`], a network together with its values.
//!
//! A network is a list of layers that a [`Builder`] collects. Each network of the literature has a
//! row in [`NETWORKS`], which stands in the network's own file. A network of your own is
//! [registered](register) or becomes a [`Model`] directly ([`Model::from_builder`]).

mod builder;
mod cct;
mod classifier;
mod config;
mod dm_preact_resnet;
mod dm_wide_resnet;
mod graph;
mod imported;
mod incremental;
mod mnist_cnn;
mod options;
mod preact_resnet;
mod registry;
mod resnet;
mod senet;
mod vgg;
mod vit;
mod wide_resnet;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use burn::tensor::{Device, Tensor};

use crate::{
    device,
    error::{Error, Result},
    nn::{
        Backend, BatchPart, BatchStats, BnMode, DropoutSource, Flat, HostTensor, Pass, Precision,
        Products, SpecBuilder, TensorSet, Weights, normalize,
    },
    profile::{self, Stage},
    ranks::scope,
};

pub use builder::{Builder, Id, Start, Structure, Window};
pub use config::ModelConfig;
pub use graph::Graph;
pub(crate) use graph::{Layer, Norm, Op};
pub(crate) use imported::to_onnx as imported_to_onnx;
pub use imported::{IMPORTED, OnnxGraph};
pub(crate) use incremental::{IncrementalImage, IncrementalPass};
pub use options::{NetworkOptions, Shortcut, Stem};
pub use registry::{NETWORKS, NetworkInfo, network, networks, register};
pub use robustness::Shape;

/// PyTorch's default momentum of the running statistics.
const BN_MOMENTUM: f32 = 0.1;

/// A running statistic, moved towards the one of a batch.
fn moved(running: Tensor<1>, batch: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    if Backend::of(&running.device()) == Backend::Burn {
        return crate::nn::updates::blend(running, batch, BN_MOMENTUM);
    }
    running * (1.0 - BN_MOMENTUM) + batch * BN_MOMENTUM
}

/// A network's structure: a pure function of weights, buffers and input.
pub trait Network: Debug + Send + Sync {
    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`.
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat;

    /// The network as a list of layers, which the export to ONNX needs.
    fn graph(&self) -> Option<&Graph> {
        None
    }

    /// Least number of bytes that the gradients of `images` images take at once beside the weights,
    /// if the network is no list of layers and knows it.
    fn least_bytes(&self, _images: usize) -> Option<u64> {
        None
    }
}

/// A network with its values, on a device. Its input is pixels in [0, 1], because the normalisation
/// is the first layer.
#[derive(Clone, Debug)]
pub struct Model {
    /// Structure and normalisation.
    pub config: ModelConfig,
    /// Trained values.
    pub params: TensorSet,
    /// Running statistics.
    pub buffers: TensorSet,
    /// The backend of the layers: by default the CPU engine on the CPU, and Burn elsewhere.
    backend: Backend,
    precision: Precision,
    products: Products,
    network: Arc<dyn Network>,
    dropout: DropoutSource,
    device: Device,
}

impl Model {
    /// A freshly initialised network. `seed` alone decides the values, whatever the device.
    ///
    /// # Errors
    /// [`Error`] for an unknown network, an impossible configuration, or one that exceeds the
    /// memory.
    pub fn init(config: ModelConfig, seed: u64, device: &Device) -> Result<Self> {
        let (network, specs) = config.network()?;
        Self::fresh(config, network, specs, seed, device)
    }

    /// A network of your own, made from the layers of a [`Builder`] and freshly initialised. It
    /// trains and is evaluated like any other network; a run folder needs its name in the registry
    /// ([`register`]), by which the network is built again.
    ///
    /// # Errors
    /// [`Error`] for layers that do not fit the images, a normalisation that does not fit the
    /// channels, or a network that exceeds the memory.
    pub fn from_builder(
        name: &str,
        builder: Builder,
        [mean, std]: [Vec<f32>; 2],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let (width, shape, options) = (builder.width(), builder.shape(), builder.options());
        let config =
            ModelConfig { name: name.into(), width, shape, mean, std, options, onnx: None };
        config.check()?;
        let Structure { graph, specs } = builder.finish()?;
        Self::fresh(config, Arc::new(graph), specs, seed, device)
    }

    /// A network with the values of `tensors`, by PyTorch's names; `origin` names their file in
    /// errors. It takes no more memory than the tensors do, whatever `config` claims.
    ///
    /// # Errors
    /// [`Error`] for an unknown network, an impossible configuration, or tensors that are missing
    /// or misshaped.
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &BTreeMap<String, HostTensor>,
        origin: &str,
        device: &Device,
    ) -> Result<Self> {
        let (network, specs) = config.network()?;
        let params = TensorSet::from_host(specs.params, tensors, origin, device)?;
        let buffers = TensorSet::from_host(specs.buffers, tensors, origin, device)?;
        Self::of_values(config, network, [params, buffers], device)
    }

    fn fresh(
        config: ModelConfig,
        network: Arc<dyn Network>,
        specs: SpecBuilder,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let parameters: u64 = specs.params.iter().map(|spec| spec.len() as u64).sum();
        let needed = parameters.saturating_mul(size_of::<f32>() as u64);
        if let Some(free) = device::available_memory().filter(|free| needed > *free) {
            let subject = format!(
                "{} of width {}: {} million parameters:",
                config.name,
                config.width,
                parameters / 1_000_000
            );
            let advice = "choose a smaller `width`".into();
            return Err(Error::Memory { subject, needed, free, advice });
        }
        let params = TensorSet::init(specs.params, seed, device);
        let buffers = TensorSet::init(specs.buffers, seed, device);
        Self::of_values(config, network, [params, buffers], device)
    }

    fn of_values(
        config: ModelConfig,
        network: Arc<dyn Network>,
        [params, buffers]: [TensorSet; 2],
        device: &Device,
    ) -> Result<Self> {
        if config.is_imported() && Backend::of(device) != Backend::Engine {
            let problem = "a network of an ONNX file is computed on the cpu only";
            return Err(Error::setting("device", "", problem));
        }
        Ok(Self {
            config,
            params,
            buffers,
            backend: Backend::of(device),
            precision: Precision::F32,
            products: Products::of_f32(device),
            network,
            dropout: DropoutSource::default(),
            device: device.clone(),
        })
    }

    /// As [`Network::least_bytes`].
    pub(crate) fn least_bytes(&self, images: usize) -> Option<u64> {
        self.network.least_bytes(images)
    }

    /// The network as a list of layers.
    pub(crate) fn graph(&self) -> Option<&Graph> {
        self.network.graph()
    }

    /// Sets the step whose dropout masks the next training-mode passes draw. The masks are a
    /// function of `seed`, `step` and the number of passes since this call.
    pub fn begin_step(&mut self, seed: u64, step: u64) {
        self.dropout = DropoutSource::new(seed, step);
    }

    /// As [`begin_step`](Self::begin_step), of a batch of which this process has a part.
    pub fn begin_step_of(&mut self, seed: u64, step: u64, part: BatchPart) {
        self.dropout = DropoutSource::new(seed, step).of_part(part);
    }

    fn pass(&self, mode: BnMode) -> Pass {
        let mut pass = Pass {
            precision: self.precision,
            products: self.products,
            ..Pass::new(self.backend, mode, self.buffers.frozen())
        };
        if mode == BnMode::Train && self.config.options.dropout > 0.0 {
            pass.dropout = Some(self.dropout.next_pass());
        }
        pass
    }

    /// The backend that computes the layers.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Chooses the backend that computes the layers.
    ///
    /// # Errors
    /// [`Error`] for the CPU engine on another device.
    pub fn set_backend(&mut self, backend: Backend) -> Result<()> {
        if backend == Backend::Engine && Backend::of(&self.device) != backend {
            return Err(Error::setting(
                "backend",
                backend,
                "the engine works on the `device` cpu only; expected burn",
            ));
        }
        self.backend = backend;
        Ok(())
    }

    /// The storage type of the layers' results; f32 by default.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Chooses how the layers store their results and multiply.
    ///
    /// # Errors
    /// A precision that the device does not have.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        self.products = Products::of(precision, &self.device)?;
        self.precision = precision;
        Ok(())
    }

    /// How Burn's operations multiply.
    #[cfg(feature = "gpu")]
    pub(crate) fn products(&self) -> Products {
        self.products
    }

    /// Identifies the structure, as long as a clone of the model is there.
    #[cfg(feature = "gpu")]
    pub(crate) fn network_address(&self) -> usize {
        Arc::as_ptr(&self.network).cast::<()>() as usize
    }

    /// The same network and values in f32, the precision of evaluations.
    pub fn in_f32(&self) -> Self {
        let products = Products::of_f32(&self.device);
        Self { precision: Precision::F32, products, ..self.clone() }
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Logits `[N, classes]` of pixels `x` `[N, C, H, W]` in [0, 1], and the batch statistics of a
    /// training-mode pass.
    pub fn forward(
        &self,
        weights: &Weights,
        x: Tensor<4>,
        mode: BnMode,
    ) -> (Tensor<2>, Vec<BatchStats>) {
        let mut pass = self.pass(mode);
        let logits = self.network.forward(
            weights,
            normalize(x, &self.config.mean, &self.config.std, self.backend),
            &mut pass,
        );
        (logits.values, pass.stats)
    }

    /// Logits `[N, classes]` of pixels `x` and their derivative along `direction`, both `[N, C, H,
    /// W]`. The derivative can be differentiated; ReLUs count as linear on either side of 0.
    pub fn forward_along(
        &self,
        weights: &Weights,
        x: Tensor<4>,
        direction: Tensor<4>,
        mode: BnMode,
    ) -> (Tensor<2>, Tensor<2>) {
        let mut pass = self.pass(mode);
        let origin = vec![0.0; self.config.mean.len()];
        pass.tangent = Some(normalize(direction, &origin, &self.config.std, self.backend));
        let logits = self.network.forward(
            weights,
            normalize(x, &self.config.mean, &self.config.std, self.backend),
            &mut pass,
        );
        // A network without derivatives along a direction must not pass for one that is flat.
        let along = logits.tangent.unwrap_or_else(|| logits.values.full_like(f32::NAN));
        (logits.values, along)
    }

    /// Logits in eval mode, without recording a gradient.
    pub fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward(&self.params.frozen(), x, BnMode::Eval).0
    }

    /// Moves the running statistics towards those of a pass: `r <- 0.9 r + 0.1 batch`.
    pub fn absorb(&mut self, stats: Vec<BatchStats>) {
        profile::time(Stage::Statistics, || {
            let (ids, values): (Vec<_>, Vec<_>) = stats
                .into_iter()
                .map(|s| ([s.mean, s.variance], [s.batch_mean, s.batch_variance]))
                .unzip();
            let values = scope::mean_of_local(values.into_iter().flatten().collect());
            for (id, batch) in ids.into_iter().flatten().zip(values) {
                let running = self.buffers.take(id.0);
                self.buffers.set(id.0, moved(running, batch));
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
