//! `sora eval --exec` and `--url`.

use std::{
    io::{self, BufRead, Read, Write},
    path::Path,
};

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::cli::{refused, sora, stderr};

/// Values of an image of the data set `synthetic`.
const PIXELS: usize = 3 * 32 * 32;

/// Logits of 10 classes: sums of stripes of the image.
fn logits(x: &[f32]) -> Vec<f32> {
    (0..10).map(|k| x.iter().skip(k).step_by(10).sum::<f32>() * 0.1).collect()
}

/// Not a test: the program of the tests below, this binary started again, which say by `behaves=`
/// how it is.
#[test]
fn model() {
    let Some(how) = std::env::args().find_map(|a| a.strip_prefix("behaves=").map(str::to_owned))
    else {
        return;
    };
    let (mut input, mut out) = (io::stdin().lock(), io::stdout());
    let answers = if how == "labels" { "labels" } else { "logits" };
    let classes = match how.as_str() {
        "few" => 5,
        "one-logit" | "one-probability" => 1,
        _ => 10,
    };
    let says = json!({"shape": [3, 32, 32], "classes": classes, "answers": answers});
    writeln!(out, "\n{says}").unwrap();
    let (mut line, mut asked) = (String::new(), 0);
    while input.read_line(&mut line).unwrap() > 0 {
        let head: Value = serde_json::from_str(&line).unwrap();
        let n = head["shape"][0].as_u64().unwrap() as usize;
        let mut bytes = vec![0; 4 * n * PIXELS];
        input.read_exact(&mut bytes).unwrap();
        asked += 1;
        let x: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if how == "dies" || how.strip_prefix("dies-at-").is_some_and(|at| at == asked.to_string()) {
            std::process::exit(9);
        }
        let rows = x.chunks(PIXELS).map(logits);
        let (shape, body): (Value, Vec<u8>) = if classes == 1 {
            // How bright an image is.
            let mean = x.chunks(PIXELS).map(|x| x.iter().sum::<f32>() / PIXELS as f32);
            let logit = how == "one-logit";
            let values = mean.map(|p| if logit { 8.0 * (p - 0.5) } else { p });
            (json!([n, 1]), values.flat_map(f32::to_le_bytes).collect())
        } else if how == "labels" {
            let named = rows.map(|z| sora::robustness::predicted(&z) as i32);
            (json!([n]), named.flat_map(i32::to_le_bytes).collect())
        } else {
            let shift = if how == "other" { 1e-3 } else { 0.0 };
            let values = rows.flatten().map(|v| v + shift);
            (
                json!([n, if how == "wide" { 11 } else { 10 }]),
                values.flat_map(f32::to_le_bytes).collect(),
            )
        };
        writeln!(out, "{}", json!({"id": head["id"], "shape": shape})).unwrap();
        out.write_all(&body).unwrap();
        out.flush().unwrap();
        line.clear();
    }
    std::process::exit(0);
}

fn command(how: &str) -> String {
    let program = std::env::current_exe().unwrap();
    // One thread: with more, the test harness writes a line of its own after a minute.
    let options = "black_box::model --exact --nocapture --test-threads=1";
    format!("'{}' {options} behaves={how}", program.display())
}

/// A call that judges the model on some synthetic images.
fn call<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--dataset", "synthetic", "--epsilon", "8/255", "--limit", "20"];
    [&["eval", "--exec", command][..], &usual, more].concat()
}

fn judge(how: &str, more: &[&str]) -> Value {
    let command = command(how);
    let out = sora(&call(&command, &[&["--json"], more].concat()));
    assert!(out.status.success(), "{}", stderr(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn suites_take_what_a_model_without_gradients_allows_and_say_so() {
    for (how, attack) in [("logits", "square-1000"), ("labels", "rays-1000")] {
        let report = judge(how, &["--suite", "quick"]);
        let results = report["results"].as_object().unwrap();
        assert_eq!(results.keys().collect::<Vec<_>>(), ["clean", attack]);
        assert_eq!(results["clean"]["queries"], 20);
        assert!(
            results[attack]["queries"].is_u64() && results[attack]["queries_per_image"].is_f64()
        );
        let notes = report["notes"].to_string();
        for words in [&format!("{attack} in place of fgsm, pgd-10"), "upper bounds", "requests"] {
            assert!(notes.contains(words), "{notes}");
        }
        let weights = &report["identity"]["weights"];
        assert!(weights["network"].as_str().unwrap().starts_with("exec "), "{weights}");
        assert_eq!(weights["sha256"].as_str().unwrap().len(), 64);
    }
    let (own, other) =
        (judge("logits", &["--attacks", "clean"]), judge("other", &["--attacks", "clean"]));
    let sha = |report: &Value| report["identity"]["weights"]["sha256"].clone();
    assert_ne!(sha(&own), sha(&other), "other answers, another model");
    assert_eq!(sha(&own), sha(&judge("logits", &["--attacks", "clean", "--batch", "7"])));
}

#[test]
fn one_output_is_two_classes_and_is_asked_about_where_it_may_be_a_probability() {
    let dir = tempfile::tempdir().unwrap();
    for (class, first) in [("dark", 20u8), ("light", 160)] {
        for split in ["train", "test"] {
            let folder = dir.path().join("set").join(split).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..8 {
                let grey = image::Rgb([first + 5 * i; 3]);
                let picture = image::RgbImage::from_pixel(32, 32, grey);
                picture.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    let dataset = format!("folder:{}", dir.path().join("set").display());
    let data_dir = dir.path().join("data").display().to_string();
    let judge = |how: &str, more: &[&str]| {
        let command = command(how);
        let call = ["eval", "--exec", &command, "--dataset", &dataset, "--data-dir", &data_dir];
        let usual = ["--epsilon", "8/255", "--attacks", "clean", "--json"];
        sora(&[&call[..], &usual, more].concat())
    };
    let accuracy = |how: &str, more: &[&str]| {
        let out = judge(how, more);
        let said = stderr(&out);
        assert!(out.status.success(), "{said}");
        assert!(said.contains("the network's one output"), "{said}");
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        report["results"]["clean"]["accuracy"].as_f64().unwrap()
    };
    assert_eq!(accuracy("one-logit", &[]), 1.0);
    let out = judge("one-probability", &[]);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("from 0 to 1") && said.contains("--one-output"), "{said}");
    assert_eq!(accuracy("one-probability", &["--one-output", "probability"]), 1.0);
    // Taken at its word, every image is called class 1.
    assert_eq!(accuracy("one-probability", &["--one-output", "logit"]), 0.5);
    for (how, more, part) in [
        ("one-logit", ["--one-output", "probability"], "no probability"),
        ("logits", ["--one-output", "logit"], "10 outputs"),
        ("one-logit", ["--one-output", "sigmoid"], "expected logit or probability"),
    ] {
        let out = judge(how, &more);
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn what_does_not_work_is_one_line() {
    let of = command;
    let logits = of("logits");
    // What is refused, or fails before a batch is finished, leaves no state.
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.jsonl");
    let there = ["--state", state.to_str().unwrap(), "--fresh"];
    let pgd = [&["--attacks", "pgd-10"][..], &there].concat();
    refused(&call(&logits, &pgd), &["needs gradients", "logits only"]);
    refused(&call(&logits, &["--weights", "best"]), &["--weights", "served model"]);
    refused(&call(&logits, &["--timeout", "0"]), &["--timeout 0"]);
    refused(&call(&logits, &["--mean", "0.5", "--std", "0.5"]), &["3 numbers each"]);
    refused(&call(&of("labels"), &["--norm", "l2"]), &["rays", "linf"]);
    refused(&call(&of("few"), &[]), &["in 10 classes", "in 5", "--dataset"]);
    refused(&call("/no/such/program", &[]), &["cannot start it"]);
    refused(&["eval", "--exec", &logits, "--dataset", "synthetic"], &["--epsilon is missing"]);
    refused(&["eval", "--url", "host:80", "--dataset", "synthetic"], &["expected http://"]);
    refused(&["eval", "m.onnx", "--timeout", "3"], &["--timeout", "--exec"]);
    for (how, words) in
        [("dies", "ended (exit status: 9)"), ("wide", "shape [20, 11], expected [20, 10]")]
    {
        let out = sora(&call(&of(how), &[&["--retries", "0"][..], &there].concat()));
        assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
        assert!(stderr(&out).contains(words), "{}", stderr(&out));
    }
    assert_eq!(files(dir.path()), [""; 0]);
}

/// Names of the files in `dir`, in order.
fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A model that fails in the middle: the batch that was finished is kept, by a state in the folder
/// of the call, and goes on from there.
#[test]
fn an_evaluation_that_fails_leaves_a_state_where_a_batch_was_finished() {
    let dir = tempfile::tempdir().unwrap();
    let run = |how: &str| {
        let command = command(how);
        let more = ["--attacks", "clean,square-30", "--batch", "10", "--retries", "0"];
        let call = call(&command, &more);
        let all = Command::cargo_bin("sora").unwrap().current_dir(&dir).args(call).output();
        all.unwrap()
    };
    // The number of classes takes one request, the digest of the clean answers two, and the clean
    // pass two more.
    for (how, states) in [("dies-at-4", 0), ("dies-at-5", 1), ("dies-at-8", 1)] {
        let failed = run(how);
        assert_eq!(failed.status.code(), Some(1), "{how}: {}", stderr(&failed));
        let left = files(dir.path());
        assert_eq!(left.len(), states, "{how}: {left:?}");
        assert!(left.iter().all(|name| name.starts_with("black-box-state-")), "{left:?}");
        for name in left {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}

#[test]
fn a_sweep_takes_attacks_without_gradients() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("sweep.json");
    let (command, out) = (command("logits"), record.to_str().unwrap());
    let usual = ["--dataset", "synthetic", "--epsilon", "8/255", "--limit", "6", "--out", out];
    let sweep = |more: &[&str]| {
        let call = [&["sweep", "--exec", &command][..], &usual, more].concat();
        Command::cargo_bin("sora").unwrap().current_dir(&dir).args(call).output().unwrap()
    };
    let done = sweep(&["--epsilons", "2/255,64/255"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let report: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let results = |at: usize| &report["epsilons"][at]["results"]["square-1000"];
    let correct = |at: usize| results(at)["correct"].as_u64().unwrap();
    assert!(correct(1) <= correct(0) && results(0)["queries"].is_u64(), "{report}");
    // Curves over steps and distances come from gradients.
    for curve in ["--steps", "--convergence", "--distances"] {
        let failed = sweep(&[curve, "--force"]);
        assert_eq!(failed.status.code(), Some(2), "{curve}: {}", stderr(&failed));
        let words = format!("{curve}: needs gradients");
        assert!(stderr(&failed).contains(&words), "{curve}: {}", stderr(&failed));
    }
    let failed = sweep(&["--attacks", "pgd-10", "--force"]);
    assert!(stderr(&failed).contains("'pgd-10' needs gradients"), "{}", stderr(&failed));
    // Nothing was begun for what was refused.
    assert_eq!(files(dir.path()), ["sweep.json", "sweep.svg"]);
}
