//! The command line: what can be asked for, and where each request goes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use sora::config::TrainOptions;
use sora::threat::{Epsilon, Norm};

/// Fast adversarial training, and robustness measured honestly.
#[derive(Debug, Parser)]
#[command(name = "sora", version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// More log lines on standard error (or set RUST_LOG)
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network and write a run folder
    #[command(args_override_self = true)]
    Train(Box<TrainArgs>),
    /// Go on with a run from its newest checkpoint, to the same bits as an unbroken run
    Resume {
        /// Run folder
        dir: PathBuf,
    },
    /// Measure the accuracy of a run or a weights file, clean and under attack
    Eval(EvalArgs),
    /// List, describe and fetch data sets
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
    /// List the training methods
    Methods {
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// List the networks
    Models {
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// List the attacks
    Attacks {
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Time parts of the program; one JSON line a case
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
}

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub options: TrainOptions,
    /// Settings to start from, such as the config.toml of another run; flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Run folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Run folder or weights file
    pub subject: PathBuf,
    /// Attacks, in order: clean, fgsm, pgd-K, pgd-KxR; see `sora attacks`
    #[arg(long, value_delimiter = ',', default_value = "clean,fgsm,pgd-10")]
    pub attacks: Vec<String>,
    /// Radius in pixel units [default: the one trained with]
    #[arg(long, allow_hyphen_values = true)]
    pub epsilon: Option<Epsilon>,
    /// Norm [default: the one trained with]
    #[arg(long, value_enum)]
    pub norm: Option<Norm>,
    /// Evaluate the first N images of the test split only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Data set [default: the one trained on]
    #[arg(long, value_name = "NAME|PATH")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Images at a time
    #[arg(long, default_value_t = 256)]
    pub batch: usize,
    /// Seed of the random starts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// All data sets, and whether they are here
    List {
        /// Where data sets are kept
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// One data set: images, classes, source, checksums
    Info {
        /// Name, folder:PATH or the path of an image folder
        name: String,
        /// Where data sets are kept
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Download a data set from its official address
    Fetch {
        /// Name, see `sora data list`
        name: String,
        /// Where data sets are kept
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// A mirror: files are fetched from URL/FILE instead of the official address
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// One training step on random images
    Step(StepBench),
    /// An evaluation attack on random images
    Attack(AttackBench),
    /// The convolutions and batch norms of preact-resnet18, each shape and direction, next to the machine's peak
    Conv(ConvBench),
}

/// A network and a batch of random images.
#[derive(Debug, clap::Args)]
pub struct BenchModel {
    /// Network
    #[arg(long, default_value = "preact-resnet18")]
    pub model: String,
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images at a time
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32)]
    pub image_size: usize,
    /// Image channels
    #[arg(long, default_value_t = 3)]
    pub channels: usize,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// What computes the layers [default: engine on the CPU, burn elsewhere]
    #[arg(long, value_enum)]
    pub backend: Option<sora::nn::Backend>,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

#[derive(Debug, clap::Args)]
pub struct StepBench {
    #[command(flatten)]
    pub network: BenchModel,
    /// Training method
    #[arg(long, default_value = "sora")]
    pub method: String,
    /// Arithmetic of activations
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: sora::config::Precision,
    /// Also give the mean seconds of each part of a step
    #[arg(long)]
    pub profile: bool,
    /// Steps to time, after two that are not
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

#[derive(Debug, clap::Args)]
pub struct AttackBench {
    #[command(flatten)]
    pub network: BenchModel,
    /// Attack, see `sora attacks`
    #[arg(long, default_value = "pgd-10")]
    pub attack: String,
    /// Norm
    #[arg(long, value_enum, default_value = "linf")]
    pub norm: Norm,
    /// Also give the mean seconds of each part of a batch
    #[arg(long)]
    pub profile: bool,
    /// Batches to time, after one that is not
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

#[derive(Debug, clap::Args)]
pub struct ConvBench {
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images at a time
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32)]
    pub image_size: usize,
    /// How activations are stored [default: f32, then bf16]
    #[arg(long, value_enum)]
    pub precision: Option<sora::config::Precision>,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Seconds for each figure
    #[arg(long, default_value_t = 0.3)]
    pub seconds: f64,
}
