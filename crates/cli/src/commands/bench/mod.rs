//! `sora bench`: times parts of the program alone, on random images. The output has the keys of the
//! usual PyTorch timing scripts.

mod agree;
mod attack;
mod conv;
mod conv_device;
mod loader;
mod network;
mod scaling;
mod setup;
mod step;

use clap::Subcommand;

use crate::error::Result;

/// What to time.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// One training step on random images
    Step(step::StepBench),
    /// Training steps that processes share, and what they say to each other; start it with mpirun
    Scaling(scaling::ScalingBench),
    /// The loader alone: images read, decoded and augmented a second
    Data(loader::DataBench),
    /// A device against the CPU, on the same values
    ///
    /// Every method for some steps, every network forward and backward, an evaluation, a training
    /// that is cut off and goes on, tf32 and bf16. Exit status 1 if something differs.
    Agree(agree::AgreeBench),
    /// An evaluation attack on random images
    Attack(attack::AttackBench),
    /// The convolutions and batch norms of a network, next to the machine's peak
    ///
    /// Each shape and direction by itself; on a device other than the CPU the convolutions alone.
    Conv(conv::ConvBench),
}

/// Times it.
pub fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(&args),
        BenchCommand::Scaling(args) => scaling::run(&args),
        BenchCommand::Data(args) => loader::run(args),
        BenchCommand::Agree(args) => agree::run(&args),
        BenchCommand::Attack(args) => attack::run(&args),
        BenchCommand::Conv(args) => conv::run(&args),
    }
}
