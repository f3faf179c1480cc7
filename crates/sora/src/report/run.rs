//! A run folder for readers of its records.
//!
//! Records of a run in progress, of an older or a newer version, or cut off by a full disk must
//! still give a figure. Missing data are left out, and each damage is reported once in
//! [`Run::warnings`]. [`run::log`](crate::run::log) defines the lines of the logs and reads as many
//! as it can.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    caption,
    privacy::without_paths,
    record::{self, Record, WeightsOfRun},
};
use crate::{
    diagnose::{CoEvent, CoSign},
    error::{Error, Result},
    model::IMPORTED,
    run::{
        RunDir,
        digests::changed_logs,
        is_changed,
        log::{EpochLine, Lines, Rollback, StepLine, ValFigures},
    },
    sealed,
    threat::Epsilon,
    train::Summary,
};

/// The content of a run folder.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// A name that no other run of the report has.
    pub name: String,
    /// The settings, as in the file.
    pub config: toml::Table,
    /// Steps, in order.
    pub steps: Vec<StepLine>,
    /// Epochs, in order.
    pub epochs: Vec<EpochLine>,
    /// Steps that a rollback threw away, in order.
    pub abandoned: Vec<StepLine>,
    /// Final figures of a finished run.
    pub summary: Option<Summary>,
    /// Evaluations, by file name.
    pub records: Vec<Record>,
    /// Whether the run has its final figures.
    pub finished: bool,
    /// Missing and damaged parts.
    pub warnings: Vec<String>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// [`Error`] without a folder, or without a readable `config.toml` in it. Other missing or
    /// damaged parts are warnings.
    pub fn load(path: &Path) -> Result<Self> {
        let dir = RunDir::at(path);
        let no_run = |problem: String| Error::NotARun { path: path.to_owned(), problem };
        let text = fs::read_to_string(dir.config())
            .map_err(|e| no_run(format!("cannot read its config.toml ({e})")))?;
        let config = text.parse::<toml::Table>().map_err(|e| {
            let line = e.message().lines().next().unwrap_or_default().to_owned();
            no_run(format!("its config.toml is no TOML file ({line})"))
        })?;
        let steps = Lines::read(&dir.metrics());
        let epochs = Lines::read(&dir.epochs());
        let finished = dir.summary().is_file();
        let mut warnings = [steps.warnings, epochs.warnings, changed_logs(&dir)].concat();
        if is_changed(&text) {
            warnings.push(
                "config.toml was changed since the run wrote it: the settings may be others".into(),
            );
        }
        if !finished {
            warnings.push("the run is not finished: it has no summary.json".into());
        }
        let summary = sealed::read::<Summary>(&dir.summary()).ok();
        if finished && summary.is_none() {
            warnings.push(
                "summary.json cannot be read (damaged, edited or of another version): its figures \
                 are left out"
                    .into(),
            );
        }
        let abandoned = abandoned(&dir, &mut warnings);
        let weights = WeightsOfRun::read(dir.final_weights().as_deref(), &dir.best());
        let records = record::read(&dir.evaluations(), &weights, &mut warnings);
        Ok(Self {
            path: path.to_owned(),
            name: folder_name(path),
            config,
            steps: steps.lines,
            epochs: epochs.lines,
            abandoned,
            summary,
            records,
            finished,
            warnings,
        })
    }

    /// The run folder.
    pub fn dir(&self) -> RunDir {
        RunDir::at(&self.path)
    }

    /// A setting as text, without the machine's paths; empty if it is absent.
    pub fn setting(&self, key: &str) -> String {
        self.config.get(key).map(|value| without_paths(&value_text(value))).unwrap_or_default()
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

    /// Network and its width.
    pub fn network(&self) -> String {
        let (model, init) = (self.setting("model"), self.setting("init"));
        match Path::new(&init).file_name() {
            Some(file) if model == IMPORTED => format!("the network of {}", file.display()),
            _ => format!("{model} of width {}", self.setting("width")),
        }
    }

    /// Norm and radius, for readers.
    pub fn threat(&self) -> String {
        format!("{} \u{3b5} = {}", caption::norm(&self.norm()), self.setting("epsilon"))
    }

    /// Radius in pixel units, if the settings have one.
    pub fn epsilon(&self) -> Option<f64> {
        self.setting("epsilon").parse::<Epsilon>().ok().map(|e| f64::from(e.value()))
    }

    /// Equal for runs of the same norm and radius, however they spell it.
    pub(super) fn threat_key(&self) -> String {
        let spelled = || self.setting("epsilon");
        let radius = self.epsilon().map_or_else(spelled, |epsilon| (epsilon as f32).to_string());
        format!("{} {radius}", self.norm())
    }

    /// The unit of step sizes and radii: the factor to it, and its name.
    pub fn unit(&self) -> (f64, &'static str) {
        if self.norm() == "linf" { (255.0, "1/255") } else { (1.0, "pixel units") }
    }

    /// A whole number above 0 among the settings.
    fn count(&self, key: &str) -> Option<f64> {
        let value = self.config.get(key)?.as_integer()?;
        (value > 0).then_some(value as f64)
    }

    /// Number of steps of an epoch, as the run planned it; in runs of older versions as the logs
    /// show it, which is 1 before the first step.
    pub fn steps_per_epoch(&self) -> f64 {
        let whole = self
            .epochs
            .first()
            .filter(|first| first.step > 0)
            .map(|first| first.step as f64 / (first.epoch + 1) as f64);
        let begun = || self.steps.iter().filter(|step| step.epoch == 0).count().max(1) as f64;
        self.count("steps_per_epoch").or(whole).unwrap_or_else(begun)
    }

    /// Number of epochs that were trained, which early stopping may end before those that the
    /// settings ask for; `None` where neither the final figures nor the log say.
    pub fn epochs_trained(&self) -> Option<u64> {
        let logged = || self.epochs.last().map(|line| line.epoch + 1);
        self.summary.as_ref().map(|summary| summary.epochs).or_else(logged)
    }

    /// Number of completed steps.
    pub fn steps_made(&self) -> u64 {
        let logged = self.steps.last().map_or(0, |s| s.step + 1);
        logged.max(self.epochs.last().map_or(0, |e| e.step))
    }

    /// All validations, after epochs and within them: `(completed steps, figures)`.
    pub fn validations(&self) -> Vec<(u64, ValFigures)> {
        let within = self.steps.iter().filter_map(|line| Some((line.step + 1, line.val?)));
        let after = self.epochs.iter().filter_map(|line| Some((line.step, line.val?)));
        within.chain(after).collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// The first event of catastrophic overfitting in the lines that the run kept.
    pub fn onset(&self) -> Option<CoEvent> {
        let in_steps = self.steps.iter().find_map(|line| line.co);
        in_steps.or_else(|| self.epochs.iter().find_map(|line| line.co))
    }

    /// The run's rollback, if there was one.
    pub fn rollback(&self) -> Option<&Rollback> {
        let in_steps = self.steps.iter().find_map(|line| line.rollback.as_ref());
        in_steps.or_else(|| self.epochs.iter().rev().find_map(|line| line.rollback.as_ref()))
    }

    /// Seconds of training without validation, those of steps that a rollback threw away among
    /// them.
    pub fn seconds(&self) -> Option<f64> {
        let logged =
            || self.epochs.iter().map(|line| line.seconds).sum::<f64>() + self.abandoned_seconds();
        let sum = self.summary.as_ref().map_or_else(logged, |summary| summary.seconds);
        (sum > 0.0).then_some(sum)
    }

    /// Seconds of the steps that a rollback threw away, whose epochs the log no longer has.
    fn abandoned_seconds(&self) -> f64 {
        // A rollback that a kill has cut short is repeated: until then the log has the steps.
        if self.rollback().is_none() {
            return 0.0;
        }
        let batch = self.count("batch").unwrap_or(0.0);
        let rates = self.abandoned.iter().map(|line| f64::from(line.images_per_s));
        rates.filter(|rate| rate.is_finite() && *rate > 0.0).map(|rate| batch / rate).sum()
    }

    /// Largest resident memory in MiB.
    pub fn peak_rss_mib(&self) -> Option<u64> {
        self.epochs.iter().map(|line| line.peak_rss_mib).max().filter(|mib| *mib > 0)
    }

    /// Settings as `section.key` and text, without those that describe the machine; `data` says
    /// which images they were used on.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value) in &self.config {
            match value {
                _ if ASIDE.contains(&key.as_str()) => {}
                toml::Value::Table(table) => {
                    let inner = table.iter().map(|(inner, value)| {
                        (format!("{key}.{inner}"), without_paths(&value_text(value)))
                    });
                    all.extend(inner);
                }
                _ if key == "dataset" => drop(all.insert(key.clone(), self.dataset())),
                _ => drop(all.insert(key.clone(), self.setting(key))),
            }
        }
        all.extend(self.images().map(|images| ("data".to_owned(), images)));
        all
    }

    /// Facts about the program and the machine.
    pub fn provenance(&self) -> BTreeMap<String, String> {
        match self.config.get("provenance") {
            Some(toml::Value::Table(table)) => table
                .iter()
                .map(|(key, value)| (key.clone(), without_paths(&value_text(value))))
                .collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// Keys of config.toml that are not settings: facts about machine, data and network.
const ASIDE: [&str; 6] = ["provenance", "network", "data", "extra", "classes", "data_dir"];

/// The steps that a rollback threw away, if there was one.
fn abandoned(dir: &RunDir, warnings: &mut Vec<String>) -> Vec<StepLine> {
    let file = dir.abandoned();
    if !file.is_file() {
        return Vec::new();
    }
    let Lines { lines, warnings: found } = Lines::read(&file);
    warnings.extend(found);
    lines
}

/// The event in words.
pub fn reason(event: &CoEvent) -> String {
    // "-0.00" would look like a mistake, so it loses its sign.
    let [from, to] =
        [event.from, event.to].map(|v| format!("{:.2}", if v.abs() < 0.005 { 0.0 } else { v }));
    match event.sign {
        CoSign::Low => format!("PertAlign never rose beyond {from}"),
        CoSign::Linearity => format!("linearity fell from {from} to {to}"),
        CoSign::Gap => format!("validation accuracy {from} under fgsm and {to} under pgd-10"),
        CoSign::PertAlign => format!("PertAlign fell from {from} to {to}"),
    }
}

/// The last name of a folder's absolute path.
pub(super) fn folder_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute
        .file_name()
        .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A value of the settings as text.
pub(super) fn value_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests;
