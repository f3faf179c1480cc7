//! `sora eval MODEL.onnx` gives the same figures as the exported network, and asks for what the
//! file does not say.

use std::fs;

use serde_json::Value;

use crate::cli::{refused, sora, stderr, train_short};

#[test]
fn an_exported_network_is_judged_as_it_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let (run, weights, model) =
        (dir.path().join("run"), dir.path().join("w.safetensors"), dir.path().join("m.onnx"));
    assert!(train_short(&run, &[]).status.success());
    fs::copy(run.join("model.safetensors"), &weights).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let out = sora(&["export", &text(&run), "--format", "onnx", "--out", &text(&model)]);
    assert!(out.status.success(), "{}", stderr(&out));

    let judge = |path: &std::path::Path, more: &[&str]| -> Value {
        let call = ["eval", &text(path), "--dataset", "synthetic", "--limit", "60", "--json"]
            .map(str::to_owned);
        let call: Vec<&str> = call.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let out = sora(&call);
        assert!(out.status.success(), "{}", stderr(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let attacks = ["--epsilon", "8/255", "--attacks", "clean,fgsm,pgd-10,apgd-t,square-100"];
    let (ours, onnx) = (judge(&weights, &attacks), judge(&model, &attacks));
    for (name, result) in ours["results"].as_object().unwrap() {
        let correct = |report: &Value| report["results"][name]["correct"].as_i64().unwrap();
        // Sums in another order may decide an image that lies on the border.
        assert!((result["correct"].as_i64().unwrap() - correct(&onnx)).abs() <= 1, "{name}");
    }
    let sha = |report: &Value| report["identity"]["weights"]["sha256"].as_str().unwrap().to_owned();
    assert_ne!(sha(&ours), sha(&onnx), "the file is what names an ONNX network");
    // Another normalisation is another network.
    let shifted =
        judge(&model, &[&attacks[..], &["--mean", "0.9,0.9,0.9", "--std", "1,1,1"]].concat());
    assert_ne!(shifted["identity"]["weights"], onnx["identity"]["weights"]);

    let model = text(&model);
    refused(&["eval", &model, "--dataset", "synthetic"], &["--epsilon is missing", "8/255"]);
    refused(&["eval", &model, "--epsilon", "8/255"], &["--dataset is missing"]);
    refused(
        &[
            "eval",
            &model,
            "--dataset",
            "synthetic",
            "--epsilon",
            "8/255",
            "--mean",
            "125",
            "--std",
            "63",
        ],
        &["divide by 255"],
    );
    refused(
        &["eval", &text(&weights), "--dataset", "synthetic", "--mean", "0.5"],
        &["--mean", "ONNX"],
    );
}

#[test]
fn a_file_that_is_no_network_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    fs::write(&path, b"no model").unwrap();
    let path = path.to_str().unwrap();
    refused(&["eval", path, "--dataset", "synthetic", "--epsilon", "8/255"], &["m.onnx", "ONNX"]);
}
