//! `sora schema`: the JSON schema of each file that the program writes.

use serde_json::{Map, Value, json};

use super::train::settings::{SETTINGS, Values};
use crate::{
    console::{Table, no_such, print},
    error::Result,
};

/// The name, the description and the text of each schema. A test compares each with the program's
/// output.
const WRITTEN: &[(&str, &str, &str)] = &[
    ("metrics", "a line of metrics.jsonl", include_str!("../../schemas/metrics.json")),
    ("epochs", "a line of epochs.jsonl", include_str!("../../schemas/epochs.json")),
    ("summary", "summary.json", include_str!("../../schemas/summary.json")),
    ("eval", "eval/*.json and `sora eval --json`", include_str!("../../schemas/eval.json")),
    (
        "sweep",
        "eval/sweep-*.json and `sora sweep --json`",
        include_str!("../../schemas/sweep.json"),
    ),
    ("diagnose", "`sora diagnose --json`", include_str!("../../schemas/diagnose.json")),
];

/// Which schema.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// File; without one: the list
    pub name: Option<String>,
}

/// Name and description of the schema that is made from the list of settings.
const CONFIG: (&str, &str) = ("config", "config.toml, as JSON would hold it");

/// Each schema's name and what it is of.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    WRITTEN.iter().map(|(name, of, _)| (*name, *of)).chain([CONFIG])
}

/// The schema of this name.
pub fn of(name: &str) -> Option<String> {
    if name == CONFIG.0 {
        return Some(format!("{:#}\n", config()));
    }
    WRITTEN.iter().find(|(known, ..)| *known == name).map(|(.., schema)| (*schema).to_owned())
}

/// Prints the schema, or the list.
pub fn run(args: &SchemaArgs) -> Result<()> {
    let Some(name) = args.name.as_deref() else {
        let mut table = Table::new(["schema", "of"]);
        names().for_each(|(name, of)| table.row([name, of]));
        return table.print();
    };
    match of(name) {
        Some(schema) => print(&schema),
        None => {
            let known = names().map(|(known, _)| known);
            Err(no_such("schema", name, known, "`sora schema` lists them all"))
        }
    }
}

/// The schema of config.toml: each setting, and the keys that a run adds.
fn config() -> Value {
    let mut properties = Map::new();
    for setting in SETTINGS {
        let mut of = match setting.values {
            Values::Text => json!({"type": "string"}),
            Values::Integer => json!({"type": "integer", "minimum": 0}),
            Values::Integers => json!({"type": "array", "items": {"type": "integer"}}),
            Values::Numbers => json!({"type": "array", "items": {"type": "number"}}),
            Values::Number => json!({"type": "number"}),
            Values::Switch => json!({"type": "boolean"}),
            Values::Choice(words) => json!({"enum": words}),
        };
        of["description"] = json!(setting.help);
        properties.insert(setting.name.to_owned(), of);
    }
    for (name, about) in [
        ("options", "Hyperparameters of the method, see `sora methods NAME`"),
        ("network", "The network as the data set decided it; written by the program"),
        ("data", "Identity of the images and labels; written by the program"),
        ("extra", "Identity of the extra training images; written by the program"),
        ("provenance", "Program and machine; written, not read"),
    ] {
        properties.insert(name.to_owned(), json!({"type": "object", "description": about}));
    }
    let extended = json!({
        "type": "array",
        "items": {"type": "integer"},
        "description": "Numbers of epochs before the run was extended; written",
    });
    properties.insert("extended".to_owned(), extended);
    let steps = json!({"type": "integer", "description": "Steps of an epoch; written"});
    properties.insert("steps_per_epoch".to_owned(), steps);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sora config",
        "description": "Settings of a run; each may be absent in a file for --config",
        "type": "object",
        "properties": properties,
    })
}
