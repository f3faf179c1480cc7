//! `sora bench`: times parts of the program alone, on random images. The output has the keys of the
//! usual PyTorch timing scripts.

mod attack;
mod conv;
mod loader;
mod setup;
mod step;

use clap::Subcommand;

use crate::error::Result;

/// What to time.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// One training step on random images
    Step(step::StepBench),
    /// The loader alone: images read, decoded and augmented a second
    Data(loader::DataBench),
    /// An evaluation attack on random images
    Attack(attack::AttackBench),
    /// The convolutions and batch norms of preact-resnet18, next to the machine's peak
    ///
    /// Each shape and direction by itself.
    Conv(conv::ConvBench),
}

/// Times it.
pub fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(&args),
        BenchCommand::Data(args) => loader::run(args),
        BenchCommand::Attack(args) => attack::run(&args),
        BenchCommand::Conv(args) => conv::run(&args),
    }
}
