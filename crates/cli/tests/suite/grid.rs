//! A product of settings and seeds: parts, a kill in between, the table.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use serde_json::Value;

use crate::{
    cli::{refused, sora, stderr},
    report::change_a_digit,
};

const GRID: &str = "
    attacks = ['clean', 'fgsm']
    limit = 20
    [train]
    dataset = 'synthetic'
    image_size = 8
    width = 4
    batch = 40
    limit_train = 260
    limit_test = 50
    val = 20
    epochs = 1
    [[runs]]
    method = ['fgsm', 'sora']
    seed = [0, 1, 2]
";

fn grid(dir: &Path, more: &[&str]) -> std::process::Output {
    let (file, out) = (dir.join("grid.toml"), dir.join("out"));
    fs::write(&file, GRID).unwrap();
    let call = ["grid", file.to_str().unwrap(), "--out", out.to_str().unwrap()];
    sora(&[&call[..], more].concat())
}

fn states(dir: &Path) -> [usize; 2] {
    let output = grid(dir, &["--status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    ["done", "missing"].map(|state| {
        text.lines().filter(|line| line.split_whitespace().any(|word| word == state)).count()
    })
}

#[test]
fn a_grid_in_parts_with_a_kill_in_it_ends_in_a_table() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(states(dir.path()), [0, 6]);
    let output = grid(dir.path(), &["--shard", "1/2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 of 6 runs are not done"));
    assert_eq!(states(dir.path()), [3, 3]);

    // A kill while the second part runs.
    let call = [
        "grid".into(),
        dir.path().join("grid.toml"),
        "--out".into(),
        dir.path().join("out"),
        "--shard".into(),
        "2/2".into(),
    ];
    let program = assert_cmd::cargo::cargo_bin("sora");
    let mut child = Command::new(program).args(call).spawn().unwrap();
    thread::sleep(Duration::from_millis(700));
    child.kill().ok();
    child.wait().unwrap();
    // The run at hand notices, and lets go of its folder.
    thread::sleep(Duration::from_secs(3));

    let csv = dir.path().join("table.csv");
    let output = grid(dir.path(), &["--json", "--csv", csv.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(states(dir.path()), [6, 0]);
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = table["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{table}");
    for (group, name) in groups.iter().zip(["fgsm", "sora"]) {
        assert_eq!(group["label"], name);
        let clean = &group["accuracy"]["clean"];
        assert_eq!(clean["n"], 3);
        // The mean is that of the runs.
        let runs = table["runs"].as_array().unwrap().iter().filter(|run| run["group"] == name);
        let values: Vec<f64> = runs
            .map(|run| {
                let figures = run["figures"].as_array().unwrap();
                figures.iter().find(|f| f[0] == "clean").unwrap()[1].as_f64().unwrap()
            })
            .collect();
        let mean = values.iter().sum::<f64>() / 3.0;
        assert!((clean["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    assert_eq!(groups[1]["difference"]["clean"]["n"], 3, "paired by seed");
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 7);

    // What is done is not done again.
    let models = || {
        let runs = fs::read_dir(dir.path().join("out")).unwrap().flatten();
        let mut times: Vec<_> = runs
            .filter_map(|run| fs::metadata(run.path().join("model.safetensors")).ok())
            .map(|file| file.modified().unwrap())
            .collect();
        times.sort();
        times
    };
    let before = models();
    assert!(grid(dir.path(), &[]).status.success());
    assert_eq!(before, models());

    // Changed figures are not the runs': they are made again, which is said.
    let runs = fs::read_dir(dir.path().join("out")).unwrap().flatten().map(|run| run.path());
    let run = runs.filter(|run| run.is_dir()).min().unwrap();
    let record = fs::read_dir(run.join("eval")).unwrap().next().unwrap().unwrap().path();
    change_a_digit(&record, "\"accuracy\":");
    change_a_digit(&run.join("summary.json"), "\"seconds\":");
    assert_eq!(states(dir.path()), [5, 0]);
    let output = grid(dir.path(), &["--json"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for file in ["summary.json", record.file_name().unwrap().to_str().unwrap()] {
        assert!(said.lines().any(|l| l.contains(file) && l.contains("changed since")), "{said}");
    }
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["groups"], table["groups"]);
}

#[test]
fn a_run_that_fails_costs_the_table_its_row_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, csv) = (dir.path().join("fails.toml"), dir.path().join("rows.csv"));
    let train = GRID.split("[[runs]]").next().unwrap();
    let runs = "[[runs]]\nmethod = 'sora'\nlr_max = [0.05, 1000]\nschedule = 'constant'";
    fs::write(&file, format!("{train}{runs}")).unwrap();
    let out = dir.path().join("out");
    let call = ["grid", file.to_str().unwrap(), "--out", out.to_str().unwrap(), "--csv"];
    let output = sora(&[&call[..], &[csv.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("1 of 2 runs failed: sora, lr_max 1000"),
        "{}",
        stderr(&output)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 of 2 runs are not done") && text.contains("lr_max 0.05"), "{text}");
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 3);
    // Another number of threads is no other run.
    let state = sora(&[&call[..4], &["--status", "--threads", "2"]].concat());
    let text = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(
        text.contains("done") && text.contains("cut off") && !text.contains("missing"),
        "{text}"
    );
}

#[test]
fn a_grid_says_what_it_would_take_and_refuses_what_it_cannot_run() {
    let dir = tempfile::tempdir().unwrap();
    let output = grid(dir.path(), &["--dry-run", "--shard", "1/6"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("training in all: about") && text.contains(" 6 "), "{text}");
    assert!(!dir.path().join("out").exists());
    // The network of an ONNX file cannot be timed without its file.
    let file = dir.path().join("onnx.toml");
    let file = file.to_str().unwrap();
    let begin = "[train]\ndataset = 'synthetic'\nlimit_train = 260\nval = 20\nbatch = 40\n\
                 init = 'x.onnx'\n[[runs]]\nmethod = 'fgsm'";
    fs::write(file, begin).unwrap();
    let output = sora(&["grid", file, "--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not measured") && text.contains("in all: more than 0"), "{text}");
    refused(&["grid", "/no/such.toml"], &["/no/such.toml"]);
    let file = dir.path().join("wrong.toml");
    let file = file.to_str().unwrap();
    fs::write(file, "runs = 3").unwrap();
    refused(&["grid", file], &["wrong.toml"]);
    fs::write(file, "[[runs]]\nmethod = ['fgsm', 'sorra']").unwrap();
    refused(&["grid", file], &["sorra"]);
    refused(&["grid", file, "--shard", "3/2"], &["I/N"]);
}

#[test]
fn a_recipe_is_a_grid_in_several_sizes_and_a_grid_a_recipe_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = |more: &[&str]| sora(&[&["grid", "curves", "--status"], more].concat());
    let output = recipe(&["--scale", "smoke", "--out", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).matches("missing").count() > 1);
    refused(&["grid", "curves", "--status"], &["--scale", "smoke, small, full"]);
    refused(&["grid", "curvs", "--status"], &["did you mean curves?"]);
    let file = dir.path().join("grid.toml");
    fs::write(&file, GRID).unwrap();
    let output = sora(&["reproduce", file.to_str().unwrap(), "--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("6 runs"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_measures_each_kind_of_run_as_it_trains() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kinds.toml");
    let (settings, _) = GRID.split_once("[[runs]]").unwrap();
    let kinds = "[[runs]]\nmethod = 'free'\nnorm = 'l2'\noptions = { replays = 3 }\n\
                 [[runs]]\nmethod = 'nuat'\noptions = { variant = 'reference' }";
    fs::write(&file, format!("{settings}{kinds}")).unwrap();
    let output = sora(&["grid", file.to_str().unwrap(), "--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    // 240 images in batches of 40, each of them three times.
    for steps in ["18", "6"] {
        let told = |line: &str| line.split_whitespace().any(|word| word == steps);
        assert!(text.lines().any(told), "{steps}: {text}");
    }
}
