//! Lists of registries, and the full description of one entry: `methods`, `models`, `attacks`.

use serde_json::{Map, Value};

use crate::{
    console::{self, Table, no_such},
    error::Result,
};

/// One row of a registry.
#[derive(Debug)]
pub struct Entry {
    /// The entry's name.
    pub name: String,
    /// Cells of the short list after the name.
    pub cells: Vec<String>,
    /// The full description: keys and texts.
    pub facts: Vec<(&'static str, String)>,
    /// The full description as JSON.
    pub json: Value,
}

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

impl Describe {
    /// Prints the list, or the entry called `name`. `heading` names the list's columns.
    ///
    /// # Errors
    /// An unknown name.
    pub fn print(&self, kind: &str, name: Option<&str>, list: Listing) -> Result<()> {
        let Some(name) = name else {
            return if self.json { print_all(&list.entries) } else { list.print() };
        };
        let entry = list.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let known = list.entries.iter().map(|entry| entry.name.as_str());
            let all = format!("`sora {kind}s` lists them all").replace("networks", "models");
            no_such(kind, name, known, &all)
        })?;
        if self.json {
            return console::print_json(&entry.json);
        }
        let mut table = Table::plain();
        table.row(["name", &entry.name]);
        for (key, text) in &entry.facts {
            table.row([*key, text]);
        }
        table.print()
    }
}

/// The entries, and the form of their list.
#[derive(Debug)]
pub struct Listing {
    /// Columns of the list.
    pub heading: &'static [&'static str],
    /// The rows.
    pub entries: Vec<Entry>,
    /// A line below the list.
    pub footer: &'static str,
}

impl Listing {
    fn print(self) -> Result<()> {
        let mut table = Table::new(self.heading);
        for entry in &self.entries {
            table.row(std::iter::once(&entry.name).chain(&entry.cells));
        }
        table.print()?;
        console::print(&console::wrap(&format!("\n{}\n", self.footer)))
    }
}

fn print_all(entries: &[Entry]) -> Result<()> {
    let object: Map<String, Value> =
        entries.iter().map(|entry| (entry.name.clone(), entry.json.clone())).collect();
    console::print_json(&Value::Object(object))
}

/// `linf, l2`.
pub fn norms(norms: &[sora::threat::Norm]) -> String {
    norms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
