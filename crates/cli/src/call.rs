//! The call: global flags, and the commands with their entry points.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    commands::{
        attacks, bench, completions, data, diagnose, eval, export, grid, help, import, landscape,
        man, methods, models, plot, reference, report, reproduce, resume, schema, sweep, train,
        watch,
    },
    console::{self, ColorChoice, Settings},
    error::Result,
    signals::{self, FirstSignal},
    world,
};

/// Fast adversarial training, and robustness measured honestly.
#[derive(Debug, Parser)]
#[command(
    name = "sora",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 the work failed, 2 the call or its input is wrong, 130 \
                  interrupted."
)]
pub struct Call {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// More log lines on standard error (or set RUST_LOG)
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Neither progress nor log lines, only warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Colours on standard error and in help
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = true,
        help = "Colours: auto, always or never",
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each line is the command's help, and its file says the rest")]
pub enum Command {
    /// Train a network and write a run folder
    #[command(args_override_self = true)]
    Train(Box<train::TrainArgs>),
    /// Go on with a run from its newest checkpoint, to the same bits as an unbroken run
    Resume(resume::ResumeArgs),
    /// Follow a run in the terminal: curves, PertAlign, step size, throughput, time left
    Watch(watch::WatchArgs),
    /// Measure the accuracy of a run or a weights file, clean and under attack
    Eval(eval::EvalArgs),
    /// Measure accuracy over attack epsilons, step sizes, or PGD steps and restarts
    Sweep(sweep::SweepArgs),
    /// Go over the logs of runs for catastrophic overfitting
    ///
    /// When it was noticed, and when pgd accuracy had fallen by half.
    Diagnose(diagnose::DiagnoseArgs),
    /// Write one HTML page that compares runs: settings, figures, tables, warnings, cost
    Report(report::ReportArgs),
    /// Draw a figure of one or more runs, as SVG or PNG
    Plot(plot::PlotArgs),
    /// Draw the loss around a test image: surface and contour, over training as an animation
    Landscape(landscape::LandscapeArgs),
    /// Make a figure or table of the paper: run what is missing, go on with what was cut off, draw
    Reproduce(reproduce::ReproduceArgs),
    /// Run a product of settings and seeds, on one machine or many, and put it in a table
    Grid(grid::GridArgs),
    /// Write weights for PyTorch (safetensors), the network (ONNX) or a log (CSV)
    Export(export::ExportArgs),
    /// Take a checkpoint of PyTorch, weights only, as a network for `sora eval`
    Import(Box<import::ImportArgs>),
    /// List, describe and fetch data sets
    Data {
        #[command(subcommand)]
        command: data::DataCommand,
    },
    /// List the training methods, or describe one
    Methods(methods::MethodsArgs),
    /// List the networks, or describe one
    Models(models::ModelsArgs),
    /// List the attacks, or describe one
    Attacks(attacks::AttacksArgs),
    /// Time parts of the program; one JSON line a case
    Bench {
        #[command(subcommand)]
        command: bench::BenchCommand,
    },
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
    /// Print the JSON schema of a file that the program writes
    Schema(schema::SchemaArgs),
    /// Write the reference of the documentation, from what the program knows of itself
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
    /// Help on a command, or on the exit status
    Help(help::HelpArgs),
}

impl Call {
    /// Parses the words with which the program was called; help, version and mistakes end the
    /// program.
    pub fn parse_words(words: Vec<std::ffi::OsString>) -> Self {
        let matches = command().color(color_of(&words)).try_get_matches_from(&words);
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .unwrap_or_else(|e| world::leave_wrong_call(&e, &words))
    }

    /// The global flags.
    pub fn settings(&self) -> Settings {
        Settings { color: self.color, quiet: self.quiet, verbose: self.verbose }
    }
}

/// The command line for clap, as wide as the terminal and at most 100 columns.
pub fn command() -> clap::Command {
    Call::command().term_width(console::width().min(100))
}

/// The value of `--color` for clap itself, which needs it before it parses the call.
fn color_of(words: &[std::ffi::OsString]) -> clap::ColorChoice {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let value = words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("--color") {
        Some("") => words.get(i + 1).map(|value| value.as_ref()),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    match value {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

/// Runs a command.
///
/// # Errors
/// The reason why the command failed.
pub fn run(command: Command) -> Result<()> {
    signals::watch(first_signal(&command))?;
    match command {
        Command::Train(args) => train::run(*args),
        Command::Resume(args) => resume::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Eval(args) => eval::run(args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Landscape(args) => landscape::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Grid(args) => grid::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(*args),
        Command::Data { command } => data::run(command),
        Command::Methods(args) => methods::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Attacks(args) => attacks::run(&args),
        Command::Bench { command } => bench::run(command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Reference(args) => reference::run(&args),
        Command::Help(args) => help::run(&args),
    }
}

/// The reaction to the first Ctrl-C, from the start on.
fn first_signal(command: &Command) -> FirstSignal {
    match command {
        Command::Watch(args) if args.is_live() => FirstSignal::GiveBack,
        Command::Train(_) | Command::Resume(_) => FirstSignal::Finish(
            "interrupted: finishing the step and writing a checkpoint (again to stop at once)",
        ),
        Command::Grid(args) if args.dry_run => {
            FirstSignal::Finish("interrupted: ending the measurement (again to stop at once)")
        }
        Command::Reproduce(_) | Command::Grid(_) => FirstSignal::Finish(
            "interrupted: waiting for the run to write its state (again to stop at once)",
        ),
        Command::Eval(_) | Command::Sweep(_) => {
            FirstSignal::End("interrupted; the same call goes on from there")
        }
        _ => FirstSignal::End("interrupted"),
    }
}
