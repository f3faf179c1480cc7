//! Merges the flags with a config file.

use std::path::Path;

use sora::{
    config::{self, TrainConfig},
    run,
};
use toml::Table;

use super::settings::Given;
use crate::error::{Failure, Result};

/// The settings of a run: those of the call, completed with those of the file.
///
/// # Errors
/// A file that cannot be read or understood; a wrong value; no data set.
pub fn settle(mut given: Given, file: Option<&Path>) -> Result<TrainConfig> {
    for pair in &given.set {
        config::put_option(&mut given.table, pair)?;
    }
    let under = match file {
        Some(file) => config::read_file(file)
            .map_err(|e| Failure::input(format!("--config {}", crate::render::library(&e))))?,
        None => Table::new(),
    };
    let table = config::over(given.table.clone(), under);
    if !table.contains_key("dataset") {
        return Err(Failure::input(
            "--dataset is missing: name a set of `sora data list`, an image folder, or synthetic \
             (images drawn from the seed, to try things out)",
        ));
    }
    let table = run::with_initial_network(table)?;
    let place = |e| place(&given.table, file, e);
    let config = TrainConfig::from_table(table).map_err(place)?;
    // Only what the call itself gives can be left out of it.
    let by_call = |e: &sora::Error| match e {
        sora::Error::Setting { setting, .. } => given.table.contains_key(setting.as_ref()),
        _ => false,
    };
    let (given, of_file): (Vec<_>, Vec<_>) = config.ignored()?.into_iter().partition(by_call);
    for e in of_file {
        tracing::warn!("{}; it has no effect", crate::render::library(&e));
    }
    given.into_iter().next().map_or(Ok(config), |e| Err(place(e)))
}

/// Adds the file's name to an error in a setting that came from the file.
fn place(given: &Table, file: Option<&Path>, error: sora::Error) -> Failure {
    let in_file = match &error {
        sora::Error::Setting { setting, .. } => !given.contains_key(setting.as_ref()),
        sora::Error::UnknownName { kind: "setting", .. } => true,
        _ => false,
    };
    match file.filter(|_| in_file) {
        Some(file) => {
            let path = file.to_owned();
            let error = sora::Error::InFile { path, source: Box::new(error) };
            Failure::input(format!("--config {}", crate::render::library(&error)))
        }
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_told_with_its_place() {
        let told = |given: &str, file: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("c.toml");
            std::fs::write(&path, file).unwrap();
            let given = Given { table: given.parse().unwrap(), set: Vec::new() };
            crate::render::text(&settle(given, Some(&path)).unwrap_err())
        };
        let text = told("epsilon = '8/'", "dataset = 'synthetic'");
        assert!(text.starts_with("--epsilon 8/") && text.contains("8/255"), "{text}");
        let text = told("", "dataset = 'synthetic'\nmomemtum = 0.9");
        assert!(text.contains("'momemtum'") && text.contains("did you mean momentum?"), "{text}");
        assert!(text.len() < 200, "{text}");
        let text = told("", "dataset = 'synthetic'\nwidth = 'wide'");
        assert!(text.contains("c.toml: width wide"), "{text}");
        let text = told("", "width = 3");
        assert!(text.contains("--dataset") && text.contains("synthetic"), "{text}");
        assert_eq!(told("", "= 3").lines().count(), 1);
    }
}
