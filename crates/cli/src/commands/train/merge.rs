//! A config file under the flags.

use std::path::Path;

use sora::config::TrainOptions;
use toml::{Table, Value};

use super::settings::{self, Given, flag};
use crate::{
    console::did_you_mean,
    error::{Failure, Result},
};

/// Settings that go with another one: where a flag gives that another value than the file, the
/// file's values of these stay out. They were chosen for, or are the defaults of, what is replaced.
const BELONGS_TO: &[(&str, &[&str])] = &[
    ("method", &["options", "attack_bn"]),
    ("model", &["width", "activation", "shortcut", "dropout", "stem", "patch"]),
    ("norm", &["epsilon"]),
    ("optimizer", &["lr_max"]),
    ("dataset", &["image_size", "augment"]),
];

/// The settings of a run: what was given, and where that is silent, the file.
///
/// # Errors
/// A file that cannot be read or understood; a wrong value; no data set.
pub fn options(given: Given, file: Option<&Path>) -> Result<TrainOptions> {
    let under = file.map(read).transpose()?.unwrap_or_default();
    let table = laid_over(&given.table, under);
    if !table.contains_key("dataset") {
        return Err(Failure::input(
            "--dataset is missing: name a set of `sora data list`, an image folder, or synthetic \
             (images drawn from the seed, to try things out)",
        ));
    }
    let parsed = TrainOptions::deserialize_table(&table);
    let mut options = parsed.map_err(|e| explain(&given.table, &table, file, &e))?;
    options.set = given.set;
    Ok(options)
}

/// A table as the library's options.
trait FromTable: Sized {
    fn deserialize_table(table: &Table) -> Result<Self, toml::de::Error>;
}

impl FromTable for TrainOptions {
    fn deserialize_table(table: &Table) -> Result<Self, toml::de::Error> {
        table.clone().try_into()
    }
}

fn read(path: &Path) -> Result<Table> {
    let wrong = |what: String| Failure::input(format!("--config {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot read it: {e}")))?;
    text.parse().map_err(|e: toml::de::Error| wrong(one_line(&e.to_string())))
}

/// `given` over `file`.
fn laid_over(given: &Table, mut file: Table) -> Table {
    for (key, dependents) in BELONGS_TO {
        let (Some(new), Some(old)) = (given.get(*key), file.get(*key)) else { continue };
        if new == old {
            continue;
        }
        let replaced =
            format!("--{} {} in place of the file's {}", flag(key), plain(new), plain(old));
        let left: Vec<String> = dependents
            .iter()
            .filter(|name| !given.contains_key(**name))
            .filter_map(|name| Some((*name, file.remove(*name)?)))
            .filter(|(_, value)| value.as_table().is_none_or(|table| !table.is_empty()))
            .map(|(name, value)| said(name, &value))
            .collect();
        if !left.is_empty() {
            tracing::info!("{replaced}: its {} stay out", left.join(", "));
        }
    }
    file.extend(given.clone());
    file
}

/// `options alpha_0, beta` or `width 4`.
fn said(name: &str, value: &Value) -> String {
    match value.as_table() {
        Some(table) => format!("{name} {}", table.keys().cloned().collect::<Vec<_>>().join(", ")),
        None => format!("{name} {}", plain(value)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Which setting the library refused, and where it stands.
fn explain(given: &Table, all: &Table, file: Option<&Path>, error: &toml::de::Error) -> Failure {
    let place = |key: &str, value: &Value| match (given.contains_key(key), file) {
        (false, Some(file)) => format!("--config {}: {key} = {value}", file.display()),
        _ => format!("--{} '{}'", flag(key), plain(value)),
    };
    for (key, value) in all {
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        let Err(problem) = TrainOptions::deserialize_table(&alone) else { continue };
        let text = first_line(problem.message());
        if text.starts_with("unknown field") {
            let hint = did_you_mean(key, settings::names());
            let at = file.map_or_else(String::new, |file| format!("--config {}: ", file.display()));
            return Failure::input(format!(
                "{at}unknown key '{key}'{hint} `sora help train` lists the settings"
            ));
        }
        return Failure::input(format!("{}: {text}", place(key, value)));
    }
    Failure::input(first_line(error.message()))
}

/// The message without the word on where in the TOML it happened.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn what_belonged_to_a_replaced_choice_stays_out() {
        let file = "method = 'sora'\nmodel = 'vit-tiny'\nwidth = 3\npatch = 4\nseed = 7\n\
                    attack_bn = 'train'\nepsilon = '8/255'\n[options]\nbeta = 0.1";
        let all = laid_over(&table("method = 'pgd'"), table(file));
        let expected = "method = 'pgd'\nmodel = 'vit-tiny'\nwidth = 3\npatch = 4\nseed = 7\n\
                        epsilon = '8/255'";
        assert_eq!(all, table(expected));
        let all = laid_over(&table("model = 'mnist-cnn'\nwidth = 9\nmethod = 'sora'"), table(file));
        assert_eq!(all["width"].as_integer(), Some(9), "a flag stays");
        assert!(!all.contains_key("patch") && all.contains_key("options"), "{all}");
    }

    #[test]
    fn a_wrong_value_is_told_with_its_place() {
        let told = |given: &str, file: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("c.toml");
            std::fs::write(&path, file).unwrap();
            let given = Given { table: table(given), set: Vec::new() };
            crate::render::text(&options(given, Some(&path)).unwrap_err())
        };
        let text = told("epsilon = '8/'", "dataset = 'synthetic'");
        assert!(text.starts_with("--epsilon '8/'") && text.contains("8/255"), "{text}");
        let text = told("", "dataset = 'synthetic'\nmomemtum = 0.9");
        assert!(text.contains("'momemtum'") && text.contains("did you mean momentum?"), "{text}");
        assert!(text.len() < 200, "{text}");
        let text = told("", "dataset = 'synthetic'\nwidth = 'wide'");
        assert!(text.contains("c.toml: width = \"wide\""), "{text}");
        let text = told("", "width = 3");
        assert!(text.contains("--dataset") && text.contains("synthetic"), "{text}");
        assert_eq!(told("", "= 3").lines().count(), 1);
    }
}
