//! The evaluator: resuming, counting, saving, and what a user sees of it.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command as Process, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::cli::{refused, sora, stderr, train_short};

/// Values of an array of an npz archive, as bytes after numpy's header.
fn array(path: &Path, name: &str) -> (String, Vec<u8>) {
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    (
        String::from_utf8_lossy(&bytes[10..10 + length]).trim().to_owned(),
        bytes[10 + length..].to_vec(),
    )
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn json(output: &std::process::Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A trained run of a moment.
fn trained(dir: &Path) -> std::path::PathBuf {
    let run = dir.join("run");
    let output = train_short(&run, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    run
}

#[test]
fn survivors_go_on_in_the_memory_of_the_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = [
        "--width",
        "8",
        "--image-size",
        "16",
        "--limit-train",
        "1500",
        "--limit-test",
        "100",
        "--epochs",
        "4",
        "--method",
        "none",
    ];
    let output = train_short(&run, &more);
    assert!(output.status.success(), "{}", stderr(&output));
    // Images leave at many of the queries, so that the batches have as many sizes.
    let output = sora(&[
        "eval",
        run.to_str().unwrap(),
        "--attacks",
        "clean,square-100",
        "--epsilon",
        "4/255",
        "--threads",
        "1",
        "-v",
    ]);
    let lines = stderr(&output);
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let line = lines
        .lines()
        .find_map(|line| line.split_once("memory of feature maps: "))
        .unwrap_or_else(|| panic!("{lines}"))
        .1;
    let [_, misses, requests] = numbers(line)[..] else { panic!("{line}") };
    // 62 of 3426; with memory for each size of batch 254.
    assert!(misses < 120 && requests > 2000, "{line}");
}

#[test]
fn eval_keeps_examples_suites_and_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let path = run.to_str().unwrap();
    let report = json(&sora(&[
        "eval",
        path,
        "--attacks",
        "clean,pgd-5x2",
        "--save-adv",
        "--json",
        "--batch",
        "7",
    ]));
    let eval = run.join("eval");
    let files: Vec<String> = fs::read_dir(&eval)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    let with =
        |part: &str| files.iter().find(|name| name.contains(part)).map(|name| eval.join(name));
    assert!(with("state").is_none(), "the state is gone: {files:?}");
    let npz = with(".npz").unwrap();
    let (header, x) = array(&npz, "x");
    assert!(header.contains("(50, 3, 8, 8)") && header.contains("'<f4'"), "{header}");
    let (x, x_adv) = (floats(&x), floats(&array(&npz, "x_adv").1));
    let largest = x.iter().zip(&x_adv).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(
        largest <= 8.0 / 255.0 + 1e-6 && x_adv.iter().all(|v| (0.0..=1.0).contains(v)),
        "{largest}"
    );
    let longs = |name: &str| {
        array(&npz, name)
            .1
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect::<Vec<_>>()
    };
    let (y, pred) = (longs("y"), longs("pred"));
    let standing = y.iter().zip(&pred).filter(|(y, pred)| y == pred).count();
    assert_eq!(report["results"]["pgd-5x2"]["correct"], standing, "{report}");
    let fallen = array(&npz, "fallen").1;
    assert_eq!(fallen.iter().filter(|f| **f == 0).count(), standing);

    let suite = json(&sora(&["eval", path, "--suite", "quick", "--json"]));
    assert_eq!((&suite["n"], suite["results"].as_object().unwrap().len()), (&50.into(), 3));
    assert!(suite["notes"][0].as_str().unwrap().contains("--suite autoattack"), "{suite}");
    assert!(
        fs::read_dir(&eval).unwrap().any(|f| f
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with("quick-linf"))
    );

    let sweep = json(&sora(&[
        "sweep",
        path,
        "--epsilons",
        "0..4/255:2",
        "--steps",
        "4",
        "--convergence",
        "--limit",
        "20",
        "--json",
    ]));
    assert_eq!(sweep["epsilons"].as_array().unwrap().len(), 3);
    assert_eq!(sweep["epsilons"][0]["results"]["fgsm"]["accuracy"], sweep["steps"][0]["accuracy"]);
    assert_eq!(sweep["steps"].as_array().unwrap().len(), 5);
    let curve: Vec<f64> = sweep["convergence"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| at["accuracy"].as_f64().unwrap())
        .collect();
    assert!(curve.is_sorted_by(|a, b| a >= b) && curve.len() == 8, "{curve:?}");
    assert_eq!(sweep["convergence"]["restarts"].as_array().unwrap().len(), 10);
    let charts: Vec<_> =
        fs::read_dir(run.join("plots")).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(
        charts.len() == 1 && fs::read_to_string(&charts[0]).unwrap().contains("attack epsilon"),
        "{charts:?}"
    );

    for (call, parts) in [
        (vec!["eval", path, "--suite", "quick", "--attacks", "fgsm"], vec!["--suite", "--attacks"]),
        (vec!["eval", path, "--attacks", "fgsm,fgsm"], vec!["'fgsm' is there twice"]),
        (vec!["eval", path, "--attacks", "autoattack:fgsm+pdg-3"], vec!["'pdg-3'", "sora attacks"]),
        (
            vec!["eval", path, "--state", "/no/such/folder/state"],
            vec!["--state", "/no/such/folder/state"],
        ),
        (vec!["sweep", path, "--epsilons", "9..2"], vec!["'9..2'", "1..32"]),
        (vec!["sweep", path, "--steps", "0"], vec!["--steps 0"]),
        (vec!["sweep", path, "--steps", "18446744073709551615"], vec!["--steps", "1 to 1000"]),
        (vec!["sweep", "/no/such/run"], vec!["/no/such/run"]),
    ] {
        let output = sora(&call);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{call:?}: {text}");
        assert!(
            parts.iter().all(|part| text.contains(part)) && !text.contains("panicked"),
            "{call:?}: {text}"
        );
    }
}

/// The chart goes beside the record, under its name with .svg.
#[test]
fn a_record_of_a_sweep_does_not_take_the_place_of_its_chart() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.svg", "a.b.SVG"] {
        let out = dir.path().join("new").join(name);
        let out = out.to_str().unwrap();
        // Before any work: that there is no such run is not found out.
        let call = ["sweep", "/no/such/run", "--epsilons", "4/255,8/255", "--out", out, "--force"];
        refused(&call, &[name, "chart", ".json"]);
        assert!(!dir.path().join("new").exists(), "{name}");
    }
}

#[test]
fn corruptions_are_measured_beside_attacks_and_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let path = run.to_str().unwrap();
    let call = ["eval", path, "--corruptions", "fog,noise", "--json", "--batch", "7"];
    let report = json(&sora(&call));
    // Clean alone goes with them unless attacks are named.
    let names: Vec<_> = report["results"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["clean"]);
    let found = &report["corruptions"];
    let each: Vec<_> = found["each"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["corruption"].as_str().unwrap())
        .collect();
    assert_eq!(each, ["gaussian-noise", "shot-noise", "impulse-noise", "fog"]);
    let mean = |values: &Value| -> f64 {
        let values: Vec<f64> =
            values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    for one in found["each"].as_array().unwrap() {
        assert!((mean(&one["accuracy"]) - one["mean"].as_f64().unwrap()).abs() < 1e-9, "{one}");
    }
    let all = found["mean"]["accuracy"].as_f64().unwrap();
    assert!((mean(&found["by_severity"]) - all).abs() < 1e-9, "{found}");
    // The batch changes nothing, another seed does; the record has them and the list is part of it.
    let again = json(&sora(&["eval", path, "--corruptions", "fog,noise", "--json"]));
    let figures = |report: &Value| -> Vec<Value> {
        let each = report["corruptions"]["each"].as_array().unwrap().iter();
        each.map(|one| one["accuracy"].clone()).collect()
    };
    assert_eq!(figures(&again), figures(&report));
    let of = report["identity"]["attacks"].to_string();
    assert!(of.contains("corruption fog") && of.contains("shot-noise"), "{of}");
    let output = sora(&["eval", path, "--corruptions", "frost", "--attacks", "clean,fgsm"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["frost", "mean of weather", "mean of all", "fgsm", "drawn texture"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let records = fs::read_dir(run.join("eval")).unwrap().count();
    assert_eq!(records, 2, "one for each list");
    for (call, parts) in [
        (["--corruptions", "frogs"], ["'frogs'", "gaussian-noise"]),
        (["--corruptions", ""], ["''", "gaussian-noise"]),
    ] {
        let output = sora(&[&["eval", path][..], &call].concat());
        let text = stderr(&output);
        assert!(
            output.status.code() == Some(2) && parts.iter().all(|p| text.contains(p)),
            "{text}"
        );
    }
}

#[test]
fn l1_is_for_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let path = run.to_str().unwrap();
    let at = |epsilon: &str, attacks: &str| {
        let more = ["--norm", "l1", "--epsilon", epsilon, "--attacks", attacks, "--json"];
        json(&sora(&[&["eval", path][..], &more].concat()))
    };
    let attacks = "clean,apgd-ce-20,apgd-t-10,fab-t-10,square-50";
    let report = at("4", attacks);
    let correct = |report: &Value, name: &str| report["results"][name]["correct"].as_u64().unwrap();
    let clean = correct(&report, "clean");
    assert!(correct(&report, "apgd-ce-20") < clean, "{report}");
    assert!(correct(&report, "fab-t-10") < clean, "{report}");
    let small = at("0.01", attacks);
    assert!(correct(&small, "apgd-ce-20") >= correct(&report, "apgd-ce-20"), "{small}");
    assert_eq!(report["norm"], "l1");
    let output = sora(&["eval", path, "--norm", "l1", "--epsilon", "4", "--attacks", "pgd-10"]);
    let text = stderr(&output);
    assert!(output.status.code() == Some(2) && text.contains("not defined in l1"), "{text}");
    let config = dir.path().join("l1.toml");
    fs::write(&config, "dataset = \"synthetic\"\nnorm = \"l1\"\nepsilon = \"4\"\n").unwrap();
    let out = dir.path().join("l1");
    let paths = [config.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = sora(&[&["train", "--config"][..], &paths].concat());
    let text = stderr(&output);
    assert!(output.status.code() == Some(2) && text.contains("l1"), "{text}");
    assert!(!out.exists());
}

#[test]
fn a_killed_evaluation_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let weights = run.join("model.safetensors");
    // Many rounds that hardly any image falls to.
    let (weights, attacks) = (weights.to_str().unwrap(), "clean,autoattack:pgd-10x60+square-300");
    let call = [
        "eval",
        weights,
        "--dataset",
        "synthetic",
        "--limit",
        "60",
        "--attacks",
        attacks,
        "--batch",
        "4",
        "--epsilon",
        "0.2/255",
    ];
    let unbroken = json(&sora(
        &[&call[..], &["--json", "--state", dir.path().join("other").to_str().unwrap()]].concat(),
    ));

    // Kill it once it has finished some batches.
    let state = || {
        fs::read_dir(&run)
            .unwrap()
            .map(|f| f.unwrap().path())
            .find(|path| path.to_str().unwrap().contains("-state-"))
    };
    let mut child = Process::new(assert_cmd::cargo::cargo_bin("sora"))
        .args(call)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = 0;
    while lines < 20 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
        lines =
            state().map_or(0, |path| fs::read_to_string(path).unwrap_or_default().lines().count());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let Some(state_file) = state() else {
        panic!("the evaluation ended before it could be killed; make it longer");
    };
    let before = fs::read(&state_file).unwrap();
    let whole = before.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);

    // A short evaluation and a sweep in between, of the same images, leave it as it is.
    for short in [["eval", "--attacks", "fgsm"], ["sweep", "--epsilons", "0.2/255"]] {
        let kept = dir.path().join("short.json");
        let more = [&short[1..], &["--out", kept.to_str().unwrap()]].concat();
        let same = ["--dataset", "synthetic", "--limit", "60", "--epsilon", "0.2/255", "--force"];
        let output = sora(&[&[short[0], weights][..], &same[..], &more[..]].concat());
        assert!(output.status.success(), "{short:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("going on from"), "{short:?}: {}", stderr(&output));
        assert!(fs::read(&state_file).unwrap() == before[..whole], "{short:?}");
    }

    let output = sora(&[&call[..], &["--json"]].concat());
    assert!(stderr(&output).contains("going on from"), "{}", stderr(&output));
    let resumed = json(&output);
    assert!(state().is_none(), "the state is gone after the end");
    assert!(whole > 0);
    let ensemble = attacks.split(',').next_back().unwrap();
    for name in ["clean", ensemble] {
        assert_eq!(
            resumed["results"][name]["correct"], unbroken["results"][name]["correct"],
            "{name}"
        );
    }
    let parts = |report: &serde_json::Value| {
        let parts = report["results"][ensemble]["parts"].as_array().unwrap();
        parts
            .iter()
            .map(|part| (part["attacked"].clone(), part["correct"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(parts(&resumed), parts(&unbroken));
}

#[test]
fn examples_towards_a_class_name_the_classes_of_the_images() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let call = ["eval", run.to_str().unwrap(), "--attacks", "clean,pgd-5", "--target", "3"];
    let report = json(&sora(&[&call[..], &["--save-adv", "--json"]].concat()));
    let mut kept = fs::read_dir(run.join("eval")).unwrap().map(|entry| entry.unwrap().path());
    let npz = kept.find(|path| path.extension().is_some_and(|ending| ending == "npz")).unwrap();
    let longs = |name: &str| -> Vec<i64> {
        let bytes = array(&npz, name).1;
        bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    };
    let (y, pred) = (longs("y"), longs("pred"));
    let result = &report["results"]["pgd-5"];
    let standing = pred.iter().filter(|&&class| class != 3).count();
    assert_eq!((&report["n"], &result["correct"]), (&y.len().into(), &standing.into()));
    assert!(y.iter().any(|&label| label > 3) && !y.contains(&3), "{y:?}");
    let by_class = result["by_class"].as_array().unwrap();
    assert_eq!(by_class.len(), 10);
    for (class, found) in by_class.iter().enumerate() {
        let n = y.iter().filter(|&&label| label == class as i64).count();
        assert!(found["class"] == class && found["n"] == n, "{result}");
    }
}

#[test]
fn an_entry_for_robustbench_holds_the_figures_and_keeps_what_authors_wrote() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path());
    let eval_of = |subject: &str, more: &[&str]| {
        Process::new(env!("CARGO_BIN_EXE_sora"))
            .current_dir(dir.path())
            .args(["eval", subject, "--model-info", "Doe2026Robust", "--json"])
            .args(more)
            .output()
            .unwrap()
    };
    let eval = |more: &[&str]| eval_of("run/model.safetensors", more);
    let path = dir.path().join("model_info/synthetic/Linf/Doe2026Robust.json");
    let entry = || -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
    };
    // Nothing is attacked in vain.
    for (more, part) in [(&["--suite", "quick"][..], "autoattack"), (&["--limit", "3"], "--limit")]
    {
        let output = eval(more);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    // The run has 50 test images, an entry is of all.
    let output = eval_of("run", &["--suite", "autoattack"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("limit_test"), "{}", stderr(&output));
    let output = eval(&["--suite", "autoattack"]);
    let said = stderr(&output);
    assert!(
        said.contains("fill in link, name, authors") && said.contains("of 2000 images"),
        "{said}"
    );
    let report = json(&output);
    let percent = |attack: &str| {
        let accuracy = report["results"][attack]["accuracy"].as_f64().unwrap();
        serde_json::json!(format!("{:.2}", 100.0 * accuracy))
    };
    let first = entry();
    assert_eq!(first["clean_acc"], percent("clean"));
    assert_eq!(first["autoattack_acc"], percent("autoattack"));
    assert_eq!(first["reported"], first["autoattack_acc"]);
    assert_eq!((&first["eps"], &first["dataset"]), (&"8/255".into(), &"synthetic".into()));
    assert_eq!(first["architecture"], "PreActResNet-18 (width 4)");
    assert!(first["name"].is_null() && first["number_forward_passes"] == 1);
    // What the authors filled in, also in fields that are not known here, stays.
    let mut own = first.clone();
    for (key, value) in [("name", "A title"), ("reported", "12.5"), ("external", "x")] {
        own.insert(key.into(), value.into());
    }
    own.insert("clean_acc".into(), "99".into());
    fs::write(&path, serde_json::to_vec(&own).unwrap()).unwrap();
    json(&eval(&["--suite", "autoattack"]));
    own.insert("clean_acc".into(), percent("clean"));
    assert_eq!(entry(), own);
    fs::write(&path, "[]").unwrap();
    assert_eq!(eval(&["--suite", "autoattack"]).status.code(), Some(2));
    assert_eq!(fs::read(&path).unwrap(), b"[]");
}
