//! GFLOP/s of each convolution of a network in each direction, next to the machine's peaks,
//! as JSON lines.
//!
//! `cargo run --release -p sora-robust-kernels --example conv_bench -- [--network
//! preact-resnet18|resnet18|resnet50] [--width 64] [--image 32] [--batch 128] [--seconds 0.3] [--precision f32|bf16] [--algorithm direct|winograd|direct-bf16]`
//!
//! `SORA_ISA` chooses the instruction set, `RAYON_NUM_THREADS` the number of threads.
//! [`sora_kernels::bench`] explains the figures.

use sora_kernels::bench::{BenchNetwork, Config, run};
use sora_kernels::{ElementType, Isa};

type AnyError = Box<dyn std::error::Error>;

fn argument<T: std::str::FromStr>(name: &str) -> Result<Option<T>, AnyError> {
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == name {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            return value
                .parse()
                .map(Some)
                .map_err(|_| format!("{name}: cannot read {value:?}").into());
        }
    }
    Ok(None)
}

fn main() -> Result<(), AnyError> {
    let config = Config {
        isa: Isa::current()?,
        precisions: argument("--precision")?
            .map_or(vec![ElementType::F32, ElementType::Bf16], |precision| vec![precision]),
        network: argument("--network")?.unwrap_or(BenchNetwork::PreactResnet18),
        width: argument("--width")?.unwrap_or(64),
        image: argument("--image")?.unwrap_or(32),
        batch: argument("--batch")?.unwrap_or(128),
        seconds: argument("--seconds")?.unwrap_or(0.3),
        algorithm: argument("--algorithm")?,
    };
    run(&config, |record| println!("{record}"))?;
    Ok(())
}
