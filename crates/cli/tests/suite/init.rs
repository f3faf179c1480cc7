//! Trainings that begin with the weights of another one (`--init`).

use std::{fs, path::Path};

use crate::cli::{refused, sora, stderr};

const SHORT: &[&str] = &[
    "--image-size",
    "8",
    "--batch",
    "10",
    "--limit-train",
    "60",
    "--limit-test",
    "20",
    "--val",
    "0",
    "--augment",
    "none",
];

/// Trains on synthetic images and returns what was said.
#[track_caller]
fn train(out: &Path, more: &[&str]) -> String {
    let usual = ["train", "--dataset", "synthetic", "--out", out.to_str().unwrap()];
    let output = sora(&[&usual[..], SHORT, more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model.safetensors")).unwrap()
}

const NETWORK: &[&str] = &["--model", "mnist-cnn", "--width", "4"];

#[test]
fn a_training_begins_with_the_weights_of_another_and_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (first, second) = (at("first"), at("second"));
    train(&first, &[NETWORK, &["--epochs", "2", "--lr-max", "0.05"]].concat());
    // The network is that of the weights. A rate of almost 0 leaves them as they are.
    let init = first.to_str().unwrap();
    let still = ["--init", init, "--epochs", "1", "--lr-max", "1e-30", "--momentum", "0"];
    train(&at("still"), &[&still[..], &["--weight-decay", "0"]].concat());
    let tensors = |run: &Path| {
        let bytes = weights(run);
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[header..].to_vec()
    };
    assert!(tensors(&first) == tensors(&at("still")));

    train(&second, &["--init", init, "--epochs", "2", "--lr-max", "0.01"]);
    let config = fs::read_to_string(second.join("config.toml")).unwrap();
    assert!(config.contains("model = \"mnist-cnn\"") && config.contains("init_sha256"), "{config}");
    // Killed before its first checkpoint, it takes the same weights again.
    let whole = weights(&second);
    let begin_anew = || {
        for checkpoint in fs::read_dir(second.join("checkpoints")).unwrap() {
            fs::remove_dir_all(checkpoint.unwrap().path()).unwrap();
        }
        fs::remove_file(second.join("model.safetensors")).unwrap();
        fs::remove_file(second.join("summary.json")).ok();
    };
    begin_anew();
    let output = sora(&["resume", second.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(whole == weights(&second), "weights differ");
    // Other weights in their place are no beginning of this run.
    begin_anew();
    fs::copy(at("still").join("model.safetensors"), first.join("model.safetensors")).unwrap();
    let output = sora(&["resume", second.to_str().unwrap()]);
    assert!(output.status.success(), "the same tensors: {}", stderr(&output));
    begin_anew();
    train(&at("other"), &[NETWORK, &["--seed", "5", "--epochs", "1"]].concat());
    fs::copy(at("other").join("model.safetensors"), first.join("model.safetensors")).unwrap();
    refused(&["resume", second.to_str().unwrap()], &["not the weights that the run began with"]);
}

/// Makes the image folder DIR/pets with two classes.
fn make_pets(dir: &Path, side: u32) {
    for (split, n) in [("train", 20_u8), ("test", 4)] {
        for class in 0..2_u8 {
            let folder = dir.join(format!("pets/{split}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let image = image::RgbImage::from_fn(side, side, |x, y| {
                    image::Rgb([120 * class, x as u8 * 15, y as u8 * 8 + i])
                });
                image.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn other_classes_get_a_new_head_and_other_networks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    train(&first, &[NETWORK, &["--epochs", "1"]].concat());
    make_pets(dir.path(), 8);
    let (init, pets) = (first.to_str().unwrap(), dir.path().join("pets"));
    let (pets, out) = (format!("folder:{}", pets.display()), dir.path().join("second"));
    let call = ["train", "--dataset", &pets, "--init", init, "--out", out.to_str().unwrap()];
    let short = ["--batch", "8", "--val", "0", "--augment", "none", "--epochs", "1"];
    refused(&[&call[..], &short, &["--model", "resnet18"]].concat(), &["mnist-cnn", "--model"]);
    assert!(!out.exists());
    let output = sora(&[&call[..], &short].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("a new head for 2 classes"), "{}", stderr(&output));
    let output = sora(&["eval", out.to_str().unwrap(), "--attacks", "clean"]);
    assert!(output.status.success(), "{}", stderr(&output));
    refused(&[&call[..3], &["--init", "nowhere", "--out", "x"]].concat(), &["nowhere"]);
    refused(&[&call[..3], &["--init", "w.pt", "--out", "x"]].concat(), &["import it first"]);
}

/// Writes the network `name` of `scripts/onnx/small.py` to a file.
fn onnx(dir: &Path, name: &str) -> String {
    let golden = crate::support::path("crates/onnx/tests/golden/small.safetensors");
    let bytes = fs::read(golden).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let file = dir.join(format!("{name}.onnx"));
    fs::write(&file, tensors.tensor(&format!("{name}.model")).unwrap().data()).unwrap();
    file.to_str().unwrap().to_owned()
}

const GRAPH: &[&str] = &[
    "train",
    "--dataset",
    "synthetic",
    "--image-size",
    "16",
    "--batch",
    "20",
    "--limit-train",
    "120",
    "--limit-test",
    "40",
    "--val",
    "20",
    "--lr-max",
    "0.05",
];

#[test]
fn the_graph_of_an_onnx_file_trains_goes_on_and_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let init = onnx(dir.path(), "pre-activation");
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (whole, part, out) = (text("whole"), text("part"), text("out.onnx"));
    let begin = |run: &str, epochs: &str| {
        let more = ["--init", &init, "--epochs", epochs, "--ema", "0.9", "--out", run];
        let output = sora(&[GRAPH, &more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let told = begin(&whole, "2");
    for part in ["10 tensors", "a batch norm keeps its", "it normalises images itself"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(told.contains("the network of pre-activation.onnx"), "{told}");
    // Without its last checkpoint it goes on from the one before, to the same bits.
    begin(&part, "2");
    let mut checkpoints: Vec<_> = fs::read_dir(dir.path().join("part/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    fs::remove_dir_all(checkpoints.pop().unwrap()).unwrap();
    fs::remove_file(dir.path().join("part/model.safetensors")).unwrap();
    // The run has its graph: the file is needed for a beginning only.
    fs::rename(&init, text("moved.onnx")).unwrap();
    let output = sora(&["resume", &part]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(weights(&dir.path().join("whole")) == weights(&dir.path().join("part")));
    fs::rename(text("moved.onnx"), &init).unwrap();

    let judged = |subject: &str| -> serde_json::Value {
        let call = ["eval", subject, "--epsilon", "8/255", "--attacks", "clean,fgsm", "--json"];
        let data = ["--dataset", "synthetic", "--limit", "40"];
        let output = sora(&[&call[..], &data].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["results"].clone()
    };
    let output = sora(&["export", &whole, "--format", "onnx", "--out", &out]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (run, file) = (judged(&whole), judged(&out));
    for attack in ["clean", "fgsm"] {
        let correct = |found: &serde_json::Value| found[attack]["correct"].as_i64().unwrap();
        assert!((correct(&run) - correct(&file)).abs() <= 1, "{run} {file}");
    }
    // A report knows the evaluation of such a run as the run's own.
    let page = text("page");
    for call in [&["eval", &whole, "--attacks", "clean"][..], &["report", &whole, "--out", &page]] {
        let output = sora(call);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let html = fs::read_to_string(dir.path().join("page/report.html")).unwrap();
    assert!(html.contains("At a glance") && !html.contains("Not measured yet"));
    // A run of such a network is a beginning, too.
    let again = ["--init", &whole, "--epochs", "1", "--out", &text("again")];
    let output = sora(&[GRAPH, &again].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn the_graph_of_an_onnx_file_gets_a_new_head_and_what_it_cannot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let init = onnx(dir.path(), "transformer");
    make_pets(dir.path(), 16);
    let (pets, out) =
        (format!("folder:{}", dir.path().join("pets").display()), dir.path().join("r"));
    let short =
        ["--batch", "8", "--val", "0", "--augment", "none", "--epochs", "1", "--lr", "0.01"];
    let call = ["train", "--dataset", &pets, "--init", &init, "--out", out.to_str().unwrap()];
    let call = [&call[..], &short].concat();
    let refuse = |more: &[&str], parts: &[&str]| {
        refused(&[&call[..], more].concat(), parts);
        assert!(!out.exists(), "{more:?}");
    };
    refuse(&["--model", "resnet18"], &["--model resnet18", "brings its own network"]);
    refuse(&["--method", "gradalign"], &["gradalign", "choose another method"]);
    refuse(&["--on-co", "rollback", "--on-co-method", "gradalign"], &["--on-co-method"]);
    refuse(&["--precision", "bf16"], &["--precision", "f32"]);
    refuse(&["--width", "8"], &["--width", "what the file says"]);
    refuse(&["--dropout", "0.1"], &["--dropout", "what the file says"]);
    refuse(&["--mean", "0.5,0.5,0.5"], &["--mean", "--std"]);
    refuse(&["--mean", "125,125,125", "--std", "63,63,63"], &["divide by 255"]);
    refuse(&["--mean", "0.5", "--std", "0.5"], &["mean", "3 channels"]);
    let plain = ["train", "--dataset", "synthetic", "--out", out.to_str().unwrap()];
    refused(&[&plain[..], &["--model", "onnx"]].concat(), &["--model onnx", "--init"]);
    refused(&[&plain[..], &["--mean", "0.5", "--std", "0.5"]].concat(), &["--mean", "ONNX"]);
    let wrong = ["--init", &init, "--image-size", "8"];
    refused(&[&plain[..], &wrong].concat(), &["16 pixels", "not 8"]);
    let quantised = onnx(dir.path(), "quantised");
    let wrong = ["--init", &quantised, "--image-size", "16"];
    refused(&[&plain[..], &wrong].concat(), &["cannot be trained", "quantised network"]);
    assert!(!out.exists());

    let output = sora(&[&call[..], &["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("a new head for 2 classes: head.weight, head.bias"), "{told}");
    assert!(told.contains("images are normalised before it"), "{told}");
    let output = sora(&["eval", out.to_str().unwrap(), "--attacks", "clean"]);
    assert!(output.status.success(), "{}", stderr(&output));
}
