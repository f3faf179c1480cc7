//! A network and random images for it.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Map, Value, json};
use sora::{
    device,
    model::{self, Model, ModelConfig, NetworkOptions, Shape, Shortcut, Stem},
    nn::{Activation, Backend},
    profile,
    threat::{Norm, Threat},
};
use sora_rng::{Key, Purpose, fill_uniform};

use crate::{
    commands::shared::Machine,
    complete,
    error::{Failure, Result},
    values::{ACTIVATIONS, BACKENDS, SHORTCUTS, STEMS, one_of},
};

/// A network and a batch of random images.
#[derive(Debug, clap::Args)]
pub struct BenchModel {
    /// Network
    #[arg(long, default_value = "preact-resnet18", add = complete::networks())]
    pub model: String,
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images at a time
    #[arg(long, visible_alias = "batch-size", default_value_t = 128)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32, value_name = "PIXELS")]
    pub image_size: usize,
    /// Image channels
    #[arg(long, default_value_t = 3)]
    pub channels: usize,
    /// What computes the layers [default: engine on the CPU, burn elsewhere]
    #[arg(long, value_parser = one_of::<Backend>(BACKENDS))]
    pub backend: Option<Backend>,
    #[command(flatten)]
    pub options: BenchOptions,
    #[command(flatten)]
    pub machine: Machine,
}

/// Options of the network; the size of the images and the literature decide those that are not
/// given, as they do for a training.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct BenchOptions {
    /// Activation function [default: the network's]
    #[arg(long, value_parser = one_of::<Activation>(ACTIVATIONS))]
    pub activation: Option<Activation>,
    /// Dropout rate, for networks that have it
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f32,
    /// First layers of a ResNet [default: cifar, imagenet for images from 96x96]
    #[arg(long, value_parser = one_of::<Stem>(STEMS))]
    pub stem: Option<Stem>,
    /// Patch side of a vision transformer [default: 4, 8 from 48x48, 16 from 96x96]
    #[arg(long, value_name = "PIXELS")]
    pub patch: Option<usize>,
    /// What PreActResNet's projection shortcuts take [default: input]
    #[arg(long, value_parser = one_of::<Shortcut>(SHORTCUTS))]
    pub shortcut: Option<Shortcut>,
}

impl From<&BenchOptions> for NetworkOptions {
    fn from(given: &BenchOptions) -> Self {
        let BenchOptions { activation, dropout, stem, patch, shortcut } = *given;
        Self { activation, dropout, stem, patch, shortcut }
    }
}

/// Classes of the random images.
pub const CLASSES: usize = 10;

/// A network and random images for it.
pub struct Setup {
    /// Device.
    pub device: Device,
    /// CPU threads.
    pub threads: usize,
    /// Network.
    pub model: Model,
    /// Numbers of the images.
    pub ids: Vec<u32>,
    /// Images.
    pub x: Tensor<4>,
    /// Labels.
    pub labels: Tensor<1, Int>,
}

impl Setup {
    /// Makes the network and images that `args` describe, with ids for `steps` steps.
    ///
    /// # Errors
    /// A wrong size, an unknown network, or an option that it does not take.
    pub fn new(args: &BenchModel, steps: usize) -> Result<Self> {
        if steps == 0 || args.batch == 0 || args.image_size == 0 {
            return Err(Failure::input(
                "bench: --steps, --batch and --image-size must be at least 1",
            ));
        }
        let device = device::device(&args.machine.device)?;
        let threads = args.machine.start_threads()?;
        let shape = Shape {
            channels: args.channels,
            height: args.image_size,
            width: args.image_size,
            classes: CLASSES,
        };
        let (mean, std) = (vec![0.5; args.channels], vec![0.25; args.channels]);
        let config = ModelConfig {
            name: args.model.clone(),
            width: args.width,
            shape,
            mean,
            std,
            options: model::network(&args.model)?.resolve((&args.options).into(), shape)?,
            onnx: None,
        };
        let mut model = Model::init(config, 0, &device)?;
        if let Some(backend) = args.backend {
            model.set_backend(backend)?;
        }
        let ids: Vec<u32> = (0..args.batch as u32).collect();
        let dims = [args.batch, args.channels, args.image_size, args.image_size];
        let mut pixels = vec![0.0; dims.iter().product()];
        fill_uniform(&mut pixels, Key::new(0, Purpose::Synthetic), &ids);
        let labels: Vec<i32> = ids.iter().map(|id| (id % CLASSES as u32) as i32).collect();
        let x = Tensor::from_data(TensorData::new(pixels, dims), &device);
        let labels = Tensor::from_data(labels.as_slice(), &device);
        Ok(Self { device, threads, model, ids, x, labels })
    }

    /// Waits until the device has finished its work.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn sync(&self) -> Result<()> {
        self.device.sync().map_err(|e| Failure::work(format!("the device failed: {e}")))
    }

    /// The result fields that every case prints.
    ///
    /// # Errors
    /// An instruction set that this machine lacks.
    pub fn result(&self, args: &BenchModel, mut seconds: Vec<f64>) -> Result<Value> {
        let steps = seconds.len();
        seconds.sort_by(f64::total_cmp);
        let (min, median) = (
            seconds.first().copied().unwrap_or(0.0),
            seconds.get(steps / 2).copied().unwrap_or(0.0),
        );
        Ok(json!({
            "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
            "median_s": median,
            "min_s": min,
            "images_per_s": args.batch as f64 / median,
            "peak_rss_mib": device::peak_rss_mib(),
            "device_mib": device::memory_mib(&self.device),
            "model": args.model,
            "width": args.width,
            "batch": args.batch,
            "size": args.image_size,
            "channels": args.channels,
            "device": args.machine.device,
            "threads": self.threads,
            "isa": device::instruction_set()?.to_string(),
            "backend": self.model.backend(),
            "options": self.model.config.options,
            "steps": steps,
        }))
    }
}

/// The usual radius.
pub fn radius(norm: Norm) -> Threat {
    Threat { norm, epsilon: if norm == Norm::Linf { 8.0 / 255.0 } else { 128.0 / 255.0 } }
}

/// Mean seconds of each stage per step.
pub fn profile_of(steps: usize) -> Map<String, Value> {
    let parts = profile::take();
    parts
        .into_iter()
        .map(|(name, seconds)| (name.to_owned(), json!(seconds / steps as f64)))
        .collect()
}
