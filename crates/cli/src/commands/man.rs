//! `sora man`: the manual pages.

use std::path::PathBuf;

use clap_mangen::Man;
use sora::files;

use crate::{
    console::print,
    error::{Failure, Result},
    output_file::{Content, Overwrite, prepare},
};

/// Where to write.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for sora.1, sora-train.1 and so on, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Overwrite files that another program wrote
    #[arg(long)]
    pub force: bool,
}

/// Writes a page for the program and one for each command.
pub fn run(args: &ManArgs) -> Result<()> {
    let mut root = crate::call::command().disable_help_flag(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, "sora", &mut pages)?;
    for (name, page) in &pages {
        let path = args.dir.join(format!("{name}.1"));
        prepare(&path, Content::Manual, Overwrite::by(args.force))?;
        files::write_atomic(&path, page)?;
    }
    print(&format!("{} pages in {}\n", pages.len(), args.dir.display()))
}

/// Collects the pages of `command` and of its subcommands.
fn collect(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut page = Vec::new();
    let titled = command.clone().name(name.to_owned());
    Man::new(titled)
        .source(concat!("sora ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|e| Failure::work(format!("the page of {name}: {e}")))?;
    pages.push((name.to_owned(), page));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}
