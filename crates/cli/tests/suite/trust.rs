//! Tests of guarantees for the user: no panic where a log cannot be written, files of others stay,
//! folders that are not runs are skipped, names do not steer a terminal.

#![cfg(unix)]

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::cli::{SHORT, refused, sora, stderr, train_short};

pub fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("sora"));
    command.env_remove("RUST_LOG").env_remove("SORA_DATA").stdin(Stdio::null());
    command
}

/// A stream on which every write fails.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

fn trained(dir: &Path) -> std::path::PathBuf {
    let run = dir.join("run");
    let output = train_short(&run, &["--epochs", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    run
}

#[test]
fn log_lines_that_cannot_be_written_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("full");
    let mut train = program();
    train.args(["train", "--out", out.to_str().unwrap()]).args(SHORT).args(["--epochs", "1"]);
    assert_eq!(train.stderr(full()).status().unwrap().code(), Some(0), "train");
    assert!(out.join("model.safetensors").exists());

    // The reader of the log has gone away.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = out.to_str().unwrap();
    let eval = ["eval", run, "--attacks", "clean,fgsm", "--limit", "5", "--json"];
    let output = program().args(eval).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "eval");
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok());

    for call in
        [&["resume", run][..], &["diagnose", run], &["watch", run, "--once"], &["report", run]]
    {
        assert_eq!(program().args(call).stderr(full()).output().unwrap().status.code(), Some(0));
    }
    // A wrong call keeps its status though nobody can read why.
    for call in [&["eval", "/no/such/run"][..], &["frobnicate"], &["train", "--nonsense"]] {
        let status = program().args(call).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{call:?}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let run = run.to_str().unwrap();
    for call in [
        &["methods"][..],
        &["models", "--json"],
        &["attacks"],
        &["data", "list"],
        &["data", "info", "synthetic"],
        &["schema", "eval"],
        &["completions", "bash"],
        &["help", "exit-status"],
        &["reproduce"],
        &["diagnose", run],
        &["watch", run, "--once"],
        &["plot", "curves", run],
    ] {
        let output = program().args(call).stdout(full()).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{call:?}: {text}");
        assert!(text.contains("standard output") && !text.contains("panicked"), "{text}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program().args(call).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{call:?}: {}", stderr(&output));
    }
}

#[test]
fn closed_streams_are_no_reason_to_panic() {
    let sora = assert_cmd::cargo::cargo_bin("sora");
    for redirection in ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let line = format!("'{}' methods {redirection}", sora.display());
        let status = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{redirection}: {status}");
    }
}

#[test]
fn files_of_others_stay_unless_force_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let run = run.to_str().unwrap();
    let file = |name: &str| dir.path().join(name);
    for (call, name) in [
        (&["export", run, "--format", "onnx"][..], "net.onnx"),
        (&["export", run, "--format", "safetensors"], "net.safetensors"),
        (&["plot", "curves", run], "fig.svg"),
    ] {
        let path = file(name);
        fs::write(&path, "mine").unwrap();
        let path_text = path.to_str().unwrap();
        let call = [call, &["--out", path_text]].concat();
        refused(&call, &[name, "--force"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine", "{name}");
        let forced = sora(&[&call[..], &["--force"]].concat());
        assert!(forced.status.success(), "{}", stderr(&forced));
        // What the program wrote itself it may write again.
        let again = sora(&call);
        assert!(again.status.success(), "{name}: {}", stderr(&again));
    }
}

#[test]
fn files_of_others_in_a_folder_of_a_report_stay_unless_force_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let page = dir.path().join("pages");
    let at = page.to_str().unwrap();
    let report = ["report", run.to_str().unwrap(), "--no-compute", "--png", "--out", at];
    for name in ["report.html", "plots/curves.svg", "plots/cost.png", "csv/run.csv"] {
        let mine = page.join(name);
        fs::create_dir_all(mine.parent().unwrap()).unwrap();
        fs::write(&mine, "mine").unwrap();
        refused(&report, &[name, "--force"]);
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine", "{name}");
        assert!(!page.join("plots/history.svg").exists(), "{name}: nothing else is written");
        fs::remove_file(&mine).unwrap();
    }
    // A figure that is not asked for is in nobody's way.
    let (other, curves) = (page.join("plots/epsilon.svg"), page.join("plots/curves.svg"));
    fs::write(&other, "mine").unwrap();
    fs::write(&curves, "mine").unwrap();
    // By force, and then over its own files.
    for force in [&["--force"][..], &[]] {
        let output = sora(&[&report[..], force].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(fs::read_to_string(&curves).unwrap().starts_with("<svg"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    }
    let blocked = dir.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("csv"), "mine").unwrap();
    let report = ["report", report[1], "--no-compute", "--out", blocked.to_str().unwrap()];
    refused(&report, &["csv: is a file", "expected a folder"]);
    assert_eq!(fs::read_dir(&blocked).unwrap().count(), 1);
}

#[test]
fn folders_that_are_no_runs_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let other = dir.path().join("notes");
    fs::create_dir(&other).unwrap();
    let (run, other) = (run.to_str().unwrap(), other.to_str().unwrap());
    let output = sora(&["diagnose", other, run, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("notes") && stderr(&output).contains("passed over"));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["runs"].as_array().unwrap().len(), 1);
    let out = dir.path().join("page");
    let call = ["report", other, run, "--no-compute", "--out", out.to_str().unwrap()];
    let output = sora(&call);
    assert!(output.status.success(), "{}", stderr(&output));
    refused(&["diagnose", other], &["notes"]);
    refused(&["report", other, "--no-compute"], &["notes"]);
}

/// Calls that start threads to compute.
fn computing<'a>(run: &'a str, out: &'a str) -> [Vec<&'a str>; 7] {
    [
        vec!["train", "--dataset", "synthetic", "--out", out],
        vec!["eval", run],
        vec!["sweep", run],
        vec!["plot", "epsilon", run],
        vec!["landscape", run],
        vec!["report", run],
        vec!["bench", "conv"],
    ]
}

#[test]
fn a_number_of_threads_that_is_a_slip_is_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let run = run.to_str().unwrap();
    let out = dir.path().join("new");
    let out = out.to_str().unwrap();
    let many = ["--threads", "100000"];
    let more: [&[&str]; 3] = [
        &["reproduce", "curves", "--scale", "smoke", "--dry-run"],
        &["bench", "step"],
        &["bench", "data", "--dataset", "synthetic"],
    ];
    for call in computing(run, out).iter().map(Vec::as_slice).chain(more) {
        let started = Instant::now();
        refused(&[call, &many].concat(), &["threads"]);
        assert!(started.elapsed() < Duration::from_secs(20), "{call:?}");
    }
}

/// The seal of config.toml is taken off, as by an older version or an editor.
#[test]
fn a_run_that_goes_on_checks_its_settings_as_one_that_begins() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    fs::remove_file(run.join("model.safetensors")).unwrap();
    let config = run.join("config.toml");
    let sealed = fs::read_to_string(&config).unwrap();
    let (_, open) = sealed.split_once('\n').unwrap();
    let number = |key: &str| {
        let line = open.lines().find(|line| line.starts_with(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    for (key, value, part) in [
        ("threads", "100000", "threads"),
        ("batch", "0", "batch"),
        ("epochs", "0", "epochs"),
        ("epsilon", "'8'", "8/255"),
        ("epsilon", "'eight'", "epsilon eight"),
        ("width", "0", "width"),
        ("lr_max", "nan", "lr_max"),
        ("momentum", "inf", "momentum"),
        ("steps_per_epoch", "0", ""),
        ("steps_per_epoch", "9223372036854775807", ""),
        ("val", "100000", "val"),
        ("accumulate", "60000", "accumulate"),
        ("device", "'abacus'", "abacus"),
        ("on_co_method", "'nonesuch'", "nonesuch"),
        ("model", "'nonesuch'", ""),
    ] {
        fs::write(&config, open.replacen(&number(key), &format!("{key} = {value}"), 1)).unwrap();
        let text = refused(&["resume", run.to_str().unwrap()], &[part, "config.toml"]);
        assert!(!text.contains("--"), "a key in a file is no flag: {text}");
    }
    // Synthetic images are drawn from the seed.
    fs::write(&config, open.replacen(&number("seed"), "seed = 9", 1)).unwrap();
    refused(&["resume", run.to_str().unwrap()], &["not those that the run began with"]);
    fs::write(&config, &sealed).unwrap();
    let output = sora(&["resume", run.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The words of a run's config.toml for its instruction set.
fn instruction_set(run: &Path) -> String {
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    config["provenance"]["instruction_set"].as_str().unwrap().to_owned()
}

#[test]
fn another_instruction_set_is_said_where_a_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (run, fastest) = (dir.path().join("run"), dir.path().join("fastest"));
    let sora = |isa: Option<&str>, call: &[&str]| {
        let mut command = program();
        command.env_remove("SORA_ISA").envs(isa.map(|isa| ("SORA_ISA", isa)));
        let output = command.args(call).output().unwrap();
        assert!(output.status.success(), "{call:?}: {}", stderr(&output));
        stderr(&output)
    };
    let train = |isa, out: &Path| {
        let call = ["train", "--out", out.to_str().unwrap()];
        sora(isa, &[&call[..], SHORT, &["--epochs", "1"]].concat())
    };
    train(Some("portable"), &run);
    train(None, &fastest);
    let at = run.to_str().unwrap();
    let said = sora(Some("portable"), &["resume", at, "--epochs", "2"]);
    assert!(!said.contains("instruction set") && !said.contains("WARN"), "{said}");
    // On a machine that has no other there is nothing to say.
    let other = instruction_set(&fastest) != instruction_set(&run);
    let said = sora(None, &["resume", at, "--epochs", "3"]);
    assert_eq!(said.contains("began with instruction set portable"), other, "{said}");
}

/// Two of the threads can be started: a stack takes 1 of the 3 GiB of addresses, so what is left is
/// too small for a third one and large enough for everything else. (With small stacks the last
/// started threads find no room for their first words, which ends the process within libc.)
#[cfg(target_os = "linux")]
#[test]
fn threads_that_the_system_does_not_give_are_a_line_and_no_hang() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let run = run.to_str().unwrap();
    let out = dir.path().join("new");
    let out = out.to_str().unwrap();
    for call in computing(run, out) {
        let sora = assert_cmd::cargo::cargo_bin("sora");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 3145728; exec \"$0\" \"$@\" --threads 1000"]);
        command.env("RUST_MIN_STACK", (1_u32 << 30).to_string());
        let started = Instant::now();
        let output = command.arg(sora).args(&call).stdin(Stdio::null()).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{call:?}: {text}");
        assert!(text.contains("cannot start 1000 threads"), "{call:?}: {text}");
        assert!(started.elapsed() < Duration::from_secs(20), "{call:?}");
    }
    assert!(!Path::new(out).exists(), "nothing is left behind");
}

#[test]
fn images_that_no_machine_can_train_on_are_refused_before_they_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("never");
    let started = Instant::now();
    let call = ["train", "--dataset", "synthetic", "--image-size", "4096", "--out"];
    refused(&[&call[..], &[out.to_str().unwrap()]].concat(), &["4096", "MiB"]);
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    assert!(!out.exists());
}

#[test]
fn names_from_files_steer_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let config = run.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let evil = text.replace("method = \"sora\"", "method = \"\\u001b]0;x\\u0007\\u001b[2Jsora\"");
    assert_ne!(text, evil);
    fs::write(&config, evil).unwrap();
    let at = run.to_str().unwrap();
    let name = dir.path().join("a\u{1b}[2Jb");
    for call in [
        &["diagnose", at][..],
        &["watch", at, "--once"],
        &["resume", at],
        &["report", at, "--no-compute"],
        &["eval", name.to_str().unwrap()],
        &["train", "--dataset", "synthetic", "--method", "\u{1b}[31m", "--out", "x"],
    ] {
        let output = sora(call);
        let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        assert!(!all.contains(&0x1b) && !all.contains(&0x07), "{call:?}: {}", stderr(&output));
    }
}

#[test]
fn odd_logs_are_watched_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let metrics = run.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    let most = u64::MAX.to_string();
    for (from, to) in [
        ("\"step\":", format!("\"step\":{most},\"x\":")),
        ("\"epoch\":", format!("\"epoch\":{most},\"x\":")),
    ] {
        fs::write(&metrics, text.replace(from, &to)).unwrap();
        let epochs = run.join("epochs.jsonl");
        let lines = fs::read_to_string(&epochs).unwrap();
        fs::write(&epochs, lines.replace(from, &to)).unwrap();
        for call in ["watch", "diagnose"] {
            let once: &[&str] = if call == "watch" { &["--once"] } else { &[] };
            let output = sora(&[&[call, run.to_str().unwrap()], once].concat());
            let error = stderr(&output);
            assert!(matches!(output.status.code(), Some(0 | 2)), "{call}: {error}");
            assert!(!error.contains("defect") && !error.contains("panicked"), "{error}");
        }
        fs::write(&epochs, lines).unwrap();
    }
}

#[test]
fn a_command_runs_at_the_end_and_knows_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let tell = format!("echo $SORA_STATUS >> '{}'; echo noise", told.display());
    let run = dir.path().join("run");
    let output = train_short(&run, &["--epochs", "1", "--on-finish", &tell]);
    assert!(output.status.success(), "{}", stderr(&output));
    let eval = ["eval", run.to_str().unwrap(), "--attacks", "clean", "--limit", "4", "--json"];
    let output = sora(&[&eval[..], &["--on-finish", &tell]].concat());
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "JSON alone");
    let output: Output = sora(&["eval", "/no/such/run", "--on-finish", &tell]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&told).unwrap(), "0\n0\n2\n");
    let output = sora(&[&eval[..], &["--on-finish", "exit 3"]].concat());
    assert_eq!(output.status.code(), Some(0), "the work counts");
    assert!(stderr(&output).contains("--on-finish"), "{}", stderr(&output));
}

#[test]
fn a_config_of_another_method_or_network_trains() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let config = run.join("config.toml");
    let config = config.to_str().unwrap();
    for (name, more) in [
        ("pgd", &["--method", "pgd", "--set", "steps=2"][..]),
        ("fgsm", &["--method", "fgsm"]),
        ("none", &["--method", "none"]),
        ("vit", &["--model", "vit-tiny", "--width", "12", "--patch", "4"]),
        ("l2", &["--norm", "l2"]),
    ] {
        let out = dir.path().join(name);
        let call = ["train", "--config", config, "--out", out.to_str().unwrap()];
        let output = sora(&[&call[..], more].concat());
        let text = stderr(&output);
        assert!(output.status.success(), "{name}: {text}");
        let written = fs::read_to_string(out.join("config.toml")).unwrap();
        if name == "l2" {
            assert!(written.contains("epsilon = \"128/255\""), "{written}");
        }
        if name == "vit" {
            let again = dir.path().join("cnn");
            let from = out.join("config.toml");
            let call = ["train", "--config", from.to_str().unwrap(), "--model", "mnist-cnn"];
            let rest = ["--width", "4", "--out", again.to_str().unwrap()];
            let output = sora(&[&call[..], &rest].concat());
            assert!(output.status.success(), "{}", stderr(&output));
        }
        if name == "fgsm" {
            assert!(text.contains("method fgsm in place of the file's sora"), "{text}");
        }
    }
}
