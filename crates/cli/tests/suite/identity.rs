//! Tests of a result's identity: no record replaces another, no results of another evaluation are
//! reused, and finished results are not lost.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::cli::{refused, sora, stderr, train_short};

fn trained(dir: &Path) -> std::path::PathBuf {
    let run = dir.join("run");
    let output = train_short(&run, &["--epochs", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    run
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_evaluation_has_a_record_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let at = run.to_str().unwrap();
    let call = ["eval", at, "--attacks", "clean,fgsm", "--json"];
    let first = json(&sora(&call));
    let eval = run.join("eval");
    let record = names(&eval);
    assert_eq!(record.len(), 1, "{record:?}");
    let identity = &first["identity"];
    assert_eq!(identity["weights"]["which"], "final", "{identity}");
    assert!(identity["weights"]["step"].is_u64() && identity["data"]["images"] == 50, "{identity}");
    let digest = identity["weights"]["sha256"].as_str().unwrap();
    assert_eq!(digest.len(), 64);
    let classes = &first["results"]["fgsm"]["by_class"];
    let sum = |key: &str| -> u64 {
        classes.as_array().unwrap().iter().map(|class| class[key].as_u64().unwrap()).sum()
    };
    assert_eq!(
        (sum("n"), sum("correct")),
        (50, first["results"]["fgsm"]["correct"].as_u64().unwrap())
    );

    // The same again is the same record; anything else is another.
    json(&sora(&call));
    assert_eq!(names(&eval), record);
    for (count, more) in [
        ["--limit", "20"],
        ["--seed", "1"],
        ["--epsilon", "8.001/255"],
        ["--attacks", "clean,fgsm,pgd-2"],
        ["--attacks", "clean,fgsm,pgd-2@2/255"],
        ["--target", "3"],
        ["--norm", "l2"],
    ]
    .iter()
    .enumerate()
    {
        let mut call = vec!["eval", at, "--json"];
        if more[0] != "--attacks" {
            call.extend(["--attacks", "clean,fgsm"]);
        }
        call.extend(more);
        if more[0] == "--norm" {
            call.extend(["--epsilon", "0.5"]);
        }
        json(&sora(&call));
        assert_eq!(names(&eval).len(), count + 2, "{more:?}: {:?}", names(&eval));
    }
}

#[test]
fn long_lists_of_attacks_have_records_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let list: Vec<String> = (1..40).map(|k| format!("pgd-{k}@0.00{k}")).collect();
    let list = format!("clean,{}", list.join(","));
    assert!(list.len() > 300);
    let call = ["eval", run.to_str().unwrap(), "--limit", "4", "--attacks", &list, "--json"];
    let report = json(&sora(&call));
    assert_eq!(report["results"].as_object().unwrap().len(), 40);
    assert_eq!(names(&run.join("eval")).len(), 1);
}

#[test]
fn a_result_that_cannot_be_kept_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let at = run.to_str().unwrap();
    // A file in the place of the folder: no right can write there, not even root's.
    fs::write(run.join("eval"), "mine").unwrap();
    let call = ["eval", at, "--attacks", "clean,fgsm", "--json"];
    let output = sora(&call);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["results"]["fgsm"]["accuracy"].is_number(), "{report}");
    let said = stderr(&output);
    let spare = said.split("the record is in ").nth(1).unwrap().split(" instead").next().unwrap();
    let mut kept: Value = serde_json::from_slice(&fs::read(spare).unwrap()).unwrap();
    let sum = kept.as_object_mut().unwrap().remove("sum");
    assert!(sum.unwrap().is_string(), "a file carries its digest");
    assert_eq!(kept, report);
    fs::remove_file(spare).unwrap();
    assert_eq!(fs::read_to_string(run.join("eval")).unwrap(), "mine");

    // Elsewhere it can be.
    let out = dir.path().join("new/record.json");
    let elsewhere = [&call[..], &["--out", out.to_str().unwrap()]].concat();
    let report = json(&sora(&elsewhere));
    let kept: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(kept["identity"], report["identity"]);
    // Again over its own, not over a stranger's.
    json(&sora(&elsewhere));
    fs::write(&out, "mine").unwrap();
    refused(&elsewhere, &["record.json", "--force"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
}

#[test]
fn a_state_that_is_none_stays_and_that_of_another_evaluation_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let (at, notes) = (run.to_str().unwrap(), dir.path().join("notes.txt"));
    let beside = dir.path().join("notes.txt.adv");
    fs::write(&notes, "important\n").unwrap();
    fs::write(&beside, "mine").unwrap();
    let state = notes.to_str().unwrap();
    let call = ["eval", at, "--attacks", "clean,fgsm", "--state", state, "--save-adv"];
    refused(&call, &["--state", "notes.txt", "not the state of an evaluation"]);
    refused(&[&call[..], &["--fresh"]].concat(), &["not the state of an evaluation"]);
    fs::remove_file(&notes).unwrap();
    refused(&call, &["notes.txt.adv", "not the state of an evaluation"]);
    assert_eq!(fs::read_to_string(&beside).unwrap(), "mine");
    assert!(names(dir.path()).contains(&"notes.txt.adv".to_owned()));
}

#[test]
fn pixels_are_not_taken_for_units_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let at = run.to_str().unwrap();
    let out = dir.path().join("never");
    let out = out.to_str().unwrap();
    let meant = "did you mean 8/255?";
    refused(&["eval", at, "--epsilon", "8"], &[meant]);
    refused(&["sweep", at, "--epsilons", "8"], &[meant]);
    refused(&["sweep", at, "--epsilons", "1..32"], &["did you mean 1/255?"]);
    refused(&["train", "--dataset", "synthetic", "--epsilon", "8", "--out", out], &[meant]);
    let file = dir.path().join("c.toml");
    fs::write(&file, "dataset = 'synthetic'\nepsilon = 8\n").unwrap();
    refused(&["train", "--config", file.to_str().unwrap(), "--out", out], &[meant]);
    let model = run.join("model.safetensors");
    let import =
        ["import", model.to_str().unwrap(), "--model", "x", "--epsilon", "8", "--out", out];
    refused(&import, &[meant]);
    assert!(!Path::new(out).exists());
    // In l2 it is a length.
    json(&sora(&["eval", at, "--norm", "l2", "--epsilon", "2", "--attacks", "clean", "--json"]));
}

#[test]
fn examples_for_files_and_attacks_towards_a_class() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(dir.path());
    let at = run.to_str().unwrap();
    let call = ["eval", at, "--attacks", "clean,pgd-5", "--json"];
    let rounded = json(&sora(&[&call[..], &["--eight-bit", "--epsilon", "0.9/255"]].concat()));
    // Nothing of eight bits lies within less than one level.
    assert_eq!(rounded["results"]["pgd-5"]["correct"], rounded["results"]["clean"]["correct"]);
    assert_eq!(rounded["identity"]["options"][0], "eight-bit");

    let rough = json(&sora(&[&call[..], &["--attack-precision", "bf16"]].concat()));
    assert_eq!(rough["identity"]["options"][0], "attacks in bf16");
    assert!(rough["notes"].to_string().contains("searched in bf16"), "{rough}");
    let plain = json(&sora(&[&call[..], &["--attack-precision", "f32"]].concat()));
    assert_eq!(plain["identity"]["options"].as_array().unwrap().len(), 0);
    assert_eq!(rough["results"]["clean"]["correct"], plain["results"]["clean"]["correct"]);
    let [rough, plain] = [rough, plain].map(|r| r["results"]["pgd-5"]["correct"].as_u64().unwrap());
    assert!(rough.abs_diff(plain) <= 1, "{rough} {plain}");
    refused(&[&call[..], &["--attack-precision", "tf32"]].concat(), &["tf32"]);

    let toward = json(&sora(&[&call[..], &["--target", "1"]].concat()));
    assert!(toward["n"].as_u64().unwrap() < 50, "{toward}");
    assert!(toward["notes"].to_string().contains("class 1"), "{toward}");
    let correct = |name: &str| toward["results"][name]["correct"].as_u64().unwrap();
    assert!(correct("pgd-5") <= correct("clean"));
    refused(&[&call[..], &["--target", "11"]].concat(), &["target class 11", "10 classes"]);
    refused(&[&call[..], &["--target", "cat"]].concat(), &["--target 'cat'"]);

    let sweep = json(&sora(&["sweep", at, "--distances", "--limit", "10", "--json"]));
    let curve = sweep["distances"]["curve"].as_array().unwrap();
    let accuracy = |at: &Value| at["accuracy"].as_f64().unwrap();
    assert!(curve.len() == 32 && curve.is_sorted_by(|a, b| accuracy(a) >= accuracy(b)), "{sweep}");
}
