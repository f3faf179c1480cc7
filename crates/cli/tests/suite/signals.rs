//! Signals: what they end, what they leave, what passes them on.

#![cfg(unix)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cli::{SHORT, stderr},
    report::{RUNS, text},
    trust::program,
};

fn wait_for(what: &str, happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, id: u32) {
    let status = Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Starts a run of many epochs and waits for its first steps.
fn long_run(command: &mut Command, out: &Path) -> std::process::Child {
    let many = ["--epochs", "2000", "--val", "0"];
    command.args(["train", "--out", out.to_str().unwrap()]).args(SHORT).args(many);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let metrics = out.join("metrics.jsonl");
    wait_for("a step", || fs::metadata(&metrics).is_ok_and(|m| m.len() > 0));
    child
}

/// Under `nohup` the tests themselves ignore hang-ups, and a program that they start inherits that.
/// A signal that is caught is the default again in the program.
fn hang_ups_are_not_ignored() {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
}

/// What a batch system sends before the time of a job is up.
#[test]
fn a_run_that_is_told_that_its_time_is_up_saves_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut child = long_run(&mut program(), &out);
    kill("-USR1", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130), "saved and ended");
    let checkpoints = fs::read_dir(out.join("checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max();
    assert!(newest.is_some_and(|newest| newest.join("MANIFEST.json").exists()));
}

#[test]
fn an_evaluation_or_a_sweep_that_is_told_that_its_time_is_up_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w.safetensors");
    fs::copy(RUNS.1[0].join("model.safetensors"), &weights).unwrap();
    let states = || {
        let entries = fs::read_dir(dir.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains("-state-")).count()
    };
    for (command, more) in
        [("eval", ["--attacks", "clean,pgd-50x1000"]), ("sweep", ["--attacks", "pgd-50x1000"])]
    {
        let before = states();
        let call = [command, text(&weights), "--dataset", "synthetic", "--batch", "4"];
        let mut child = program();
        child.args(call).args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        wait_for("a state", || states() > before);
        kill("-USR1", child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{command}: {}", stderr(&output));
        assert!(stderr(&output).contains("the same call goes on"), "{}", stderr(&output));
    }
}

#[test]
fn a_hang_up_ends_a_run_unless_it_was_ignored_from_the_start() {
    hang_ups_are_not_ignored();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("plain");
    let mut child = long_run(&mut program(), &out);
    kill("-HUP", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130), "saved and ended");
    assert!(fs::read_dir(out.join("checkpoints")).unwrap().next().is_some());

    let out = dir.path().join("nohup");
    let mut command = Command::new("nohup");
    command.arg(assert_cmd::cargo::cargo_bin("sora")).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = long_run(&mut command, &out);
    kill("-HUP", child.id());
    let metrics = out.join("metrics.jsonl");
    let before = fs::metadata(&metrics).unwrap().len();
    wait_for("a step after the hang-up", || fs::metadata(&metrics).unwrap().len() > before + 2000);
    assert!(child.try_wait().unwrap().is_none(), "still running");
    kill("-TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Processes whose command line names `path`.
fn working_on(path: &Path) -> usize {
    let name = path.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(name))
        .count()
}

/// A signal to `command` with a recipe of one long run, which appears in `runs` below its folder,
/// ends the run, too, with its state saved.
fn passes_signals_on(command: &str, runs: &str) {
    hang_ups_are_not_ignored();
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("long.toml");
    let text = "title = 'long'\nplots = ['curves']\n[train]\ndataset = 'synthetic'\nimage_size = 8\n\
                width = 4\nbatch = 40\nlimit_train = 260\nval = 0\nepochs = 2000\n\
                [[runs]]\nmethod = 'fgsm'\n[scale.small]\n";
    fs::write(&recipe, text).unwrap();
    for signal in ["-TERM", "-INT", "-HUP", "-USR1", "-KILL"] {
        let out = dir.path().join(format!("out{signal}"));
        let mut program = program();
        program.args([command, recipe.to_str().unwrap(), "--scale", "small"]);
        program.args(["--out", out.to_str().unwrap()]);
        let mut child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let run = || fs::read_dir(out.join(runs)).ok()?.flatten().find(|e| e.path().is_dir());
        wait_for("a step", || {
            run().is_some_and(|run| {
                fs::metadata(run.path().join("metrics.jsonl")).is_ok_and(|m| m.len() > 0)
            })
        });
        kill(signal, child.id());
        let status = child.wait().unwrap();
        if signal != "-KILL" {
            assert_eq!(status.code(), Some(130), "{command} {signal}");
        }
        wait_for("the end of the child", || working_on(&out) == 0);
        let run = run().unwrap().path();
        let checkpoints = fs::read_dir(run.join("checkpoints")).unwrap().count();
        assert!(checkpoints > 0, "{command} {signal}: the state is saved");
    }
}

#[test]
fn reproduce_passes_signals_on_and_leaves_no_orphan() {
    passes_signals_on("reproduce", "runs");
}

#[test]
fn a_grid_passes_signals_on_and_leaves_no_orphan() {
    passes_signals_on("grid", "");
}
