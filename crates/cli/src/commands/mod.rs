//! What each subcommand does.

pub mod bench;
pub mod bench_data;
pub mod data;
pub mod diagnose;
pub mod eval;
pub mod export;
pub mod import;
pub mod landscape;
pub mod list;
pub mod plot;
pub mod report;
pub mod reproduce;
pub mod sweep;
pub mod train;
pub mod watch;

use std::io::{IsTerminal, Write, stderr, stdout};

use serde::Serialize;
use sora::error::{Error, Result};
use tracing_subscriber::EnvFilter;

/// Log lines on standard error; standard output is for results.
pub fn start_logging(verbose: bool) {
    let default = if verbose { "sora=debug,sora_data=debug" } else { "sora=info,sora_data=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::work(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as one JSON object.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string(value)
        .map_err(|e| Error::work(format!("cannot serialise the result: {e}")))?;
    print(&(json + "\n"))
}

/// Prints rows as aligned columns; the first row is the heading.
pub fn print_table(rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}  ")).collect();
        text += line.trim_end();
        text.push('\n');
    }
    print(&text)
}
