//! The `sora` command.

mod cli;
mod commands;
pub mod dashboard;
pub mod render;

use std::process::ExitCode;

use clap::Parser;
use cli::{BenchCommand, Cli, Command, DataCommand};
use sora::error::Result;

/// Runs the program on the words it was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    commands::start_logging(cli.verbose);
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", render::render(&e));
            ExitCode::from(render::exit_code(&e))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => commands::train::train(*args),
        Command::Resume { dir } => commands::train::resume(&dir),
        Command::Watch { dir, once } => commands::watch::watch(&dir, once),
        Command::Diagnose { dirs, json } => commands::diagnose::diagnose(&dirs, json),
        Command::Reproduce(args) => commands::reproduce::reproduce(&args),
        Command::Eval(args) => commands::eval::eval(args),
        Command::Sweep(args) => commands::sweep::sweep(&args),
        Command::Export(args) => commands::export::export(&args),
        Command::Import(args) => commands::import::import(*args),
        Command::Plot(args) => commands::plot::plot(&args),
        Command::Landscape(args) => commands::landscape::landscape(&args),
        Command::Report(args) => commands::report::report(&args),
        Command::Data { command: DataCommand::List { data_dir, json } } => {
            commands::data::list(data_dir.as_deref(), json)
        }
        Command::Data { command: DataCommand::Info { name, data_dir, json } } => {
            commands::data::info(&name, data_dir, json)
        }
        Command::Data { command: DataCommand::Fetch { name, data_dir, mirror } } => {
            commands::data::fetch(&name, data_dir.as_deref(), mirror)
        }
        Command::Methods { json } => commands::list::methods(json),
        Command::Models { json } => commands::list::models(json),
        Command::Attacks { json } => commands::list::attacks(json),
        Command::Bench { command: BenchCommand::Step(args) } => commands::bench::step(&args),
        Command::Bench { command: BenchCommand::Data(args) } => commands::bench_data::data(args),
        Command::Bench { command: BenchCommand::Attack(args) } => commands::bench::attack(&args),
        Command::Bench { command: BenchCommand::Conv(args) } => commands::bench::conv(&args),
    }
}
