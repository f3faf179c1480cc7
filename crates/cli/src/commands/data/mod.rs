//! `sora data`: list, describe and fetch data sets.

mod fetch;
mod info;
mod list;

use clap::Subcommand;

use sora::data::{Info, Reader};

use crate::error::Result;

/// What to do with data sets.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// All data sets, and whether they are here
    List(list::ListArgs),
    /// One data set: images, classes, source, checksums
    Info(info::InfoArgs),
    /// Download a data set from its official address
    Fetch(fetch::FetchArgs),
}

/// Does it.
pub fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::List(args) => list::run(&args),
        DataCommand::Info(args) => info::run(&args),
        DataCommand::Fetch(args) => fetch::run(args),
    }
}

/// What `sora data info` says of a registered set.
pub fn facts(info: &Info) -> Vec<(&'static str, String)> {
    info::facts(info)
}

/// The ways to get a set: a package of the system, a command, or the address to ask at.
fn how_to_get(info: &Info) -> String {
    let package = info.package.as_ref().map(|p| format!("`apt-get install {p}`"));
    let fetch = (!info.sources.is_empty()).then(|| format!("`sora data fetch {}`", info.name));
    match (package, fetch) {
        (Some(a), Some(b)) => format!("{a} or {b}"),
        (Some(a), None) | (None, Some(a)) => a,
        (None, None) => match info.reader {
            Reader::Synthetic => "nothing to get: drawn from the seed".into(),
            Reader::Folder => "your own images: `--dataset folder:PATH`".into(),
            Reader::ImageFolder => "your own images: `--dataset imagefolder:PATH`".into(),
            _ => format!("an account at {}, unpacked as docs/datasets.md says", info.homepage),
        },
    }
}
