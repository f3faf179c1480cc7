//! `sora models`: the networks.

use serde_json::json;
use sora::model::{NETWORKS, NetworkInfo, Shape};

use super::shared::{Describe, Entry, Listing};
use crate::{complete, error::Result};

/// The images for which the parameters are counted.
const CIFAR: Shape = Shape { channels: 3, height: 32, width: 32, classes: 10 };

/// Which network, and how to print.
#[derive(Debug, clap::Args)]
pub struct ModelsArgs {
    /// A network to describe; without one: the list
    #[arg(add = complete::networks())]
    pub name: Option<String>,
    #[command(flatten)]
    pub describe: Describe,
}

/// Prints the list, or one network.
pub fn run(args: &ModelsArgs) -> Result<()> {
    args.describe.print("network", args.name.as_deref(), list()?)
}

/// Every network.
///
/// # Errors
/// A network that cannot be built.
pub fn list() -> Result<Listing> {
    Ok(Listing {
        heading: &["network", "width", "parameters", "what it is"],
        entries: NETWORKS.iter().map(entry).collect::<Result<_>>()?,
        footer: "Parameters at the default width for 32x32 colour images in 10 classes. `sora \
                 models NAME` gives options and source.",
    })
}

fn entry(info: &NetworkInfo) -> Result<Entry> {
    let parameters = info.parameters(info.default_width, CIFAR)?;
    let millions = format!("{:.2} M", parameters as f64 / 1e6);
    let flags: Vec<_> = info.options.iter().map(|name| format!("--{name}")).collect();
    Ok(Entry {
        name: info.name.into(),
        cells: vec![info.default_width.to_string(), millions.clone(), info.summary.into()],
        facts: vec![
            ("what it is", info.summary.into()),
            ("default width", info.default_width.to_string()),
            ("parameters", format!("{millions} for 32x32 colour images in 10 classes")),
            ("activation", info.activation.to_string()),
            ("options", if flags.is_empty() { "none".into() } else { flags.join(", ") }),
            ("names and start", info.names.into()),
            ("source", info.source.into()),
        ],
        json: json!({
            "summary": info.summary,
            "source": info.source,
            "names": info.names,
            "width": info.default_width,
            "parameters": parameters,
            "activation": info.activation,
            "options": info.options,
        }),
    })
}
