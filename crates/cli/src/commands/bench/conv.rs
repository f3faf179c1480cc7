//! `sora bench conv`: times each convolution and batch norm alone.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use sora::{config::Precision, device};
use sora_kernels::{self as kernels, bench::BenchNetwork};

use crate::{
    commands::shared::start_threads,
    console::print,
    error::{Failure, Result},
    values::{PRECISIONS, one_of},
};

/// Which sizes.
#[derive(Debug, clap::Args)]
pub struct ConvBench {
    /// Network; resnet18 and resnet50 have the stem for ImageNet
    #[arg(long, default_value = "preact-resnet18", value_parser = networks())]
    pub model: BenchNetwork,
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images at a time
    #[arg(long, visible_alias = "batch-size", default_value_t = 128)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32, value_name = "PIXELS")]
    pub image_size: usize,
    /// How activations are stored and multiplied [default: each that the device has]
    #[arg(long, value_parser = one_of::<Precision>(PRECISIONS))]
    pub precision: Option<Precision>,
    /// Where to compute: cpu, `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Seconds for each figure
    #[arg(long, default_value_t = 0.3)]
    pub seconds: f64,
}

fn networks() -> impl TypedValueParser<Value = BenchNetwork> {
    PossibleValuesParser::new(BenchNetwork::ALL.map(BenchNetwork::name))
        .try_map(|name| name.parse::<BenchNetwork>())
}

/// Times each convolution and batch norm alone.
pub fn run(args: &ConvBench) -> Result<()> {
    let wrong = |flag: &str, value: String, expected: &str| {
        Err(Failure::input(format!("bench conv: --{flag} {value}: expected {expected}")))
    };
    for (flag, value, most) in [
        ("width", args.width, 4096),
        ("batch", args.batch, 65_536),
        ("image-size", args.image_size, 4096),
    ] {
        if !(1..=most).contains(&value) {
            return wrong(flag, value.to_string(), &format!("1 to {most}"));
        }
    }
    if !(0.0..=60.0).contains(&args.seconds) {
        return wrong("seconds", args.seconds.to_string(), "0 to 60");
    }
    start_threads(args.threads)?;
    if args.device != "cpu" {
        return super::conv_device::run(args, &device::device(&args.device)?);
    }
    let precisions = match args.precision {
        None => vec![kernels::ElementType::F32, kernels::ElementType::Bf16],
        Some(Precision::F32) => vec![kernels::ElementType::F32],
        Some(Precision::Bf16) => vec![kernels::ElementType::Bf16],
        Some(Precision::Tf32) => return wrong("precision", "tf32".into(), "f32 or bf16"),
    };
    let config = kernels::bench::Config {
        isa: device::instruction_set()?,
        precisions,
        network: args.model,
        width: args.width,
        image: args.image_size,
        batch: args.batch,
        seconds: args.seconds,
        algorithm: None,
    };
    let mut printed = Ok(());
    let done = kernels::bench::run(&config, |record| {
        if printed.is_ok() {
            printed = print(&format!("{record}\n"));
        }
    });
    done.map_err(|e| {
        Failure::input(format!("bench conv: {e}; expected sizes that fit into memory"))
    })?;
    printed
}
