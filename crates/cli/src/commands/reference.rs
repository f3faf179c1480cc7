//! `sora reference`: the reference of the documentation, made from the program's own registries, so
//! that it cannot say anything else than the program.

use std::path::PathBuf;

use sora::{data, files};

use super::{attacks, data as sets, methods, models, schema, shared::Listing};
use crate::{
    console::print,
    error::Result,
    output_file::{Content, Overwrite, prepare},
};
use sora::config::{SETTINGS, SettingInfo, Values};

/// The first line of every page.
const MARK: &str = "<!-- made by `sora reference`; change what the program says instead -->\n";

/// Where to write.
#[derive(Debug, clap::Args)]
pub struct ReferenceArgs {
    /// Folder for the pages
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Overwrite files that another program wrote
    #[arg(long)]
    pub force: bool,
}

/// Writes the pages.
pub fn run(args: &ReferenceArgs) -> Result<()> {
    let pages = [
        ("commands", commands()),
        ("settings", settings()),
        ("methods", listing("Training methods", &methods::list()?)),
        ("networks", listing("Networks", &models::list()?)),
        ("attacks", listing("Attacks", &attacks::list())),
        ("datasets", datasets()),
        ("files", written_files()),
    ];
    for (name, text) in &pages {
        let path = args.dir.join(format!("{name}.md"));
        prepare(&path, Content::Reference, Overwrite::by(args.force))?;
        files::write_atomic(&path, format!("{MARK}{text}").as_bytes())?;
    }
    print(&format!("{} pages in {}\n", pages.len(), args.dir.display()))
}

/// Every command's help, as `sora help COMMAND` prints it on 80 columns.
fn commands() -> String {
    let mut page = "# Commands\n".to_owned();
    let mut root = crate::call::command().term_width(80);
    root.build();
    add_command(&mut page, &root, "sora");
    page
}

fn add_command(page: &mut String, command: &clap::Command, name: &str) {
    let help = command.clone().bin_name(name).render_long_help();
    *page += &format!("\n## {name}\n\n```text\n{}\n```\n", help.to_string().trim_end());
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add_command(page, below, &format!("{name} {}", below.get_name()));
    }
}

fn settings() -> String {
    let mut page = "# Settings of a training\n\nEach is a key of a run's config.toml, which `sora \
                    train --config` takes, and a flag of `sora train`: `limit_train` is \
                    `--limit-train`. A method's hyperparameters stand in the table `options` and \
                    are set by `--set KEY=VALUE`.\n\n| key | value | what |\n|---|---|---|\n"
        .to_owned();
    for setting in SETTINGS {
        let (value, text) = (values(setting), setting.description());
        page += &format!("| `{}` | {} | {} |\n", setting.name, cell(&value), cell(&text));
    }
    page
}

fn values(setting: &SettingInfo) -> String {
    match setting.values {
        Values::Text => setting.value_name.to_lowercase(),
        Values::Integer => "whole number".into(),
        Values::Integers => "whole numbers".into(),
        Values::Number => "number".into(),
        Values::Numbers => "numbers".into(),
        Values::Switch => "true, false".into(),
        Values::Choice(words) => words.join(", "),
    }
}

/// The rows of a registry: the list, then every entry in full.
fn listing(title: &str, list: &Listing) -> String {
    let mut page = format!("# {title}\n\n| {} |\n", list.heading.join(" | "));
    page += &format!("|{}\n", "---|".repeat(list.heading.len()));
    for entry in &list.entries {
        let cells: Vec<_> = entry.cells.iter().map(|text| cell(text)).collect();
        page += &format!("| `{}` | {} |\n", entry.name, cells.join(" | "));
    }
    page += &format!("\n{}\n", list.footer);
    for entry in &list.entries {
        add_facts(&mut page, &entry.name, &entry.facts);
    }
    page
}

fn datasets() -> String {
    let mut page = "# Data sets\n".to_owned();
    for info in data::registry() {
        add_facts(&mut page, &info.name, &sets::facts(&info));
    }
    page
}

fn add_facts(page: &mut String, name: &str, facts: &[(&str, String)]) {
    *page += &format!("\n## `{name}`\n\n| | |\n|---|---|\n");
    for (key, text) in facts {
        *page += &format!("| {key} | {} |\n", linked(&cell(text)));
    }
}

fn written_files() -> String {
    let mut page =
        "# Files\n\nThe JSON schema of each file and object that the program writes, as \
                    `sora schema NAME` prints it.\n"
            .to_owned();
    for (name, of) in schema::names() {
        let schema = schema::of(name).unwrap_or_default();
        page += &format!("\n## {name}: {of}\n\n```json\n{}\n```\n", schema.trim_end());
    }
    page
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', "<br>")
}

/// `arXiv 1706.06083` as a link.
fn linked(text: &str) -> String {
    const MARK: &str = "arXiv ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let number =
            rest[at + MARK.len()..].split(|c: char| !c.is_ascii_digit() && c != '.').next();
        let number = number.unwrap_or_default().trim_end_matches('.');
        let end = at + MARK.len() + number.len();
        out += &rest[..at];
        out += &match number {
            "" => MARK.to_owned(),
            _ => format!("[{MARK}{number}](https://arxiv.org/abs/{number})"),
        };
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{cell, linked};

    #[test]
    fn papers_become_links_and_cells_stay_one_line() {
        assert_eq!(
            linked("Madry 2018, arXiv 1706.06083; Zhang, arXiv 1901.08573."),
            "Madry 2018, [arXiv 1706.06083](https://arxiv.org/abs/1706.06083); Zhang, \
             [arXiv 1901.08573](https://arxiv.org/abs/1901.08573)."
        );
        assert_eq!(linked("an arXiv paper"), "an arXiv paper");
        assert_eq!(cell("a|b\nc<d"), "a\\|b<br>c&lt;d");
    }
}
