//! Networks: the registry, and [`Model`], a network together with its values.

mod cct;
mod classifier;
mod graph;
mod local;
mod mnist_cnn;
mod preact_resnet;
mod resnet;
mod senet;
mod vgg;
mod vit;
mod wide_resnet;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    device,
    error::{Error, Result},
    nn::{
        Activation, Backend, BatchStats, BnMode, DropoutSource, Flat, HostTensor, Pass, Precision,
        SpecBuilder, TensorSet, Weights, normalize,
    },
    profile::{self, Stage},
};

pub use graph::{Builder, Graph, Id};
pub(crate) use graph::{Layer, Op};
pub(crate) use local::{LocalImage, LocalPass};
pub use robustness::Shape;

/// Images from this size on count as large: networks that have two forms take the one for ImageNet.
pub(crate) const LARGE_IMAGE: usize = 96;

/// PyTorch's default momentum of the running statistics.
const BN_MOMENTUM: f32 = 0.1;

/// A network's structure: a pure function of weights, buffers and input.
pub trait Network: Debug + Send + Sync {
    /// Logits `[N, classes]` of normalised images `[N, C, H, W]`.
    fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &mut Pass) -> Flat;

    /// The network as a list of layers, which the export to ONNX needs.
    fn graph(&self) -> Option<&Graph> {
        None
    }
}

/// How a network takes in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// A 3x3 convolution at full resolution.
    Cifar,
    /// A 7x7 convolution of stride 2 and a max pool: a quarter of the resolution.
    Imagenet,
}

/// What may be chosen of a network besides its width; each network takes some of these
/// ([`NetworkInfo::options`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Activation function; `None`: the network's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Rate of dropout in training mode, at least 0 and below 1.
    #[serde(default)]
    pub dropout: f32,
    /// Stem; `None`: the CIFAR one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// Side of a patch in pixels; `None`: by the size of the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
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
    /// Where the names of the weights and their start come from.
    pub names: &'static str,
    /// The paper's width.
    pub default_width: usize,
    /// The paper's activation.
    pub activation: Activation,
    /// The options that it takes: `activation`, `dropout`, `stem`, `patch`.
    pub options: &'static [&'static str],
    /// The weight whose first dimension is the width.
    pub(crate) width_from: &'static str,
    /// The weight whose first dimension is the number of classes, in any of the network's forms.
    pub(crate) classes_from: &'static [&'static str],
    /// Other names that files have for parts of the weights' names.
    pub(crate) aliases: &'static [(&'static str, &'static str)],
    build: fn(&mut Builder<'_>, Id),
}

impl NetworkInfo {
    /// The structure, its parameters and buffers.
    fn structure(
        &self,
        width: usize,
        shape: Shape,
        options: NetworkOptions,
    ) -> Result<(Graph, SpecBuilder)> {
        let mut specs = SpecBuilder::default();
        let (mut builder, input) = Builder::new(
            &mut specs,
            width,
            shape,
            options,
            options.activation.unwrap_or(self.activation),
        );
        (self.build)(&mut builder, input);
        let graph = builder.finish()?;
        Ok((graph, specs))
    }

    /// Number of parameters for images of `shape`, with default options.
    ///
    /// # Errors
    /// Images that the network does not take.
    pub fn parameters(&self, width: usize, shape: Shape) -> Result<u64> {
        let (_, specs) = self.structure(width, shape, NetworkOptions::default())?;
        Ok(specs.params.iter().map(|spec| spec.len() as u64).sum())
    }

    /// Fills in what the size of the images decides, and refuses options that the network does not
    /// take.
    ///
    /// # Errors
    /// An option that the network does not take, or a wrong value.
    pub fn resolve(&self, options: NetworkOptions, shape: Shape) -> Result<NetworkOptions> {
        let given = [
            ("activation", options.activation.is_some()),
            ("dropout", options.dropout != 0.0),
            ("stem", options.stem.is_some()),
            ("patch", options.patch.is_some()),
        ];
        if let Some((name, _)) =
            given.into_iter().find(|(name, given)| *given && !self.options.contains(name))
        {
            let taken = match self.options {
                [] => "it has none".to_owned(),
                some => format!(
                    "it takes {}",
                    some.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
                ),
            };
            return Err(Error::input(format!(
                "--{name}: the network {} has no such option; {taken}",
                self.name
            )));
        }
        if !(0.0..1.0).contains(&options.dropout) {
            return Err(Error::input(format!(
                "--dropout {}: expected at least 0 and below 1",
                options.dropout
            )));
        }
        let side = shape.height.min(shape.width);
        let stem = if side < LARGE_IMAGE { Stem::Cifar } else { Stem::Imagenet };
        Ok(NetworkOptions {
            activation: Some(options.activation.unwrap_or(self.activation)),
            dropout: options.dropout,
            stem: self.options.contains(&"stem").then(|| options.stem.unwrap_or(stem)),
            patch: self
                .options
                .contains(&"patch")
                .then(|| options.patch.unwrap_or_else(|| vit::default_patch(side))),
        })
    }
}

const PREACT: NetworkInfo = NetworkInfo {
    name: "",
    summary: "",
    source: "He et al. 2016, arXiv 1603.05027",
    names: "the public CIFAR implementations; PyTorch's default start",
    default_width: 64,
    activation: Activation::Relu,
    options: &["activation", "stem"],
    width_from: "conv1.weight",
    classes_from: &["linear.weight"],
    aliases: &[("fc.", "linear.")],
    build: |_, _| {},
};

const RESNET: NetworkInfo = NetworkInfo {
    source: "He et al. 2015, arXiv 1512.03385",
    names: "torchvision",
    classes_from: &["fc.weight"],
    aliases: &[("linear.", "fc."), (".shortcut.", ".downsample.")],
    ..PREACT
};

const WIDE: NetworkInfo = NetworkInfo {
    source: "Zagoruyko and Komodakis 2016, arXiv 1605.07146",
    names: "TRADES, RobustBench",
    default_width: 160,
    options: &["activation", "dropout"],
    width_from: "block1.layer.0.conv1.weight",
    classes_from: &["fc.weight"],
    aliases: &[("linear.", "fc.")],
    ..PREACT
};

const VIT: NetworkInfo = NetworkInfo {
    source: "Dosovitskiy et al. 2020, arXiv 2010.11929; Touvron et al. 2020, arXiv 2012.12877",
    names: "timm",
    default_width: 192,
    activation: Activation::Gelu,
    options: &["activation", "dropout", "patch"],
    width_from: "patch_embed.proj.weight",
    classes_from: &["head.weight"],
    aliases: &[],
    ..PREACT
};

/// Every network, in the order of `sora models`.
pub const NETWORKS: &[NetworkInfo] = &[
    NetworkInfo {
        name: "preact-resnet18",
        summary: "PreActResNet-18; width scales every layer",
        build: |net, x| preact_resnet::preact_resnet(net, x, [2, 2, 2, 2], false),
        ..PREACT
    },
    NetworkInfo {
        name: "preact-resnet34",
        summary: "PreActResNet-34; width scales every layer",
        build: |net, x| preact_resnet::preact_resnet(net, x, [3, 4, 6, 3], false),
        ..PREACT
    },
    NetworkInfo {
        name: "preact-resnet50",
        summary: "PreActResNet-50, bottleneck blocks",
        build: |net, x| preact_resnet::preact_resnet(net, x, [3, 4, 6, 3], true),
        ..PREACT
    },
    NetworkInfo {
        name: "preact-resnet101",
        summary: "PreActResNet-101, bottleneck blocks",
        build: |net, x| preact_resnet::preact_resnet(net, x, [3, 4, 23, 3], true),
        ..PREACT
    },
    NetworkInfo {
        name: "preact-resnet152",
        summary: "PreActResNet-152, bottleneck blocks",
        build: |net, x| preact_resnet::preact_resnet(net, x, [3, 8, 36, 3], true),
        ..PREACT
    },
    NetworkInfo {
        name: "resnet18",
        summary: "ResNet-18; width scales every layer",
        build: |net, x| resnet::resnet(net, x, [2, 2, 2, 2], false),
        ..RESNET
    },
    NetworkInfo {
        name: "resnet34",
        summary: "ResNet-34; width scales every layer",
        build: |net, x| resnet::resnet(net, x, [3, 4, 6, 3], false),
        ..RESNET
    },
    NetworkInfo {
        name: "resnet50",
        summary: "ResNet-50, bottleneck blocks",
        build: |net, x| resnet::resnet(net, x, [3, 4, 6, 3], true),
        ..RESNET
    },
    NetworkInfo {
        name: "resnet101",
        summary: "ResNet-101, bottleneck blocks",
        build: |net, x| resnet::resnet(net, x, [3, 4, 23, 3], true),
        ..RESNET
    },
    NetworkInfo {
        name: "resnet152",
        summary: "ResNet-152, bottleneck blocks",
        build: |net, x| resnet::resnet(net, x, [3, 8, 36, 3], true),
        ..RESNET
    },
    NetworkInfo {
        name: "wideresnet-28-10",
        summary: "WideResNet-28-10; width is 16 times the widening factor, the stem has 16 channels",
        build: |net, x| wide_resnet::wide_resnet(net, x, 28),
        ..WIDE
    },
    NetworkInfo {
        name: "wideresnet-34-10",
        summary: "WideResNet-34-10; width is 16 times the widening factor, the stem has 16 channels",
        build: |net, x| wide_resnet::wide_resnet(net, x, 34),
        ..WIDE
    },
    NetworkInfo {
        name: "senet18",
        summary: "SENet-18, pre-activation blocks gated channel by channel, CIFAR stem",
        source: "Hu et al. 2017, arXiv 1709.01507",
        options: &["activation"],
        build: |net, x| senet::senet(net, x, [2, 2, 2, 2]),
        ..PREACT
    },
    NetworkInfo {
        name: "vgg16-bn",
        summary: "VGG-16 with batch norm, images from 32x32; below 96x96 with one fully connected layer, from there with three",
        source: "Simonyan and Zisserman 2014, arXiv 1409.1556",
        names: "torchvision",
        options: &["activation", "dropout"],
        width_from: "features.0.weight",
        classes_from: &["classifier.weight", "classifier.6.weight"],
        aliases: &[],
        build: vgg::vgg16_bn,
        ..PREACT
    },
    NetworkInfo {
        name: "vit-tiny",
        summary: "ViT-tiny (DeiT-tiny without distillation), 12 blocks, 3 heads; width is the size of a token",
        build: |net, x| vit::vit(net, x, 3),
        ..VIT
    },
    NetworkInfo {
        name: "vit-small",
        summary: "ViT-small (DeiT-small without distillation), 12 blocks, 6 heads; width is the size of a token",
        default_width: 384,
        build: |net, x| vit::vit(net, x, 6),
        ..VIT
    },
    NetworkInfo {
        name: "cct-7-3x1",
        summary: "compact convolutional transformer, 7 blocks, 4 heads, images up to 64x64; width is the size of a token",
        source: "Hassani et al. 2021, arXiv 2104.05704",
        names: "the authors' implementation",
        default_width: 256,
        options: &["activation", "dropout"],
        width_from: "tokenizer.conv_layers.0.0.weight",
        classes_from: &["classifier.fc.weight"],
        build: cct::cct7,
        ..VIT
    },
    NetworkInfo {
        name: "mnist-cnn",
        summary: "two 4x4 convolutions and two fully connected layers, the small network of fast training on MNIST",
        source: "Wong et al. 2020, arXiv 2001.03994",
        names: "its nn.Sequential; PyTorch's default start",
        default_width: 16,
        options: &["activation"],
        width_from: "0.weight",
        classes_from: &["7.weight"],
        aliases: &[],
        build: mnist_cnn::mnist_cnn,
        ..PREACT
    },
];

/// The registry row of `name`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn network(name: &str) -> Result<&'static NetworkInfo> {
    NETWORKS.iter().find(|info| info.name == name).ok_or_else(|| {
        let known: Vec<_> = NETWORKS.iter().map(|info| info.name).collect();
        Error::input(format!(
            "--model '{name}': no such network; choose one of {}",
            known.join(", ")
        ))
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
    /// What was chosen of the network besides its width; absent in files of a time when there was
    /// no choice.
    #[serde(default)]
    pub options: NetworkOptions,
}

impl ModelConfig {
    /// The names, shapes and starts of the network's parameters and buffers.
    ///
    /// # Errors
    /// An unknown network or an impossible configuration.
    pub fn specs(&self) -> Result<SpecBuilder> {
        self.check()?;
        let info = network(&self.name)?;
        info.resolve(self.options, self.shape)?;
        Ok(info.structure(self.width, self.shape, self.options)?.1)
    }

    fn check(&self) -> Result<()> {
        let Shape { channels, height, width, classes } = self.shape;
        if self.width == 0 || self.width > 4096 {
            return Err(Error::input(format!("--width {}: expected 1 to 4096", self.width)));
        }
        if [channels, height, width, classes].iter().any(|&size| size > 1 << 16) {
            return Err(Error::input(format!(
                "model: images of {channels}x{height}x{width} in {classes} classes; expected at most 65536 of each"
            )));
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
        if !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_finite() && *s > 0.0)
        {
            return Err(Error::input(
                "model: normalisation values must be finite and the standard deviations above 0",
            ));
        }
        Ok(())
    }
}

/// A network with its values, on a device. Images go in as pixels in [0, 1]: the normalisation is
/// the first layer.
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
    dropout: DropoutSource,
    device: Device,
}

impl Model {
    /// A freshly initialised network; `seed` alone decides the values, whatever the device.
    ///
    /// # Errors
    /// An unknown network or an impossible configuration.
    pub fn init(config: ModelConfig, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let info = network(&config.name)?;
        info.resolve(config.options, config.shape)?;
        let (graph, specs) = info.structure(config.width, config.shape, config.options)?;
        let parameters: u64 = specs.params.iter().map(|spec| spec.len() as u64).sum();
        if let Some(free) = device::available_memory().filter(|free| 4 * parameters > *free) {
            return Err(Error::input(format!(
                "--model {} --width {}: {} million parameters take {} MiB, and {} MiB are free; choose a smaller --width",
                config.name,
                config.width,
                parameters / 1_000_000,
                parameters >> 18,
                free >> 20
            )));
        }
        Ok(Self {
            config,
            params: TensorSet::init(specs.params, seed, device),
            buffers: TensorSet::init(specs.buffers, seed, device),
            backend: Backend::of(device),
            precision: Precision::F32,
            network: Arc::new(graph),
            dropout: DropoutSource::default(),
            device: device.clone(),
        })
    }

    /// The network as a list of layers.
    pub(crate) fn graph(&self) -> Option<&Graph> {
        self.network.graph()
    }

    /// Names the step whose dropout masks the next training-mode passes draw: they are a function
    /// of `seed`, `step` and the number of passes since.
    pub fn begin_step(&mut self, seed: u64, step: u64) {
        self.dropout = DropoutSource::new(seed, step);
    }

    fn pass(&self, mode: BnMode) -> Pass {
        let mut pass = Pass {
            precision: self.precision,
            ..Pass::new(self.backend, mode, self.buffers.frozen())
        };
        if mode == BnMode::Train && self.config.options.dropout > 0.0 {
            pass.dropout = Some(self.dropout.next_pass());
        }
        pass
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
        if backend == Backend::Engine && Backend::of(&self.device) != backend {
            return Err(Error::input(
                "the CPU engine works on --device cpu only; choose the backend burn",
            ));
        }
        self.backend = backend;
        Ok(())
    }

    /// How the layers store their results: f32 unless set otherwise.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Chooses how the layers store their results. On the CPU engine feature maps and their
    /// gradients are kept as bf16; Burn's own operations round them to bf16 at the same points and
    /// compute in f32.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// The same network and values in f32, as evaluations want them.
    pub fn in_f32(&self) -> Self {
        Self { precision: Precision::F32, ..self.clone() }
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
        let along = logits.tangent.unwrap_or_else(|| logits.values.zeros_like());
        (logits.values, along)
    }

    /// Logits in eval mode, no gradient recorded.
    pub fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward(&self.params.frozen(), x, BnMode::Eval).0
    }

    /// Moves the running statistics towards those of a pass: `r <- 0.9 r + 0.1 batch`.
    pub fn absorb(&mut self, stats: Vec<BatchStats>) {
        profile::time(Stage::Statistics, || {
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
