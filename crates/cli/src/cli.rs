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
    /// Follow a run in the terminal: curves, PertAlign, step size, throughput, time left
    Watch {
        /// Run folder
        dir: PathBuf,
        /// Print one picture as text, 80 by 24 characters, and end
        #[arg(long)]
        once: bool,
    },
    /// Go over the logs of runs for catastrophic overfitting: when it was noticed, and when pgd
    /// accuracy had fallen by half
    Diagnose {
        /// Run folders
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Make a figure or table of the paper: run what is missing, go on with what was cut off, draw
    Reproduce(ReproduceArgs),
    /// Measure the accuracy of a run or a weights file, clean and under attack
    Eval(EvalArgs),
    /// Measure accuracy over attack epsilons, single-step sizes, or PGD steps and restarts; JSON
    /// and a chart
    Sweep(SweepArgs),
    /// Write a network's weights for PyTorch (safetensors) or the network itself (ONNX)
    Export(ExportArgs),
    /// Take a checkpoint of PyTorch, weights only, as a network for `sora eval`
    Import(Box<ImportArgs>),
    /// Draw a figure of one or more runs, as SVG or PNG
    Plot(PlotArgs),
    /// Draw the loss around a test image: surface and contour, over training as a strip and an
    /// animation
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

/// Which figure of the paper to make, and where.
#[derive(Debug, clap::Args)]
pub struct ReproduceArgs {
    /// Name of a figure or table (without one: the list), or a file like those in configs/
    #[arg(value_name = "FIGURE|FILE.toml")]
    pub figure: Option<String>,
    /// Size: smoke takes minutes, small an hour or so on two cores, full is the paper's
    #[arg(long, value_enum, default_value_t)]
    pub scale: sora::recipe::Scale,
    /// Folder of the runs and the figure
    #[arg(long, value_name = "DIR", default_value = "runs/paper")]
    pub out: PathBuf,
    /// Train on this data set instead of the recipe's
    #[arg(long, value_name = "NAME|PATH")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to compute
    #[arg(long)]
    pub device: Option<String>,
    /// CPU threads; 0: one a core
    #[arg(long)]
    pub threads: Option<usize>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What is measured, and on which images.
#[derive(Debug, clap::Args)]
pub struct SubjectArgs {
    /// Run folder or weights file
    pub subject: PathBuf,
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
    /// Images at a time; it changes no result
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
}

/// A protocol by name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Suite {
    /// clean, fgsm and pgd-10 on 1000 images
    Quick,
    /// clean, fgsm, pgd-10, pgd-50x10 and autoattack on the whole split
    Paper,
    /// clean and autoattack on the whole split
    Autoattack,
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
            Self::Autoattack => "autoattack",
        })
    }
}

#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Attacks, in order: clean, fgsm, pgd-10, pgd-50x10, autoattack, ...; see `sora attacks`
    #[arg(long, value_delimiter = ',', default_value = "clean,fgsm,pgd-10")]
    pub attacks: Vec<String>,
    /// A protocol instead of --attacks
    #[arg(long, value_enum, conflicts_with = "attacks")]
    pub suite: Option<Suite>,
    /// Keep adversarial examples: an npz archive and a picture for each attack, in the run's eval
    /// folder or beside the weights file
    #[arg(long)]
    pub save_adv: bool,
    /// Where an evaluation that is cut off is remembered [default: the run's eval folder, or beside
    /// the weights file]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Forget an earlier evaluation that was cut off
    #[arg(long)]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Radii to attack with: A..B or a list, whole numbers in units of 1/255 [default: 1..32 unless
    /// --steps or --convergence is given]
    #[arg(long, value_name = "A..B|LIST")]
    pub epsilons: Option<sora::evaluate::sweep::Epsilons>,
    /// Attacks at each radius
    #[arg(long, value_delimiter = ',', default_value = "fgsm,pgd-10")]
    pub attacks: Vec<String>,
    /// Also the accuracy on single-step examples of N step sizes from 0 to 2 epsilon
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "32")]
    pub steps: Option<usize>,
    /// Also PGD accuracy over steps (to 100) and restarts (10 of 50 steps): does it still fall?
    #[arg(long)]
    pub convergence: bool,
    /// Forget an earlier sweep that was cut off
    #[arg(long)]
    pub fresh: bool,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// File formats of `sora export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Weights with PyTorch's names
    Safetensors,
    /// The network, from pixels in [0, 1] to logits
    Onnx,
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Run folder or weights file
    pub subject: PathBuf,
    /// File format
    #[arg(long, value_enum)]
    pub format: Format,
    /// File to write [default: export/model.safetensors or .onnx beside the weights]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also write N random images and the logits that this program gives them, to
    /// FILE.samples.safetensors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub samples: usize,
}

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Checkpoint: .pt or .pth that torch.save wrote, or .safetensors
    pub file: PathBuf,
    /// Network, see `sora models`
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// Folder to make (its weights are model.safetensors), or a file that ends in .safetensors
    #[arg(long, value_name = "DIR|FILE")]
    pub out: PathBuf,
    /// Data set that it was trained on: the default of `sora eval`, and the source of a missing
    /// normalisation
    #[arg(long, value_name = "NAME|PATH")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Channels of the network's first stage [default: found in the file]
    #[arg(long)]
    pub width: Option<usize>,
    /// Height and width of the images [default: the data set's, or by the network]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Mean of each channel in [0, 1] [default: the file's own, else the data set's]
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, requires = "std")]
    pub mean: Vec<f32>,
    /// Standard deviation of each channel
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, requires = "mean")]
    pub std: Vec<f32>,
    /// Activation function [default: the network's]
    #[arg(long, value_enum)]
    pub activation: Option<sora::nn::Activation>,
    /// What a PreActResNet's projection shortcuts take; the weights do not tell
    #[arg(long, value_enum)]
    pub shortcut: Option<sora::model::Shortcut>,
    /// What stands before the names of the weights, such as state_dict.module: chooses between
    /// copies [default: found]
    #[arg(long)]
    pub prefix: Option<String>,
    /// Radius that it was trained for, in pixel units
    #[arg(long, default_value = "8/255", allow_hyphen_values = true)]
    pub epsilon: Epsilon,
    /// Norm that it was trained for
    #[arg(long, value_enum, default_value = "linf")]
    pub norm: Norm,
    /// Leave tensors that the network does not have
    #[arg(long)]
    pub allow_unexpected: bool,
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
    /// File to write, .svg or .png [default: plots/FIGURE.svg in the run folder, if there is one
    /// run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Weights: a number of epochs, final or all [default: all, some of them if they are many]
    #[arg(long, value_name = "K|all")]
    pub checkpoint: Option<sora::report::compute::Choice>,
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
    pub checkpoint: sora::report::compute::Choice,
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
        /// Name, folder:PATH, imagefolder:PATH or the path of an image folder
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
    /// The loader alone: images read, decoded and augmented a second
    Data(DataBench),
    /// An evaluation attack on random images
    Attack(AttackBench),
    /// The convolutions and batch norms of preact-resnet18, each shape and direction, next to the
    /// machine's peak
    Conv(ConvBench),
}

#[derive(Debug, clap::Args)]
pub struct DataBench {
    /// Data set: a name of `sora data list`, folder:PATH or imagefolder:PATH
    #[arg(long, value_name = "NAME|PATH")]
    pub dataset: String,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images, where the set allows a choice
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Augmentation [default: the data set's]
    #[arg(long)]
    pub augment: Option<sora::data::Augment>,
    /// Images of a batch
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Batches to time, after one that is not
    #[arg(long, default_value_t = 40)]
    pub batches: usize,
    /// Batches prepared ahead
    #[arg(long, default_value_t = 4)]
    pub prefetch: usize,
    /// Threads of the loader's own; 0: those of the program
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Only the first N training images
    #[arg(long, value_name = "N")]
    pub limit_train: Option<usize>,
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
    /// Also give the mean seconds of each part of a batch, all threads together
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
