//! A run that is killed at any moment ends in the same bits as an unbroken one.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::cli::{SHORT, sora, stderr, train_short};

/// Lines of a log without what the clock and the machine decide.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
            for key in ["seconds", "val_seconds", "images_per_s", "peak_rss_mib"] {
                value.as_object_mut().unwrap().remove(key);
            }
            value
        })
        .collect()
}

#[track_caller]
pub fn same(a: &Path, b: &Path) {
    assert!(
        fs::read(a.join("model.safetensors")).unwrap()
            == fs::read(b.join("model.safetensors")).unwrap(),
        "final weights differ"
    );
    for log in ["metrics.jsonl", "epochs.jsonl"] {
        assert_eq!(lines(&a.join(log)), lines(&b.join(log)), "{log}");
    }
}

/// Every step a checkpoint, so that a kill can fall into the writing of one.
const MORE: &[&str] = &["--checkpoint-steps", "1", "--keep", "2"];

#[test]
fn killed_at_random_moments_and_resumed_it_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let started = Instant::now();
    let output = train_short(&whole, MORE);
    assert!(output.status.success(), "{}", stderr(&output));
    let steps = lines(&whole.join("metrics.jsonl")).len();
    let step = started.elapsed().div_f64(steps as f64);

    let mut call: Vec<String> = ["train", "--out", broken.to_str().unwrap()]
        .iter()
        .chain(SHORT)
        .chain(MORE)
        .map(|s| s.to_string())
        .collect();
    let mut kills = 0;
    let written =
        || fs::read_to_string(broken.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    // Points of the run and moments within a step spread by the golden ratio: as irregular as
    // random ones, and the same on every machine. The points are counted in steps, since a run
    // beside other work takes now more and now less time.
    for attempt in 0..4u32 {
        let phase = f64::from(attempt + 1) * 0.618_034 % 1.0;
        let point = ((f64::from(attempt) + phase) / 4.0 * (steps - 1) as f64) as usize;
        let mut child = Command::new(env!("CARGO_BIN_EXE_sora"))
            .args(&call)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while written() < point && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        sleep(step.mul_f64(phase));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        if broken.join("config.toml").exists() {
            call = vec!["resume".into(), broken.to_str().unwrap().into()];
        } else {
            fs::remove_dir_all(&broken).ok();
        }
    }
    assert!(kills > 0, "no kill met a running process");
    let output = sora(&call.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
    // A run that is done stays as it is.
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
    let checkpoints = broken.join("checkpoints");
    let left = || fs::read_dir(&checkpoints).unwrap().count();
    assert_eq!(left(), 2, "old checkpoints are pruned and nothing half-written is left");
    // A kill between the last checkpoint and the removal of an old one.
    fs::create_dir(checkpoints.join("epoch-000-step-000001")).unwrap();
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(left(), 2, "also when nothing is left to train");
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["1", "2", "3"].map(|threads| {
        let run = dir.path().join(threads);
        let output = train_short(&run, &["--threads", threads]);
        assert!(output.status.success(), "{}", stderr(&output));
        run
    });
    same(&runs[0], &runs[1]);
    same(&runs[0], &runs[2]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_finishes_the_step_saves_and_exits_130() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    // Long enough for a second process to find the folder in use.
    let more = ["--epochs", "60"];
    let short: Vec<&str> =
        SHORT.iter().copied().filter(|word| !["--epochs", "2"].contains(word)).collect();
    let call = |out: &Path| {
        [&["train", "--out", out.to_str().unwrap()], &short[..], &more]
            .concat()
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<_>>()
    };
    assert!(
        Command::new(env!("CARGO_BIN_EXE_sora"))
            .args(call(&whole))
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );

    let child = Command::new(env!("CARGO_BIN_EXE_sora"))
        .args(call(&broken))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = broken.join("metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < deadline, "the run never began");
        sleep(Duration::from_millis(2));
    }
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "the folder is in use: {}", stderr(&output));
    assert!(stderr(&output).contains("another process is training"), "{}", stderr(&output));
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("sora resume"), "{}", stderr(&output));
    assert!(!broken.join("model.safetensors").exists());
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
}

#[test]
fn a_diverging_run_stops_and_names_the_last_good_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = train_short(
        &run,
        &[
            "--lr-max",
            "1000",
            "--schedule",
            "warmup-cosine",
            "--epochs",
            "6",
            "--weight-decay",
            "10",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("diverged") && stderr(&output).contains("--lr-max"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_damaged_config_is_refused_and_lost_log_lines_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    assert!(train_short(&run, &[]).status.success());
    fs::remove_file(run.join("model.safetensors")).unwrap();
    let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), &metrics[..10]).unwrap();
    let output = sora(&["resume", run.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("are lost"), "{}", stderr(&output));
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    for wrong in ["dataset = 3".to_owned(), config.replace("momentum = 0.9", "momentum = 0.8")] {
        fs::write(run.join("config.toml"), wrong).unwrap();
        let output = sora(&["resume", run.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("config.toml"), "{}", stderr(&output));
    }
}
