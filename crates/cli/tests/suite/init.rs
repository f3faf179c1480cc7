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

#[test]
fn other_classes_get_a_new_head_and_other_networks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    train(&first, &[NETWORK, &["--epochs", "1"]].concat());
    for (split, n) in [("train", 20_u8), ("test", 4)] {
        for class in 0..2_u8 {
            let folder = dir.path().join(format!("pets/{split}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let image = image::RgbImage::from_fn(8, 8, |x, y| {
                    image::Rgb([120 * class, x as u8 * 30, y as u8 * 8 + i])
                });
                image.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
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
