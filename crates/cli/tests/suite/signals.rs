//! Signals: what they end, what they leave, what passes them on.

#![cfg(unix)]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cli::{SHORT, stderr},
    report::{RUNS, text},
    trust::program,
};

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
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
fn long_run(command: &mut Command, out: &Path, more: &[&str]) -> Child {
    let many = ["--epochs", "2000", "--val", "0"];
    command.args(["train", "--out", out.to_str().unwrap()]).args(SHORT).args(many).args(more);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let metrics = out.join("metrics.jsonl");
    wait_for("a step", || fs::metadata(&metrics).is_ok_and(|m| m.len() > 0));
    child
}

/// Starts `command`, an evaluation or a sweep, with many rounds of copied weights in `dir`, and
/// waits for its state.
fn long_evaluation(command: &str, dir: &Path, more: &[&str], stderr: Stdio) -> Child {
    let weights = dir.join("w.safetensors");
    fs::copy(RUNS.1[0].join("model.safetensors"), &weights).unwrap();
    let attacks = if command == "eval" { "clean,pgd-50x1000" } else { "pgd-50x1000" };
    let call = [command, text(&weights), "--dataset", "synthetic", "--batch", "4"];
    let mut child = program();
    child.args(call).args(["--attacks", attacks]).args(more).stdout(Stdio::null()).stderr(stderr);
    let child = child.spawn().unwrap();
    wait_for("a state", || {
        let mut entries = fs::read_dir(dir).unwrap().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().contains("-state-"))
    });
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
    let mut child = long_run(&mut program(), &out, &[]);
    kill("-USR1", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130), "saved and ended");
    let checkpoints = fs::read_dir(out.join("checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max();
    assert!(newest.is_some_and(|newest| newest.join("MANIFEST.json").exists()));
}

#[test]
fn an_evaluation_or_a_sweep_that_is_told_that_its_time_is_up_says_how_to_go_on() {
    for command in ["eval", "sweep"] {
        let dir = tempfile::tempdir().unwrap();
        let child = long_evaluation(command, dir.path(), &[], Stdio::piped());
        kill("-USR1", child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{command}: {}", stderr(&output));
        assert!(stderr(&output).contains("the same call goes on"), "{}", stderr(&output));
    }
}

/// The command waits for a file, so that the next signal comes while it runs.
#[test]
fn what_is_to_run_at_the_end_runs_once_and_another_signal_does_not_wait_for_it() {
    for (command, signals) in [("eval", 1), ("eval", 2), ("sweep", 1), ("train", 1), ("train", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let [told, go, out] = ["told", "go", "run"].map(|name| dir.path().join(name));
        let (told_text, go_text) = (text(&told), text(&go));
        let finish = format!(
            "echo $SORA_STATUS >> '{told_text}'; while [ ! -e '{go_text}' ]; do sleep 0.05; done; \
             echo end >> '{told_text}'"
        );
        let more = ["--on-finish", finish.as_str()];
        let mut child = match command {
            "train" => long_run(&mut program(), &out, &more),
            _ => long_evaluation(command, dir.path(), &more, Stdio::null()),
        };
        let said = || fs::read_to_string(&told).unwrap_or_default();
        kill("-TERM", child.id());
        wait_for("the command", || said() == "130\n");
        assert!(child.try_wait().unwrap().is_none(), "{command} waits for it");
        if signals == 1 {
            fs::write(&go, "").unwrap();
        } else {
            kill("-TERM", child.id());
        }
        wait_for("the end", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{command}, {signals} signals");
        fs::write(&go, "").unwrap();
        wait_for("the end of the command", || said() == "130\nend\n");
    }
}

/// `sora watch` on a terminal that `script` makes, with what is shown in the file `screen`; behind
/// it the settings of the terminal.
fn watched(run: &Path, screen: &Path) -> Child {
    let sora = assert_cmd::cargo::cargo_bin("sora");
    let line = format!(
        "stty rows 24 cols 80; '{}' watch '{}'; status=$?; stty -a; exit $status",
        sora.display(),
        run.display()
    );
    let mut script = Command::new("script");
    script.args(["-qefc", &line, text(screen)]).env("SHELL", "/bin/sh").env("TERM", "xterm");
    script.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = script.spawn().expect("`script` of util-linux");
    wait_for("the view", || fs::read(screen).is_ok_and(|shown| shows(&shown, "\u{1b}[?1049h")));
    child
}

fn shows(screen: &[u8], part: &str) -> bool {
    String::from_utf8_lossy(screen).contains(part)
}

/// The process that shows `run`.
fn viewer(run: &Path) -> Option<u32> {
    let words = format!("\0watch\0{}\0", run.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut views = processes.filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.ends_with(words.as_bytes()))
    });
    views.find_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[test]
fn a_view_that_is_interrupted_gives_the_terminal_back() {
    hang_ups_are_not_ignored();
    let (dir, run) = (tempfile::tempdir().unwrap(), &RUNS.1[0]);
    for how in ["-TERM", "-INT", "-HUP", "Ctrl-C"] {
        let screen = dir.path().join(how);
        let mut script = watched(run, &screen);
        match how {
            "Ctrl-C" => script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap(),
            signal => kill(signal, viewer(run).unwrap()),
        }
        wait_for("the end of the view", || script.try_wait().unwrap().is_some());
        assert_eq!(script.wait().unwrap().code(), Some(130), "{how}");
        let shown = String::from_utf8_lossy(&fs::read(&screen).unwrap()).into_owned();
        let (_, after) = shown.rsplit_once("\u{1b}[?1049l").expect("the other screen was left");
        assert!(after.contains("interrupted") && after.contains(" icanon"), "{how}: {after}");
    }
    // A terminal that goes away takes no keys any more, and none of them ends the view.
    let mut script = watched(run, &dir.path().join("gone"));
    script.kill().unwrap();
    script.wait().unwrap();
    wait_for("the end of the view", || viewer(run).is_none());
}

#[test]
fn a_hang_up_ends_a_run_unless_it_was_ignored_from_the_start() {
    hang_ups_are_not_ignored();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("plain");
    let mut child = long_run(&mut program(), &out, &[]);
    kill("-HUP", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130), "saved and ended");
    assert!(fs::read_dir(out.join("checkpoints")).unwrap().next().is_some());

    let out = dir.path().join("nohup");
    let mut command = Command::new("nohup");
    command.arg(assert_cmd::cargo::cargo_bin("sora")).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = long_run(&mut command, &out, &[]);
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

/// Processes that `parent` has started.
fn children_of(parent: u32) -> usize {
    let line = format!("PPid:\t{parent}\n");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok())
        .filter(|status| status.contains(&line))
        .count()
}

#[test]
fn an_estimate_that_is_interrupted_ends_with_the_step_that_it_measures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kinds.toml");
    let kinds = "[train]\ndataset = 'synthetic'\nimage_size = 32\nwidth = 16\nbatch = 128\n\
                 limit_train = 260\nlimit_test = 50\nval = 20\nepochs = 1\nthreads = 1\n\
                 [[runs]]\nmethod = ['pgd', 'sora', 'n-fgsm', 'fgsm']\n";
    fs::write(&file, kinds).unwrap();
    let mut child = program();
    child.args(["grid", text(&file), "--dry-run"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    wait_for("a measurement", || children_of(child.id()) > 0);
    kill("-TERM", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn reproduce_passes_signals_on_and_leaves_no_orphan() {
    passes_signals_on("reproduce", "runs");
}

#[test]
fn a_grid_passes_signals_on_and_leaves_no_orphan() {
    passes_signals_on("grid", "");
}
