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
    privacy::{dataset_name, without_paths},
    record::{self, Record, WeightsOfRun},
};
use crate::{
    data::{DatasetIdentity, SplitIdentity},
    diagnose::{CoEvent, CoSign},
    error::{Error, Result},
    model::IMPORTED,
    run::{
        RunDir,
        digests::changed_logs,
        is_changed,
        log::{EpochLine, Lines, Rollback, StepLine, ValFigures},
    },
    threat::Epsilon,
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
        let weights = WeightsOfRun::read(dir.final_weights().as_deref(), &dir.best());
        let records = record::read(&dir.evaluations(), &weights, &mut warnings);
        Ok(Self {
            path: path.to_owned(),
            name: folder_name(path),
            config,
            steps: steps.lines,
            epochs: epochs.lines,
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

    /// The data set, as in the settings.
    fn dataset_path(&self) -> String {
        self.config.get("dataset").map(value_text).unwrap_or_default()
    }

    /// The data set; the last name of the path for an image folder.
    pub fn dataset(&self) -> String {
        dataset_name(&self.dataset_path())
    }

    /// The data of the training in words: the data set, and the extra data where there are some.
    pub fn training_data(&self) -> String {
        let text = |key| self.config.get(key).map(value_text).unwrap_or_default();
        match text("extra_data") {
            extra if extra.is_empty() => self.dataset(),
            extra => format!(
                "{} with extra data, {} of each batch from {}",
                self.dataset(),
                text("extra_fraction"),
                dataset_name(&extra)
            ),
        }
    }

    /// Whether `dataset` is the run's own.
    pub fn is_own_dataset(&self, dataset: &str) -> bool {
        dataset.is_empty() || absolute_dataset(dataset) == absolute_dataset(&self.dataset_path())
    }

    /// The test split when the run began; `None` in runs of older versions.
    pub fn test_identity(&self) -> Option<SplitIdentity> {
        let data = self.config.get("data")?.clone();
        data.try_into::<DatasetIdentity>().ok().map(|data| data.test)
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

    /// The unit of step sizes and radii: the factor to it, and its name.
    pub fn unit(&self) -> (f64, &'static str) {
        if self.norm() == "linf" { (255.0, "1/255") } else { (1.0, "pixel units") }
    }

    /// Number of steps of an epoch; 1 before the first step.
    pub fn steps_per_epoch(&self) -> f64 {
        let whole = self
            .epochs
            .first()
            .filter(|first| first.step > 0)
            .map(|first| first.step as f64 / (first.epoch + 1) as f64);
        let begun = || self.steps.iter().filter(|step| step.epoch == 0).count().max(1) as f64;
        whole.unwrap_or_else(begun)
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

    /// Seconds of training, without validation.
    pub fn seconds(&self) -> Option<f64> {
        let sum: f64 = self.epochs.iter().map(|line| line.seconds).sum();
        (sum > 0.0).then_some(sum)
    }

    /// Largest resident memory in MiB.
    pub fn peak_rss_mib(&self) -> Option<u64> {
        self.epochs.iter().map(|line| line.peak_rss_mib).max().filter(|mib| *mib > 0)
    }

    /// Settings as `section.key` and text, without those that describe the machine.
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

/// The absolute path of a data set of files, or the name of another data set.
fn absolute_dataset(dataset: &str) -> PathBuf {
    let path = ["folder:", "imagefolder:"].iter().find_map(|scheme| dataset.strip_prefix(scheme));
    let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
    // "a/b/" and "a/b" name the same folder.
    path.unwrap_or_else(|| dataset.into()).components().collect()
}

fn value_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes a folder with these files.
    pub(in crate::report) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
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
                "{\"step\":0,\"loss\":null,\"new\":1}\nnonsense\n\
                 {\"step\":1,\"loss\":2.5,\"co\":{\"step\":1,\"from\":0.5,\"to\":0.1}}\n\
                 {\"step\":2,\"lo",
            ),
            (
                "eval/a.json",
                "{\"results\":{\"clean\":{\"accuracy\":0.5}},\"epsilon\":0.0627451,\"norm\":\"linf\"}",
            ),
            ("eval/b.json", "{"),
            ("eval/sweep.json", "[1, 2]"),
        ]);
        let run = Run::load(dir.path()).unwrap();
        assert_eq!((run.steps.len(), run.steps[1].loss), (2, 2.5));
        assert_eq!(run.onset().unwrap().step, 1);
        assert_eq!(run.records.len(), 1);
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
    fn settings_that_were_changed_are_a_warning() {
        for text in ["", "# sha256 of what follows: 00\nmethod = \"fgsm\"\n"] {
            let run = Run::load(folder(&[("config.toml", text)]).path()).unwrap();
            assert!(run.warnings.iter().any(|line| line.contains("config.toml was changed")));
        }
    }

    #[test]
    fn what_is_no_run_folder_is_refused() {
        let dir = folder(&[("config.toml", "= nothing")]);
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            assert!(matches!(Run::load(&path), Err(Error::NotARun { .. })));
        }
    }

    #[test]
    fn no_path_of_the_machine_is_among_the_settings() {
        let dir = folder(&[(
            "config.toml",
            "dataset = \"imagefolder:/secret/x y/pets\"\ninit = \"/secret/place/a.safetensors\"\n\
             [options]\nfile = \"/secret/b\"\n[provenance]\ndevice = \"/secret/c\"\n",
        )]);
        let run = Run::load(dir.path()).unwrap();
        let text = format!("{:?} {:?} {}", run.settings(), run.provenance(), run.dataset());
        assert!(!text.contains("secret") && text.contains("a.safetensors"), "{text}");
        assert!(run.is_own_dataset("imagefolder:/secret/x y/pets/"));
        assert!(!run.is_own_dataset("imagefolder:/other/pets"));
    }
}
