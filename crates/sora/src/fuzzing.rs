//! Readers of files by their bytes, for the fuzz targets of the repository (`fuzz/`), which build
//! this crate with `--cfg fuzzing`, and for the test that replays their seeds. No part of the
//! library.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use toml::Table;

use crate::{
    config::TrainConfig,
    device,
    diagnose::{Collapse, Judgement, Rules, collapse},
    exchange, method,
    model::{Model, ModelConfig, NetworkOptions, Shape},
    nn::HostTensor,
    report::{self, Run},
    run::{
        ABOUT, RunConfig, Subject,
        checkpoint::{self, Content, State},
        digests::LogDigests,
        follow::Follower,
        log::{EpochLine, StepLine},
        recipe::{Recipe, Scale},
    },
    sealed,
    train::Summary,
};

/// A reader by the name of its target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("run_checkpoint", run_checkpoint),
    ("run_config", run_config),
    ("run_logs", run_logs),
    ("run_pytorch", run_pytorch),
    ("run_weights", run_weights),
];

/// The folder of one execution, with the parts of `bytes`, which zero bytes separate, as the files
/// `names`; the last file is the rest.
fn folder(bytes: &[u8], names: &[&str]) -> Option<TempDir> {
    let dir = tempfile::tempdir().ok()?;
    for (name, part) in names.iter().zip(bytes.splitn(names.len(), |&byte| byte == 0)) {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent()?).ok()?;
        fs::write(path, part).ok()?;
    }
    Some(dir)
}

/// Settings, config.toml and recipes: read or refused. What is read of a config.toml is written to a
/// text that is read to the same; every run of a recipe is one that a training takes.
pub fn run_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = Path::new("config.toml");
    let _ = TrainConfig::from_toml(text).map(|settings| settings.network());
    if let Ok(written) = RunConfig::parse(text, file).and_then(|config| config.to_text()) {
        let again = RunConfig::parse(&written, file).and_then(|config| config.to_text());
        assert!(again.is_ok_and(|again| again == written), "settings change by being written");
    }
    let Ok(recipe) = Recipe::parse(text, Path::new("recipe.toml")) else { return };
    for scale in [None, Some(Scale::Smoke), Some(Scale::Full)] {
        let Ok(plan) = recipe.plan(scale, &Table::new()) else { continue };
        for run in plan.runs.iter().take(8) {
            assert!(
                TrainConfig::from_toml(&run.config).is_ok(),
                "a planned run is none: {}",
                run.name
            );
        }
    }
}

/// The files of a run that `diagnose`, `report`, `watch` and `export` read: logs, summary, record of
/// an evaluation, settings. They are read as far as they go, and judged.
pub fn run_logs(bytes: &[u8]) {
    let names = ["metrics.jsonl", "epochs.jsonl", "summary.json", "eval/quick.json", "config.toml"];
    let Some(dir) = folder(bytes, &names) else { return };
    let file = |name: &str| dir.path().join(name);
    let _ = sealed::read::<Summary>(&file("summary.json"));
    let _ = crate::method::recorded_steps(&file("metrics.jsonl"));
    let mut steps = Follower::<StepLine>::new(file("metrics.jsonl"));
    let mut epochs = Follower::<EpochLine>::new(file("epochs.jsonl"));
    assert!(steps.poll().and_then(|()| epochs.poll()).is_ok(), "a log that exists is not read");
    let mut rules = Rules::new(0.2);
    steps.lines().iter().for_each(|line| rules.observe(line));
    let series: Vec<_> = epochs
        .lines()
        .iter()
        .filter_map(|line| Some((line.step, line.val.as_ref()?.pgd.accuracy)))
        .collect();
    let _: (_, Option<Collapse>, Option<Judgement>) =
        (rules.alarms(), collapse(&series, 0.1), Judgement::of(&series, 0.1));
    let Ok(run) = Run::load(dir.path()) else { return };
    let _ = (run.validations(), run.onset(), run.seconds(), run.epsilon(), run.steps_per_epoch());
    let _ = (run.settings(), run.provenance(), run.test_identity(), run.threat(), run.network());
    let lines = report::csv(&run).lines().count();
    assert_eq!(lines, 1 + run.steps.len(), "a line of a table for each step");
}

/// A checkpoint without manifest: its position, and the tensors that the weights, an optimizer and a
/// method continue with. What is read is written, and then read to the same.
pub fn run_checkpoint(bytes: &[u8]) {
    let names = [checkpoint::STATE, checkpoint::MODEL];
    let Some(dir) = folder(bytes, &names) else { return };
    for name in [checkpoint::OPTIMIZER, checkpoint::METHOD] {
        if fs::copy(dir.path().join(checkpoint::MODEL), dir.path().join(name)).is_err() {
            return;
        }
    }
    let Ok(found) = checkpoint::load(dir.path()) else { return };
    continued(&found.model);
    let state = State { model: found.model.values().cloned().collect(), ..State::default() };
    let (metadata, logs) = (HashMap::new(), LogDigests::default());
    let content = Content {
        progress: &found.progress,
        state: &state,
        metadata: &metadata,
        config: "",
        logs: &logs,
    };
    let Ok(written) = checkpoint::save(&dir.path().join("checkpoints"), content, 1, |_| false)
    else {
        return;
    };
    let again = checkpoint::load(&written);
    let same = |again: checkpoint::Checkpoint| again.model == found.model;
    assert!(again.is_ok_and(same), "tensors change by being written");
}

/// Gives `tensors` to a network, optimizers and methods, which take them or refuse them.
fn continued(tensors: &BTreeMap<String, HostTensor>) {
    let Ok(device) = device::device("cpu") else { return };
    let Ok(mut model) = Model::init(small_network(), 0, &device) else { return };
    let settings = |optimizer: &str| TrainConfig::from_toml(&format!("optimizer = '{optimizer}'"));
    for settings in ["sgd", "adam"].map(settings).into_iter().flatten() {
        let _ = settings.optimizer(&model.params).load_state(tensors, "a checkpoint");
    }
    for name in ["sora", "free", "atas", "fgsm-pgi", "elle-a"] {
        let Ok(settings) = TrainConfig::from_toml(&format!("method = '{name}'")) else { continue };
        let built =
            method::method(name).and_then(|info| info.build(&settings.options, settings.threat()));
        let _ = built.map(|mut method| method.load_state(tensors));
    }
    let _ = model.load(tensors, "a checkpoint");
}

/// The network of the seeds, see `scripts/fuzz_seeds.py`.
fn small_network() -> ModelConfig {
    ModelConfig {
        name: "mnist-cnn".into(),
        width: 1,
        shape: Shape { channels: 3, height: 8, width: 8, classes: 10 },
        mean: vec![0.5; 3],
        std: vec![0.5; 3],
        options: NetworkOptions::default(),
        onnx: None,
    }
}

/// The bytes in a file with the name of a weights file.
fn weights_file(bytes: &[u8], name: &str) -> Option<(TempDir, PathBuf)> {
    let dir = tempfile::tempdir().ok()?;
    let path = dir.path().join(name);
    fs::write(&path, bytes).ok()?;
    Some((dir, path))
}

/// Weights files with their descriptions: a network, or refused. What one takes, its file has.
pub fn run_weights(bytes: &[u8]) {
    let Some((_dir, path)) = weights_file(bytes, "model.safetensors") else { return };
    let Ok(device) = device::device("cpu") else { return };
    let Ok(subject) = Subject::load(&path, &device) else { return };
    let tensors = subject.model.to_host().unwrap_or_default();
    let values: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
    assert!(values * size_of::<f32>() <= bytes.len(), "a network of more values than its file");
}

/// Checkpoints of PyTorch, old form and new, and weights in safetensors under other names: each
/// tensor is read, and the import chooses a network that takes them, or refuses.
pub fn run_pytorch(bytes: &[u8]) {
    let Some((_dir, path)) = weights_file(bytes, "model.pt") else { return };
    let Ok((tensors, _)) = exchange::read(&path, ABOUT) else { return };
    for tensor in tensors.iter().take(64) {
        if tensor.len().is_some_and(|len| len <= 1 << 16) {
            let values = tensor.values();
            assert!(values.is_err() || values.ok().map(|v| v.len()) == tensor.len(), "its shape");
        }
    }
    let Ok(device) = device::device("cpu") else { return };
    let wanted = exchange::ImportOptions {
        image: Some([8, 8]),
        fallback: Some([vec![0.5; 3], vec![0.5; 3]]),
        allow_unexpected: true,
        ..Default::default()
    };
    let _ = exchange::import(&path, &wanted, ABOUT, &device);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// See `fuzz/seeds` (not in the published package).
    #[test]
    fn every_seed_of_the_fuzz_targets_is_read_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if !seeds.is_dir() {
            return;
        }
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "no seeds of {name}");
            for file in files {
                target(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    /// What was cut or changed is refused; the seeds themselves are read.
    #[test]
    fn the_seeds_hold_what_they_say() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let Ok(config) = fs::read_to_string(seeds.join("run_config/config")) else { return };
        assert!(RunConfig::parse(&config, Path::new("config.toml")).is_ok());
        let recipe = fs::read_to_string(seeds.join("run_config/scales")).unwrap();
        let plan = Recipe::parse(&recipe, Path::new("r.toml"))
            .unwrap()
            .plan(Some(Scale::Smoke), &Table::new())
            .unwrap();
        assert_eq!(plan.runs.len(), 1);
        let device = device::device("cpu").unwrap();
        let weights = fs::read(seeds.join("run_weights/whole")).unwrap();
        let (_dir, path) = weights_file(&weights, "model.safetensors").unwrap();
        assert_eq!(Subject::load(&path, &device).unwrap().model.config.name, "mnist-cnn");
        for name in ["old", "zip", "safetensors"] {
            let bytes = fs::read(seeds.join("run_pytorch").join(name)).unwrap();
            let (_dir, path) = weights_file(&bytes, "model.pt").unwrap();
            let (tensors, _) = exchange::read(&path, ABOUT).unwrap();
            assert_eq!(tensors.len(), 8, "{name}");
            assert!(tensors.iter().all(|tensor| tensor.values().is_ok()), "{name}");
        }
        let logs = fs::read(seeds.join("run_logs/whole")).unwrap();
        let names =
            ["metrics.jsonl", "epochs.jsonl", "summary.json", "eval/quick.json", "config.toml"];
        let run = Run::load(folder(&logs, &names).unwrap().path()).unwrap();
        assert_eq!((run.steps.len(), run.epochs.len(), run.records.len()), (2, 1, 1));
    }
}
