//! `sora methods`: the training methods, with their cost, memory and options.

use serde_json::json;
use sora::{
    error::Error,
    method::{METHODS, MethodInfo},
};

use super::shared::{Describe, Entry, Listing, norms};
use crate::{complete, error::Result};

/// Which method, and how to print.
#[derive(Debug, clap::Args)]
pub struct MethodsArgs {
    /// A method to describe; without one: the list
    #[arg(add = complete::methods())]
    pub name: Option<String>,
    #[command(flatten)]
    pub describe: Describe,
}

/// Prints the list, or one method.
pub fn run(args: &MethodsArgs) -> Result<()> {
    args.describe.print("method", args.name.as_deref(), list()?)
}

/// Every method.
///
/// # Errors
/// A method whose options cannot be listed.
pub fn list() -> Result<Listing> {
    Ok(Listing {
        heading: &["method", "norms", "cost", "what it does"],
        entries: METHODS.iter().copied().map(entry).collect::<Result<_>>()?,
        footer: "cost: passes of a step relative to standard training. `sora methods NAME` gives \
                 options, memory and source.",
    })
}

fn entry(info: &MethodInfo) -> Result<Entry> {
    let options = (info.options)()?;
    let passes = info.passes;
    let cost = format!("{:.2}", passes.relative_cost());
    let memory = match info.stored_images {
        0 => "nothing".to_owned(),
        n => format!("{n} f32 images for each training image"),
    };
    let listed: Vec<_> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let json_options = serde_json::to_value(&options)
        .map_err(|e| Error::defect(format!("the options cannot be listed: {e}")))?;
    Ok(Entry {
        name: info.name.into(),
        cells: vec![norms(info.norms), cost.clone(), info.summary.into()],
        facts: vec![
            ("what it does", info.summary.into()),
            ("norms", norms(info.norms)),
            ("options (--set)", if listed.is_empty() { "none".into() } else { listed.join(", ") }),
            (
                "passes of a step",
                format!(
                    "{} forward, {} back to the images, {} back to the weights",
                    passes.forward, passes.backward_input, passes.backward_full
                ),
            ),
            ("cost", format!("{cost} of a step of standard training")),
            ("it keeps", memory),
            ("attack's batch norm", format!("{:?}", info.attack_bn).to_lowercase()),
            ("source", info.source.into()),
        ],
        json: json!({
            "summary": info.summary,
            "source": info.source,
            "norms": info.norms,
            "passes": passes,
            "relative_cost": passes.relative_cost(),
            "stored_images": info.stored_images,
            "attack_bn": info.attack_bn,
            "options": json_options,
        }),
    })
}
