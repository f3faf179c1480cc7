//! Tests of a run through the library: in memory, in a folder, stopped, damaged, extended, resumed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use sora::{
    Error, Result, Trainer,
    data::Dataset,
    files,
    run::{
        self, RunDir, Subject, Which,
        checkpoint::{self, Manifest},
        digests::changed_logs,
        log,
    },
    sealed,
    train::{Event, Observer, Summary, Trained},
};

fn trainer<'a>() -> Trainer<'a> {
    Trainer::new("sora")
        .set("dataset", "synthetic")
        .set("image_size", 8)
        .set("limit_train", 260)
        .set("limit_test", 50)
        .set("val", 20)
        .set("schedule", "constant")
        .set("lr_max", 0.05)
        .set("ema", 0.5)
        .model("preact-resnet18", 4)
        .batch(40)
        .seed(7)
}

fn data() -> Dataset {
    run::open_dataset(&trainer().config().unwrap()).unwrap()
}

fn weights(trained: &Trained) -> Vec<sora::nn::HostTensor> {
    trained.model.to_host().unwrap()
}

/// Sets the flag when a step is finished.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Step(line) = event {
            self.1.fetch_or(line.step == self.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Keeps the messages.
struct Said<'a>(&'a mut Vec<String>);

impl Observer for Said<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Warning(text) | Event::Message(text) = event {
            self.0.push((*text).to_owned());
        }
        Ok(())
    }
}

/// A run of 4 epochs of 6 steps, stopped after the given step.
fn stopped(dir: &Path, data: &Dataset, step: u64) {
    let flag = AtomicBool::new(false);
    let error = trainer()
        .epochs(4)
        .in_dir(dir)
        .observe(StopAt(step, &flag))
        .interrupt(&flag)
        .fit(data)
        .unwrap_err();
    assert!(matches!(error, Error::Interrupted { run: Some(_), .. }), "{error}");
}

#[test]
fn in_memory_in_a_folder_and_stopped_in_between_the_weights_are_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let memory = trainer().epochs(4).fit(&data).unwrap();
    assert!(memory.dir.is_none() && memory.best.is_some());
    let whole = trainer().epochs(4).in_dir(root.path().join("whole")).fit(&data).unwrap();
    assert_eq!(weights(&memory), weights(&whole));
    let broken = root.path().join("broken");
    stopped(&broken, &data, 9);
    let again = Trainer::resume(&broken, None).unwrap().fit(&data).unwrap();
    assert_eq!(weights(&memory), weights(&again));
    let read = |dir: &Path, file: &str| fs::read(dir.join(file)).unwrap();
    for file in ["model.safetensors", "best.safetensors"] {
        assert_eq!(read(&root.path().join("whole"), file), read(&broken, file), "{file}");
    }
    // The folder holds what the types describe.
    let dir = RunDir::at(&broken);
    let steps = log::Lines::<log::StepLine>::read(&dir.metrics());
    assert_eq!((steps.lines.len(), steps.warnings.len()), (24, 0));
    assert_eq!(log::Lines::<log::EpochLine>::read(&dir.epochs()).lines.len(), 4);
    let summary: Summary = serde_json::from_slice(&fs::read(dir.summary()).unwrap()).unwrap();
    let best = summary.best.unwrap();
    assert_eq!(
        summary.robust_overfitting.unwrap(),
        best.figures.pgd.accuracy - summary.last_epoch.unwrap().val.unwrap().pgd.accuracy
    );
    let device = sora::device::device("cpu").unwrap();
    let subject = Subject::load_weights(&broken, Which::Best, &device).unwrap();
    assert_eq!(subject.source.step, Some(best.step));
    // A finished run stays unchanged.
    let before = fs::metadata(dir.summary()).unwrap().modified().unwrap();
    let mut said = Vec::new();
    Trainer::resume(&broken, None).unwrap().observe(Said(&mut said)).fit(&data).unwrap();
    assert_eq!(fs::metadata(dir.summary()).unwrap().modified().unwrap(), before);
    assert!(said.iter().any(|line| line.contains("the run is finished")), "{said:?}");
}

/// Takes a tensor out of a file of the checkpoint at `path`, whose digests are then right.
fn take_a_tensor_out(path: &Path, file: &str) {
    let (mut tensors, metadata) = files::read_safetensors(&path.join(file)).unwrap();
    tensors.pop_first().unwrap_or_else(|| panic!("{file} has no tensor"));
    let left: Vec<_> = tensors.into_values().collect();
    let bytes = files::to_safetensors(&left, metadata).unwrap();
    fs::write(path.join(file), &bytes).unwrap();
    let manifest = path.join("MANIFEST.json");
    let mut parts: Manifest = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    parts.files.insert(file.to_owned(), files::sha256(&bytes)).unwrap();
    files::write_json(&manifest, &parts).unwrap();
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_to_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let whole = trainer().epochs(4).fit(&data).unwrap();
    let damage: [&dyn Fn(&Path); 6] = [
        // One bit of a weight.
        &|path| {
            let file = path.join("model.safetensors");
            let mut bytes = fs::read(&file).unwrap();
            let last = bytes.len() - 5;
            bytes[last] ^= 2;
            fs::write(file, bytes).unwrap();
        },
        &|path| fs::remove_file(path.join("MANIFEST.json")).unwrap(),
        &|path| fs::remove_file(path.join("optimizer.safetensors")).unwrap(),
        &|path| take_a_tensor_out(path, "model.safetensors"),
        &|path| take_a_tensor_out(path, "optimizer.safetensors"),
        // What the method carries from step to step.
        &|path| take_a_tensor_out(path, "method.safetensors"),
    ];
    for (i, damage) in damage.iter().enumerate() {
        let run = root.path().join(i.to_string());
        stopped(&run, &data, 15);
        let dir = RunDir::at(&run);
        damage(&checkpoint::list(&dir.checkpoints()).unwrap().pop().unwrap());
        let mut said = Vec::new();
        let trainer = Trainer::resume(&run, None).unwrap().observe(Said(&mut said));
        let trained = trainer.fit(&data).unwrap();
        assert_eq!(weights(&whole), weights(&trained), "damage {i}");
        let told = said.iter().filter(|line| line.contains("going on from the one before it"));
        assert_eq!(told.count(), 1, "{said:?}");
    }
}

/// What a finished run says of itself goes when it is no longer finished.
#[test]
fn a_run_that_goes_back_behind_its_end_has_no_summary() {
    let root = tempfile::tempdir().unwrap();
    let (data, run) = (data(), root.path().join("run"));
    trainer().epochs(4).in_dir(&run).fit(&data).unwrap();
    let dir = RunDir::at(&run);
    assert!(dir.summary().exists());
    let newest = checkpoint::list(&dir.checkpoints()).unwrap().pop().unwrap();
    fs::remove_file(newest.join("MANIFEST.json")).unwrap();
    let at_once = AtomicBool::new(true);
    let cut = Trainer::resume(&run, None).unwrap().interrupt(&at_once).fit(&data);
    assert!(matches!(cut, Err(Error::Interrupted { .. })), "{cut:?}");
    assert!(!dir.summary().exists());
    Trainer::resume(&run, None).unwrap().fit(&data).unwrap();
    assert!(dir.summary().exists());
}

#[test]
fn a_changed_config_is_noticed_and_lost_log_lines_cost_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let run = root.path().join("run");
    stopped(&run, &data, 15);
    let dir = RunDir::at(&run);
    let config = fs::read_to_string(dir.config()).unwrap();
    for (from, to) in [("lr_max = 0.05", "lr_max = 0.06"), ("epochs = 4", "epochs = 6")] {
        assert!(config.contains(from));
        fs::write(dir.config(), config.replace(from, to)).unwrap();
        let error = Trainer::resume(&run, None).unwrap_err();
        assert!(error.to_string().contains("changed since the run wrote it"), "{error}");
        // Even with the first line removed it is not what the checkpoints were written with.
        let (_, rest) = config.split_once('\n').unwrap();
        fs::write(dir.config(), rest.replace(from, to)).unwrap();
        let error = Trainer::resume(&run, None).unwrap().fit(&data).unwrap_err();
        assert!(error.to_string().contains("another config.toml"), "{error}");
    }
    fs::write(dir.config(), "dataset = 3").unwrap();
    assert!(matches!(Trainer::resume(&run, None).unwrap_err(), Error::Damaged { .. }));
    fs::write(dir.config(), config).unwrap();
    fs::write(dir.metrics(), "{\"step\":0}\n{\"st").unwrap();
    let mut said = Vec::new();
    let trainer = Trainer::resume(&run, None).unwrap().observe(Said(&mut said));
    let trained = trainer.fit(&data).unwrap();
    let whole = self::trainer().epochs(4).fit(&data).unwrap();
    assert_eq!(weights(&whole), weights(&trained));
    assert!(said.iter().any(|line| line.contains("are lost")), "{said:?}");
    let lines = log::Lines::<log::StepLine>::read(&dir.metrics());
    assert!(lines.warnings.is_empty() && lines.lines[1].step == 16, "{:?}", lines.warnings);
}

/// Puts another digit into the first figure of a file's first line that has this name.
fn change_a_digit(file: &Path, name: &str) {
    let mut text = fs::read(file).unwrap();
    let key = format!("\"{name}\":");
    let at = text.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let digit = text[at..].iter_mut().find(|byte| byte.is_ascii_digit()).unwrap();
    *digit = if *digit == b'1' { b'2' } else { b'1' };
    fs::write(file, text).unwrap();
}

#[test]
fn a_changed_figure_of_a_log_or_a_summary_is_said_and_changes_no_weight() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let run = root.path().join("run");
    let dir = RunDir::at(&run);
    stopped(&run, &data, 15);
    assert!(changed_logs(&dir).is_empty());
    change_a_digit(&dir.metrics(), "loss");
    change_a_digit(&dir.epochs(), "loss");
    assert_eq!(changed_logs(&dir).len(), 2, "the newest checkpoint tells");
    let go_on = || {
        let mut said = Vec::new();
        let trainer = Trainer::resume(&run, None).unwrap().observe(Said(&mut said));
        let trained = trainer.fit(&data).unwrap();
        (trained, said)
    };
    let (trained, said) = go_on();
    for log in ["metrics.jsonl was changed", "epochs.jsonl was changed"] {
        assert!(said.iter().any(|line| line.contains(log)), "{log}: {said:?}");
    }
    let whole = self::trainer().epochs(4).fit(&data).unwrap();
    assert_eq!(weights(&whole), weights(&trained));

    // Of a finished run the summary tells, without any checkpoint.
    let aside = root.path().join("aside");
    fs::rename(dir.checkpoints(), &aside).unwrap();
    assert!(changed_logs(&dir).is_empty(), "what was said is part of the run now");
    let summary = fs::read(dir.summary()).unwrap();
    change_a_digit(&dir.metrics(), "lr");
    assert!(matches!(&changed_logs(&dir)[..], [line] if line.contains("metrics.jsonl")));
    fs::rename(&aside, dir.checkpoints()).unwrap();
    change_a_digit(&dir.summary(), "steps");
    assert!(sealed::is_changed(&fs::read(dir.summary()).unwrap()));
    let (_, said) = go_on();
    assert!(said.iter().any(|line| line.contains("summary.json: changed since")), "{said:?}");
    let figures = |text: &[u8]| serde_json::from_slice::<Summary>(text).unwrap().steps;
    assert_eq!(figures(&fs::read(dir.summary()).unwrap()), figures(&summary));
    assert!(sealed::read::<Summary>(&dir.summary()).is_ok());
}

#[test]
fn other_data_than_the_run_began_with_is_refused_in_a_line() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    let data = data();
    stopped(&run, &data, 9);
    let other = |name: &str, value: i64| {
        run::open_dataset(&trainer().set(name, value).config().unwrap()).unwrap()
    };
    // An image more, other images, other classes.
    let begun = data.train.len();
    assert_eq!(begun, 260);
    for (other, part) in [
        (other("limit_train", 261), "261 images, 260 before"),
        (other("seed", 8), "other images or labels than before"),
        (other("image_size", 9), "9x9"),
    ] {
        let error = Trainer::resume(&run, None).unwrap().fit(&other).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("not those that the run began with"), "{text}");
        assert!(text.contains(part) && !text.contains('\n'), "{part}: {text}");
        assert_eq!(error.kind(), sora::ErrorKind::Input);
    }
    Trainer::resume(&run, None).unwrap().fit(&data).unwrap();
}

#[test]
fn a_run_with_extra_data_is_resumed_to_the_same_bits_and_only_with_them() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    // The set's own images are among them: those that are held out must not come in by this door.
    let mixed =
        || trainer().set("extra_data", "synthetic:400").set("extra_fraction", 0.25).epochs(3);
    let whole = mixed().fit(&data).unwrap();
    // 30 of 40 images of a batch are the set's own: 8 batches for 240.
    assert_eq!(whole.summary.steps, 24);
    assert_ne!(weights(&whole), weights(&trainer().epochs(3).fit(&data).unwrap()));
    let path = root.path().join("broken");
    let flag = AtomicBool::new(false);
    let cut = mixed().in_dir(&path).observe(StopAt(11, &flag)).interrupt(&flag).fit(&data);
    assert!(matches!(cut.unwrap_err(), Error::Interrupted { step: 12, .. }));
    let (_, config) = RunDir::open(&path).unwrap();
    let extra = config.extra.as_ref().unwrap();
    assert_eq!((extra.images, config.steps_per_epoch), (380, 8), "without the 20 held out");
    let again = Trainer::resume(&path, None).unwrap().fit(&data).unwrap();
    assert_eq!(weights(&whole), weights(&again));

    // Other extra images than the run began with.
    let mut other = config.clone();
    other.extra.as_mut().unwrap().sha256 = "another".into();
    let text = run::TrainPlan::again(&mut other, &data).unwrap_err().to_string();
    assert!(text.starts_with("extra_data synthetic:400") && text.contains("began with"), "{text}");
    for (key, value, part) in [
        ("extra_fraction", toml::Value::from(0.01), "both sets"),
        ("extra_data", "synthetic:9".into(), "choose a smaller `extra_fraction`"),
        ("extra_data", "no-such-set".into(), "unknown data set 'no-such-set'"),
    ] {
        let text = mixed().set(key, value).fit(&data).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_finished_run_is_extended_and_then_goes_on_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let run = root.path().join("run");
    trainer().epochs(2).in_dir(&run).fit(&data).unwrap();
    let fewer = Trainer::resume(&run, Some(1)).unwrap().fit(&data).unwrap_err();
    assert!(matches!(fewer, Error::Setting { ref setting, .. } if setting == "epochs"), "{fewer}");
    // Stopped right after it was extended: the checkpoints are still those of before.
    let flag = AtomicBool::new(false);
    let error = Trainer::resume(&run, Some(4))
        .unwrap()
        .observe(StopAt(13, &flag))
        .interrupt(&flag)
        .fit(&data)
        .unwrap_err();
    assert!(matches!(error, Error::Interrupted { step: 14, .. }), "{error}");
    let dir = RunDir::at(&run);
    assert!(!dir.summary().exists(), "its final figures are no longer final");
    // Nor are its weights: the newest checkpoint counts.
    let device = sora::device::device("cpu").unwrap();
    let now = Subject::load(&run, &device).unwrap();
    assert!(!now.source.complete && now.about.step == Some(14), "{:?}", now.source);
    let trained = Trainer::resume(&run, None).unwrap().fit(&data).unwrap();
    assert_eq!((trained.summary.epochs, trained.summary.steps), (4, 24));
    // With a constant learning rate the longer run is the same.
    assert_eq!(weights(&trainer().epochs(4).fit(&data).unwrap()), weights(&trained));
    // Damaged weights of a finished run are written anew.
    let whole = fs::read(dir.model()).unwrap();
    fs::write(dir.model(), &whole[..whole.len() / 2]).unwrap();
    assert!(Subject::load(&run, &device).is_err());
    Trainer::resume(&run, None).unwrap().fit(&data).unwrap();
    assert!(fs::read(dir.model()).unwrap() == whole);
}

#[test]
fn what_cannot_be_trained_leaves_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let run = root.path().join("run");
    let refused = |trainer: Trainer<'_>, part: &str| {
        let error = trainer.in_dir(&run).fit(&data).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
        assert!(!run.exists(), "{part}: {error}");
    };
    refused(trainer().set("patch", 3), "patch");
    refused(trainer().set("accumulate", 1000).epochs(2), "no update");
    refused(trainer().set("val", 260), "val");
    refused(trainer().set("batchs", 3), "did you mean batch");
    refused(trainer().set("device", "abacus"), "abacus");
    refused(trainer().batch(60_000).set("limit_train", 260), "batch");
    let memory = trainer().set("on_co", "rollback").fit(&data).unwrap_err();
    assert!(memory.to_string().contains("needs a folder"), "{memory}");
}

#[test]
fn a_run_that_diverges_keeps_only_finite_weights_and_does_not_end_as_done() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    for (i, lr) in [1000.0, 300.0, 100.0].into_iter().enumerate() {
        let run = root.path().join(i.to_string());
        let result = trainer()
            .set("lr_max", lr)
            .set("weight_decay", 10.0)
            .set("momentum", 1.0)
            .set("cycle_momentum", false)
            .set("ema", 0.0)
            .set("checkpoint_steps", 1)
            .epochs(8)
            .in_dir(&run)
            .fit(&data);
        let dir = RunDir::at(&run);
        let all = checkpoint::list(&dir.checkpoints()).unwrap();
        for path in &all {
            let (tensors, _) = checkpoint::weights(path).unwrap();
            assert_eq!(sora::files::not_finite(tensors.values()), None, "{}", path.display());
        }
        if lr < 1000.0 && result.is_ok() {
            continue;
        }
        match result.unwrap_err() {
            Error::Diverged { last_good, .. } => assert_eq!(last_good, all.last().cloned()),
            other => panic!("{other}"),
        }
        assert!(!dir.model().exists() && !dir.summary().exists());
    }
}

#[test]
fn early_stopping_ends_a_run_and_it_stays_ended() {
    let root = tempfile::tempdir().unwrap();
    let data = data();
    let run = root.path().join("run");
    // Weights that stand still do not improve.
    let trained = trainer()
        .set("lr_max", 0.0)
        .set("early_stop", 2)
        .epochs(9)
        .in_dir(&run)
        .fit(&data)
        .unwrap();
    assert!(trained.summary.stopped_early && trained.summary.epochs < 9);
    let again = Trainer::resume(&run, None).unwrap().fit(&data).unwrap();
    assert_eq!(again.summary.epochs, trained.summary.epochs);
}
