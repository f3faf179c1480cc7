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
    /// Draw a figure of one or more runs, as SVG or PNG
    Plot(PlotArgs),
    /// Draw the loss around a test image: surface and contour, over training as a strip and an animation
    Landscape(LandscapeArgs),
    /// Write one HTML page that compares runs: settings, figures, tables, warnings, cost
    Report(ReportArgs),
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

/// How to compute what a run's records do not hold.
#[derive(Debug, clap::Args)]
pub struct ComputeArgs {
    /// Test images of an accuracy
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub limit: usize,
    /// Where data sets are kept [default: where the run found them]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Seed of random starts and directions
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// A figure of `sora plot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FigureName {
    /// Training and validation curves, with the onset of catastrophic overfitting
    Curves,
    /// PertAlign, step size, single-step and multi-step accuracy over steps
    Pertalign,
    /// Accuracy over the radius of the attack, over training; computed from the checkpoints
    Epsilon,
    /// Loss around a test image, over training; computed from the checkpoints
    Landscape,
    /// Clean against robust accuracy
    Tradeoff,
    /// Training time and memory against robust accuracy
    Cost,
    /// Images, perturbations and adversarial images; computed from the newest weights
    Examples,
    /// Step size, linearity and PertAlign over steps
    History,
}

#[derive(Debug, clap::Args)]
pub struct PlotArgs {
    /// Figure
    #[arg(value_enum)]
    pub figure: FigureName,
    /// Run folders
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// File to write, .svg or .png [default: plots/FIGURE.svg in the run folder, if there is one run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Weights: a number of epochs, final or all [default: all, some of them if they are many]
    #[arg(long, value_name = "K|all")]
    pub checkpoint: Option<sora::diagnose::Choice>,
    /// Test image of landscape, first image of examples; from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub index: usize,
    /// Images of examples
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub images: usize,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, clap::Args)]
pub struct LandscapeArgs {
    /// Run folder
    pub run: PathBuf,
    /// Weights: a number of epochs, final or all
    #[arg(long, value_name = "K|all", default_value = "final")]
    pub checkpoint: sora::diagnose::Choice,
    /// Test image, from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub index: usize,
    /// Points along each direction
    #[arg(long, default_value_t = 41)]
    pub grid: usize,
    /// How far to look in each direction, in epsilons
    #[arg(long, default_value_t = 1.0)]
    pub span: f32,
    /// Most weights to draw with --checkpoint all, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub frames: usize,
    /// PNG files as well
    #[arg(long)]
    pub png: bool,
    /// Folder to write to [default: plots in the run folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Run folders
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder to write report.html and plots/ to [default: the run folder, if there is one run]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only what the records hold: no figure that needs the data set and the weights
    #[arg(long)]
    pub no_compute: bool,
    /// Test image of the loss landscapes, from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub index: usize,
    /// Heading of the page
    #[arg(long)]
    pub title: Option<String>,
    /// PNG files as well
    #[arg(long)]
    pub png: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
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
}

#[derive(Debug, clap::Args)]
pub struct StepBench {
    /// Network
    #[arg(long, default_value = "preact-resnet18")]
    pub model: String,
    /// Training method
    #[arg(long, default_value = "sora")]
    pub method: String,
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images of a step
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32)]
    pub image_size: usize,
    /// Image channels
    #[arg(long, default_value_t = 3)]
    pub channels: usize,
    /// Arithmetic of activations
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: sora::config::Precision,
    /// Where to compute
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// What computes the layers [default: engine on the CPU, burn elsewhere]
    #[arg(long, value_enum)]
    pub backend: Option<sora::nn::Backend>,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Also give the mean seconds of each part of a step
    #[arg(long)]
    pub profile: bool,
    /// Steps to time, after two that are not
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}
