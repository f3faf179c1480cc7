//! `sora methods`, `sora models` and `sora attacks`.

use serde_json::{Map, Value, json};
use sora::{
    attack::ATTACKS,
    error::{Error, Result},
    method::METHODS,
    model::{NETWORKS, Shape},
    threat::Norm,
};

use super::{print_json, print_table};

fn norms(norms: &[Norm]) -> String {
    norms.iter().map(Norm::to_string).collect::<Vec<_>>().join(", ")
}

fn heading<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).to_vec()
}

/// Training methods with their cost (passes of a step; cost relative to standard training), memory
/// and options.
pub fn methods(json: bool) -> Result<()> {
    let names = [
        "method",
        "norms",
        "forward",
        "to input",
        "to weights",
        "cost",
        "memory/image",
        "attack bn",
        "options",
        "what it does",
        "source",
    ];
    let mut rows = vec![heading(names)];
    let mut object = Map::new();
    for info in METHODS {
        let options = (info.options)()?;
        let listed = options
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        let passes = info.passes;
        let memory = if info.stored_images == 0 {
            "-".into()
        } else {
            format!("{} f32 images", info.stored_images)
        };
        rows.push(vec![
            info.name.into(),
            norms(info.norms),
            passes.forward.to_string(),
            passes.backward_input.to_string(),
            passes.backward_full.to_string(),
            format!("{:.2}", passes.relative_cost()),
            memory,
            format!("{:?}", info.attack_bn).to_lowercase(),
            listed,
            info.summary.into(),
            info.source.into(),
        ]);
        let options = serde_json::to_value(&options)
            .map_err(|e| Error::work(format!("cannot list the options: {e}")))?;
        object.insert(
            info.name.into(),
            json!({
                "summary": info.summary,
                "source": info.source,
                "norms": info.norms,
                "passes": passes,
                "relative_cost": passes.relative_cost(),
                "stored_images": info.stored_images,
                "attack_bn": info.attack_bn,
                "options": options,
            }),
        );
    }
    if json { print_json(&Value::Object(object)) } else { print_table(&rows) }
}

/// Networks, with their parameters at the default width for 32x32 colour images in 10 classes.
pub fn models(json: bool) -> Result<()> {
    let shape = Shape { channels: 3, height: 32, width: 32, classes: 10 };
    let mut rows = vec![heading([
        "network",
        "width",
        "parameters",
        "activation",
        "options",
        "what it is",
        "names and start",
        "source",
    ])];
    let mut object = Map::new();
    for info in NETWORKS {
        let parameters = info.parameters(info.default_width, shape)?;
        let options =
            info.options.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(" ");
        rows.push(vec![
            info.name.into(),
            info.default_width.to_string(),
            format!("{:.2} M", parameters as f64 / 1e6),
            info.activation.to_string(),
            options,
            info.summary.into(),
            info.names.into(),
            info.source.into(),
        ]);
        object.insert(
            info.name.into(),
            json!({
                "summary": info.summary,
                "source": info.source,
                "names": info.names,
                "width": info.default_width,
                "parameters": parameters,
                "activation": info.activation,
                "options": info.options,
            }),
        );
    }
    if json { print_json(&Value::Object(object)) } else { print_table(&rows) }
}

/// Attacks.
pub fn attacks(json: bool) -> Result<()> {
    let mut rows = vec![heading(["attack", "norms", "what it does", "source"])];
    let mut object = Map::new();
    for info in ATTACKS {
        rows.push(vec![
            info.name.into(),
            norms(info.norms),
            info.summary.into(),
            info.source.into(),
        ]);
        object.insert(
            info.name.into(),
            json!({"summary": info.summary, "source": info.source, "norms": info.norms}),
        );
    }
    if json { print_json(&Value::Object(object)) } else { print_table(&rows) }
}
