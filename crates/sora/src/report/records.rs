//! A run folder as a reader of its records sees it.
//!
//! Records of a run in progress, of an older or a newer version, or cut off by a full disk must
//! still give a figure: what is missing is left out, what is damaged is said once in
//! [`Run::warnings`].

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// An accuracy as a fraction, with its interval if one is recorded.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Accuracy {
    /// Fraction correct.
    pub accuracy: f64,
    /// 95 % interval.
    pub ci95: Option<[f64; 2]>,
}

impl Accuracy {
    /// Accuracy and interval in percent: `(x, accuracy, interval)` of a chart.
    pub fn point(&self, x: f64) -> crate::plot::Point {
        crate::plot::Point {
            x,
            y: 100.0 * self.accuracy,
            y_interval: self.ci95.map(|ends| ends.map(|v| 100.0 * v)),
            x_interval: None,
        }
    }
}

/// A validation.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Validation {
    /// Images.
    pub n: u64,
    /// Clean accuracy.
    pub clean: Option<Accuracy>,
    /// Accuracy under one step.
    pub fgsm: Option<Accuracy>,
    /// Accuracy under many steps.
    pub pgd: Option<Accuracy>,
}

/// Catastrophic overfitting as it was noticed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Onset {
    /// Step at which it was noticed.
    pub step: u64,
    /// Step before which all was in order.
    pub onset: Option<u64>,
    /// What gave it away: `pertalign`, `linearity`, `low` (PertAlign never rose) or `gap`
    /// (validation).
    pub sign: String,
    /// Figure before: the best mean of PertAlign or linearity, or fgsm accuracy.
    pub from: f64,
    /// Figure at `step`: the newest mean of PertAlign or linearity, or pgd accuracy.
    pub to: f64,
}

impl Onset {
    /// What was noticed, in words.
    pub fn reason(&self) -> String {
        let Self { from, to, .. } = self;
        // "-0.00" reads like a mistake.
        let [from, to] =
            [from, to].map(|v| format!("{:.2}", if v.abs() < 0.005 { 0.0 } else { *v }));
        match self.sign.as_str() {
            "low" => format!("PertAlign never rose beyond {from}"),
            "linearity" => format!("linearity fell from {from} to {to}"),
            "gap" => format!("validation accuracy {from} under fgsm and {to} under pgd-10"),
            _ => format!("PertAlign fell from {from} to {to}"),
        }
    }
}

/// A return to an earlier checkpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Rollback {
    /// Why.
    pub co: Onset,
    /// Step gone back to.
    pub to_step: u64,
    /// Method before.
    pub from_method: String,
    /// Method since.
    pub method: String,
}

/// A line of `metrics.jsonl`; what is not in it, or not a number, is absent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Step {
    pub step: u64,
    #[serde(default)]
    pub epoch: u64,
    pub loss: Option<f64>,
    pub adv_acc: Option<f64>,
    pub lr: Option<f64>,
    pub alpha: Option<f64>,
    pub linearity: Option<f64>,
    pub pert_align: Option<f64>,
    pub delta_mean: Option<f64>,
    pub images_per_s: Option<f64>,
    pub val: Option<Validation>,
    pub co: Option<Onset>,
    pub rollback: Option<Rollback>,
}

/// Training figures of an epoch.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Training {
    pub loss: Option<f64>,
    pub adv_acc: Option<f64>,
    pub pert_align: Option<f64>,
}

/// A line of `epochs.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Epoch {
    pub epoch: u64,
    #[serde(default)]
    pub step: u64,
    #[serde(default)]
    pub train: Training,
    pub val: Option<Validation>,
    pub co: Option<Onset>,
    pub rollback: Option<Rollback>,
    #[serde(default)]
    pub seconds: f64,
    #[serde(default)]
    pub val_seconds: f64,
    pub peak_rss_mib: Option<u64>,
}

/// Accuracy under one attack.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AttackResult {
    /// Robust accuracy.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Wall-clock seconds.
    pub seconds: Option<f64>,
}

/// A file of `eval/`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Evaluation {
    /// File name without its ending.
    #[serde(skip)]
    pub name: String,
    pub dataset: String,
    pub split: String,
    pub n: u64,
    pub epsilon: f64,
    pub norm: String,
    pub seed: u64,
    pub results: BTreeMap<String, AttackResult>,
    pub warnings: Vec<String>,
}

/// Place of an attack in the order of strength: weak first.
pub fn strength(attack: &str) -> u64 {
    let pgd = |rest: &str| {
        let (steps, restarts) = rest.split_once('x').unwrap_or((rest, "1"));
        let number = |text: &str| text.parse::<u64>().unwrap_or(1).min(10_000);
        100 + number(steps).saturating_mul(number(restarts)).min(100_000_000)
    };
    match attack {
        "clean" => 0,
        "fgsm" => 1,
        name if name.starts_with("pgd-") => pgd(name.trim_start_matches("pgd-")),
        name if name.starts_with("autoattack") => u64::MAX,
        _ => u64::MAX / 2,
    }
}

/// Clean and robust accuracy of a finished run, and where they come from.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Clean accuracy.
    pub clean: Accuracy,
    /// Accuracy under `attack`.
    pub robust: Accuracy,
    /// Attack.
    pub attack: String,
    /// Images.
    pub n: u64,
    /// `test` or `validation`.
    pub split: String,
}

/// What a run folder holds.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// Name that tells it from the other runs of a report.
    pub name: String,
    /// Its settings, as the file has them.
    pub config: toml::Table,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// Epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Evaluations, by file name.
    pub evaluations: Vec<Evaluation>,
    /// Whether the run has its final figures.
    pub finished: bool,
    /// What is missing or damaged.
    pub warnings: Vec<String>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// No folder, or one without a readable `config.toml`. Anything else that is missing or damaged
    /// is a warning.
    pub fn load(path: &Path) -> Result<Self> {
        let file = path.join("config.toml");
        let text = fs::read_to_string(&file).map_err(|e| {
            Error::input(format!(
                "{}: not a run folder, cannot read its config.toml ({e}); expected a folder that `sora train --out` made",
                path.display()
            ))
        })?;
        let config = text.parse::<toml::Table>().map_err(|e| {
            let line = e.message().lines().next().unwrap_or_default().to_owned();
            Error::input(format!(
                "{}: not a TOML file ({line}); expected the settings that `sora train` wrote",
                file.display()
            ))
        })?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = absolute
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        let mut run = Self { path: path.to_owned(), name, config, ..Self::default() };
        run.steps = read_lines(&path.join("metrics.jsonl"), &mut run.warnings);
        run.epochs = read_lines(&path.join("epochs.jsonl"), &mut run.warnings);
        run.finished = path.join("summary.json").is_file();
        if !run.finished {
            run.warnings.push("the run is not finished: it has no summary.json".into());
        }
        run.read_evaluations();
        Ok(run)
    }

    /// Reads several run folders and gives each a name of its own.
    ///
    /// # Errors
    /// As [`load`](Self::load), for the first that fails; none given.
    pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        let mut runs = paths.iter().map(|path| Self::load(path)).collect::<Result<Vec<_>>>()?;
        if runs.is_empty() {
            return Err(Error::input(
                "no run folder given; expected at least one that `sora train --out` made",
            ));
        }
        // What `reproduce` appends to a folder's name says nothing to a reader, unless it is the
        // only difference.
        let readable: Vec<_> = runs.iter().map(|run| without_mark(&run.name).to_owned()).collect();
        for (i, run) in runs.iter_mut().enumerate() {
            if !readable.iter().enumerate().any(|(j, other)| j != i && *other == readable[i]) {
                run.name.clone_from(&readable[i]);
            }
        }
        // Folders of the same name, such as a/seed0 and b/seed0, are told apart by the folder
        // around them.
        let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
        for (i, run) in runs.iter_mut().enumerate() {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                let absolute = std::path::absolute(&run.path).unwrap_or_default();
                let parent = absolute
                    .parent()
                    .and_then(Path::file_name)
                    .map_or_else(String::new, |p| p.to_string_lossy().into_owned());
                run.name = format!("{parent}/{}", run.name);
                if names.iter().zip(paths).filter(|(_, path)| **path == run.path).count() > 1 {
                    run.name += &format!(" ({})", i + 1);
                }
            }
        }
        Ok(runs)
    }

    fn read_evaluations(&mut self) {
        let dir = self.path.join("eval");
        let Ok(entries) = fs::read_dir(&dir) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        files.sort();
        for file in files {
            let name =
                file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
            let read = fs::read(&file).map_err(|e| e.to_string());
            let parsed = read.and_then(|bytes| {
                serde_json::from_slice::<serde_json::Value>(&bytes).map_err(|e| e.to_string())
            });
            match parsed {
                // Other records, such as sweeps, may lie beside the evaluations.
                Ok(value) if !value.get("results").is_some_and(serde_json::Value::is_object) => {}
                Ok(value) => match serde_json::from_value::<Evaluation>(value) {
                    Ok(evaluation) => self.evaluations.push(Evaluation { name, ..evaluation }),
                    Err(e) => {
                        self.warnings.push(format!("eval/{name}.json is not an evaluation: {e}"))
                    }
                },
                Err(e) => self.warnings.push(format!("eval/{name}.json is damaged: {e}")),
            }
        }
    }

    /// A setting as text; empty when it is not there.
    pub fn setting(&self, key: &str) -> String {
        self.config.get(key).map(value_text).unwrap_or_default()
    }

    /// Method.
    pub fn method(&self) -> String {
        self.setting("method")
    }

    /// Norm of the threat model: `linf` or `l2`.
    pub fn norm(&self) -> String {
        self.setting("norm")
    }

    /// Seed.
    pub fn seed(&self) -> String {
        self.setting("seed")
    }

    /// Data set; of an image folder its last name only.
    pub fn dataset(&self) -> String {
        dataset_name(&self.setting("dataset"))
    }

    /// Network and its width.
    pub fn network(&self) -> String {
        format!("{} of width {}", self.setting("model"), self.setting("width"))
    }

    /// Norm and radius, for readers.
    pub fn threat(&self) -> String {
        let norm = match self.norm().as_str() {
            "linf" => "l-inf".to_owned(),
            other => other.to_owned(),
        };
        format!("{norm} \u{3b5} = {}", self.setting("epsilon"))
    }

    /// Radius in pixel units, if the settings have one.
    pub fn epsilon(&self) -> Option<f64> {
        self.setting("epsilon").parse::<crate::threat::Epsilon>().ok().map(|e| f64::from(e.value()))
    }

    /// Unit of step sizes and radii: the factor to it, and its name.
    pub fn unit(&self) -> (f64, &'static str) {
        if self.norm() == "linf" { (255.0, "1/255") } else { (1.0, "pixel units") }
    }

    /// Steps of an epoch; 1 before the first step.
    pub fn steps_per_epoch(&self) -> f64 {
        let whole = self
            .epochs
            .first()
            .filter(|first| first.step > 0)
            .map(|first| first.step as f64 / (first.epoch + 1) as f64);
        let begun = || self.steps.iter().filter(|step| step.epoch == 0).count().max(1) as f64;
        whole.unwrap_or_else(begun)
    }

    /// All validations, after epochs and within them: `(steps made, figures)`.
    pub fn validations(&self) -> Vec<(u64, Validation)> {
        let within = self.steps.iter().filter_map(|line| Some((line.step + 1, line.val?)));
        let after = self.epochs.iter().filter_map(|line| Some((line.step, line.val?)));
        within.chain(after).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Where catastrophic overfitting was first noticed, in the lines that the run kept.
    pub fn onset(&self) -> Option<Onset> {
        let in_steps = self.steps.iter().find_map(|line| line.co.clone());
        in_steps.or_else(|| self.epochs.iter().find_map(|line| line.co.clone()))
    }

    /// The run's rollback, if there was one.
    pub fn rollback(&self) -> Option<&Rollback> {
        let in_steps = self.steps.iter().find_map(|line| line.rollback.as_ref());
        in_steps.or_else(|| self.epochs.iter().rev().find_map(|line| line.rollback.as_ref()))
    }

    /// Seconds of training, without validation.
    pub fn seconds(&self) -> Option<f64> {
        let sum: f64 = self.epochs.iter().map(|line| line.seconds).sum();
        (sum > 0.0).then_some(sum)
    }

    /// Largest resident memory in MiB.
    pub fn peak_rss_mib(&self) -> Option<u64> {
        self.epochs.iter().filter_map(|line| line.peak_rss_mib).max()
    }

    /// Accuracies clean and under `attack`: of the evaluation with the most images, else (for
    /// pgd-10) of the last validation.
    pub fn measured(&self, attack: &str) -> Option<Measured> {
        let best = self
            .evaluations
            .iter()
            .filter(|e| self.is_own(e) && e.results.contains_key(attack))
            .max_by_key(|e| e.n);
        if let Some(found) = best
            && let (Some(clean), Some(robust)) =
                (found.results.get("clean"), found.results.get(attack))
        {
            let (clean, robust) = (clean.accuracy, robust.accuracy);
            return Some(Measured {
                clean,
                robust,
                attack: attack.into(),
                n: found.n,
                split: found.split.clone(),
            });
        }
        if attack != "pgd-10" {
            return None;
        }
        let (_, last) = self.validations().into_iter().next_back()?;
        Some(Measured {
            clean: last.clean?,
            robust: last.pgd?,
            attack: attack.into(),
            n: last.n,
            split: "validation".into(),
        })
    }

    /// Whether an evaluation is of the run's own threat model.
    fn is_own(&self, evaluation: &Evaluation) -> bool {
        self.epsilon().is_none_or(|own| (own - evaluation.epsilon).abs() < 1e-6)
            && evaluation.norm == self.norm()
    }

    /// Settings as `section.key` and text, without what describes the machine.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value) in &self.config {
            match value {
                toml::Value::Table(_) if key == "provenance" || key == "network" => {}
                toml::Value::Table(table) => {
                    all.extend(
                        table
                            .iter()
                            .map(|(inner, value)| (format!("{key}.{inner}"), value_text(value))),
                    );
                }
                _ if key == "dataset" => drop(all.insert(key.clone(), self.dataset())),
                _ if key == "data_dir" => {}
                _ => drop(all.insert(key.clone(), value_text(value))),
            }
        }
        all
    }

    /// Facts about the program and the machine.
    pub fn provenance(&self) -> Vec<(String, String)> {
        match self.config.get("provenance") {
            Some(toml::Value::Table(table)) => {
                table.iter().map(|(key, value)| (key.clone(), value_text(value))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A folder's name without the eight hexadecimal digits, at least one of them a letter, that tell
/// `reproduce`'s settings apart.
fn without_mark(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((readable, mark))
            if mark.len() == 8
                && mark.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && mark.parse::<u64>().is_err() =>
        {
            readable
        }
        _ => name,
    }
}

/// A data set's name for readers: of an image folder its last name only, since a page is passed on
/// and the path is the machine's.
pub fn dataset_name(dataset: &str) -> String {
    match dataset.strip_prefix("folder:") {
        Some(path) => {
            let last = Path::new(path)
                .file_name()
                .map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
            format!("folder {last}")
        }
        None => dataset.to_owned(),
    }
}

fn value_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Lines of a JSON-lines file; those that cannot be read are counted in `warnings`.
fn read_lines<T: DeserializeOwned>(path: &Path, warnings: &mut Vec<String>) -> Vec<T> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            warnings.push(format!("{name} is missing"));
            return Vec::new();
        }
        Err(e) => {
            warnings.push(format!("{name} cannot be read: {e}"));
            return Vec::new();
        }
    };
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    let whole = bytes.is_empty() || bytes.ends_with(b"\n");
    let count = bytes.split(|b| *b == b'\n').count();
    for (i, line) in
        bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty())
    {
        match serde_json::from_slice(line) {
            Ok(row) => rows.push(row),
            // A run that is writing this very line.
            Err(_) if !whole && i + 1 == count => {
                warnings.push(format!("{name} ends in the middle of line {}", i + 1))
            }
            Err(e) => damaged.push(format!("line {}: {e}", i + 1)),
        }
    }
    if let Some(first) = damaged.first() {
        warnings.push(format!(
            "{name}: {} of {} lines are damaged and left out, the first is {first}",
            damaged.len(),
            count
        ));
    }
    if rows.is_empty() && damaged.is_empty() {
        warnings.push(format!("{name} is empty"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn names_lose_the_mark_of_reproduce_where_they_stay_distinct() {
        let config = "method = \"fgsm\"\n";
        let dir = folder(&[
            ("sora_seed_0-dc0b7665/config.toml", config),
            ("fgsm-20261124/config.toml", config),
            ("pgd-dc0b7665/config.toml", config),
            ("pgd-0b7665dc/config.toml", config),
        ]);
        let paths: Vec<_> =
            ["sora_seed_0-dc0b7665", "fgsm-20261124", "pgd-dc0b7665", "pgd-0b7665dc"]
                .iter()
                .map(|name| dir.path().join(name))
                .collect();
        let names: Vec<_> =
            Run::load_all(&paths).unwrap().into_iter().map(|run| run.name).collect();
        assert_eq!(names, ["sora_seed_0", "fgsm-20261124", "pgd-dc0b7665", "pgd-0b7665dc"]);
    }

    #[test]
    fn damaged_and_missing_records_are_warnings() {
        let dir = folder(&[
            (
                "config.toml",
                "method = \"fgsm\"\nepsilon = \"16/255\"\nnorm = \"linf\"\n[options]\nbeta = 0.5\n",
            ),
            (
                "metrics.jsonl",
                "{\"step\":0,\"loss\":null,\"new\":1}\nnonsense\n{\"step\":1,\"loss\":2.5,\"co\":{\"step\":1}}\n{\"step\":2,\"lo",
            ),
            (
                "eval/a.json",
                "{\"results\":{\"clean\":{\"accuracy\":0.5}},\"epsilon\":0.0627451,\"norm\":\"linf\"}",
            ),
            ("eval/b.json", "{"),
            ("eval/sweep.json", "[1, 2]"),
        ]);
        let run = Run::load(dir.path()).unwrap();
        assert_eq!(
            (run.steps.len(), run.steps[1].loss, run.onset().unwrap().step),
            (2, Some(2.5), 1)
        );
        assert_eq!(run.evaluations.len(), 1);
        assert_eq!(run.settings()["options.beta"], "0.5");
        let text = run.warnings.join("\n");
        for part in [
            "metrics.jsonl: 1 of 4 lines",
            "ends in the middle of line 4",
            "epochs.jsonl is missing",
            "eval/b.json is damaged",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
    }

    #[test]
    fn what_is_no_run_folder_is_refused() {
        let dir = folder(&[("config.toml", "= nothing")]);
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            assert!(matches!(Run::load(&path), Err(Error::Input(_))));
        }
    }

    #[test]
    fn attacks_are_ordered_by_strength() {
        let mut names = ["autoattack", "pgd-50x10", "clean", "pgd-10", "fgsm", "apgd-ce"];
        names.sort_by_key(|name| strength(name));
        assert_eq!(names, ["clean", "fgsm", "pgd-10", "pgd-50x10", "apgd-ce", "autoattack"]);
    }
}
