//! The command line as a user meets it: good calls, bad calls, damaged data, folders that cannot be
//! written.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Output,
};

use assert_cmd::Command;

/// Runs `sora` with the words of `call`.
pub fn sora(call: &[&str]) -> Output {
    Command::cargo_bin("sora")
        .unwrap()
        .args(call)
        .env_remove("RUST_LOG")
        .env_remove("SORA_DATA")
        .output()
        .unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts exit status 2 and one line that holds every part.
#[track_caller]
pub fn refused(call: &[&str], parts: &[&str]) -> String {
    let output = sora(call);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{call:?}: {text}");
    assert!(!text.contains("panicked"), "{call:?}: {text}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{call:?}: {text}");
    // clap spreads its own messages over some lines; ours are one.
    for part in parts {
        assert!(text.contains(part), "{call:?}: no '{part}' in: {text}");
    }
    text
}

/// Flags of a run of a few seconds.
pub const SHORT: &[&str] = &[
    "--dataset",
    "synthetic",
    "--image-size",
    "8",
    "--width",
    "4",
    "--limit-train",
    "260",
    "--limit-test",
    "50",
    "--val",
    "20",
    "--batch",
    "40",
    "--epochs",
    "2",
    "--seed",
    "7",
];

pub fn train_short(out: &Path, more: &[&str]) -> Output {
    let out = out.to_str().unwrap();
    sora(&[&["train", "--out", out], SHORT, more].concat())
}

#[test]
fn bad_calls_are_refused_with_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    let train =
        |more: &[&'static str]| [&["train", "--dataset", "synthetic", "--out", out], more].concat();
    for (call, parts) in [
        (train(&["--method", "sorra"]), &["'sorra'", "did you mean sora"][..]),
        (train(&["--model", "vgg"]), &["'vgg'", "did you mean vgg16-bn"]),
        (train(&["--epsilon", "8/"]), &["'8/'", "8/255"]),
        (train(&["--epsilon", "-1"]), &["epsilon"]),
        (train(&["--epochs", "0"]), &["--epochs 0", "expected 1"]),
        (train(&["--batch", "0"]), &["--batch 0"]),
        (train(&["--width", "0"]), &["--width 0"]),
        (train(&["--norm", "l1"]), &["l1", "linf"]),
        (train(&["--method", "fgsm", "--norm", "l2"]), &["fgsm", "l2", "sora"]),
        (train(&["--set", "gamma=1"]), &["--set gamma=1", "alpha_max", "beta"]),
        (train(&["--set", "beta"]), &["key=value"]),
        (train(&["--set", "beta=2"]), &["beta=2", "0 to 1"]),
        (train(&["--set", "r=often"]), &["sora", "pixel"]),
        (train(&["--method", "fgsm", "--set", "beta=1"]), &["no options"]),
        (train(&["--device", "tpu"]), &["'tpu'", "cpu"]),
        (train(&["--device", "cuda:x"]), &["cuda:0"]),
        (train(&["--dataset", "no-such-set"]), &["no-such-set"]),
        (train(&["--dataset", "folder:/no/such/folder"]), &["/no/such/folder"]),
        (train(&["--augment", "spin"]), &["spin"]),
        (train(&["--config", "/no/such.toml"]), &["/no/such.toml"]),
        (
            train(&["--dataset", "synthetic", "--limit-train", "50", "--val", "50"]),
            &["--val 50", "50 images"],
        ),
        (
            train(&["--dataset", "synthetic", "--limit-train", "50", "--val", "0"]),
            &["--batch 128", "50"],
        ),
        (train(&["--dataset", "synthetic", "--limit-train", "0"]), &["--limit-train 0"]),
        (vec!["resume", "/no/such/run"], &["/no/such/run", "not a run folder"]),
        (vec!["eval", "/no/such/model.safetensors"], &["/no/such/model.safetensors"]),
        (vec!["data", "info", "no-such-set"], &["no-such-set"]),
        (vec!["data", "fetch", "no-such-set"], &["no-such-set", "sora data list"]),
        (vec!["bench", "step", "--steps", "0"], &["--steps"]),
        (vec!["bench", "step", "--method", "sora,fgsm", "--set", "beta=0.1"], &["no options"]),
        (vec!["bench", "step", "--method", "pgd", "--set", "steps=0"], &["steps=0", "1 to 1000"]),
        (vec!["bench", "step", "--norm", "l1"], &["l1", "l2"]),
        (vec!["frobnicate"], &["frobnicate"]),
        (vec!["train"], &["--out"]),
    ] {
        refused(&call, parts);
        assert!(!Path::new(out).exists(), "{call:?} left a folder behind");
    }
}

#[test]
fn a_missing_data_set_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    refused(
        &["train", "--dataset", "mnist", "--data-dir", data, "--out", out],
        &["mnist", "sora data fetch mnist"],
    );
    refused(
        &["train", "--dataset", "cifar10", "--data-dir", data, "--out", out],
        &["sora data fetch cifar10"],
    );
}

#[test]
fn damaged_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("mnist");
    fs::create_dir_all(&set).unwrap();
    // Whole files of the official size are mostly a hole.
    let write = |file: &str, header: &[u8], len: u64, last: u8| {
        let mut out = fs::File::create(set.join(file)).unwrap();
        out.write_all(header).unwrap();
        out.seek(SeekFrom::Start(len - 1)).unwrap();
        out.write_all(&[last]).unwrap();
    };
    let images = |file: &str, kind: u8, n: u32, len: u64| {
        write(
            file,
            &[&[0, 0, 8, kind][..], &n.to_be_bytes(), &28u32.to_be_bytes(), &28u32.to_be_bytes()]
                .concat(),
            len,
            1,
        );
    };
    let labels = |file: &str, n: u32, last: u8| {
        write(file, &[&[0, 0, 8, 1][..], &n.to_be_bytes()].concat(), u64::from(n) + 8, last)
    };
    let out = dir.path().join("run");
    let check = |parts: &[&str]| {
        refused(
            &[
                "train",
                "--dataset",
                "mnist",
                "--data-dir",
                dir.path().to_str().unwrap(),
                "--out",
                out.to_str().unwrap(),
            ],
            parts,
        );
        assert!(!out.exists());
    };
    let (train, train_labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    let whole = 16 + 60_000 * 784;
    images("t10k-images-idx3-ubyte", 3, 10_000, 16 + 10_000 * 784);
    labels("t10k-labels-idx1-ubyte", 10_000, 9);
    labels(train_labels, 60_000, 9);
    images(train, 3, 60_000, whole - 1);
    check(&[train]);
    images(train, 4, 60_000, whole);
    check(&[train]);
    images(train, 3, u32::MAX, whole);
    check(&[train]);
    images(train, 3, 60_000, whole);
    labels(train_labels, 60_000, 10);
    check(&[train_labels, "10"]);
    labels(train_labels, 60_000, 9);
    // A gzipped file that is cut off.
    fs::remove_file(set.join(train)).unwrap();
    fs::write(set.join("train-images-idx3-ubyte.gz"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x63])
        .unwrap();
    check(&["train-images-idx3-ubyte.gz"]);
}

#[test]
fn an_image_folder_with_an_empty_class_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["train/cat", "train/dog", "test/cat", "test/dog"] {
        fs::create_dir_all(dir.path().join(class)).unwrap();
    }
    let folder = format!("folder:{}", dir.path().display());
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    refused(
        &[
            "train",
            "--dataset",
            &folder,
            "--data-dir",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ],
        &["cat"],
    );
}

#[test]
fn an_output_folder_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for out in [file.clone(), file.join("below"), dir.path().to_owned()] {
        let output = train_short(&out, &[]);
        assert_eq!(output.status.code(), Some(2), "{}: {}", out.display(), stderr(&output));
        assert!(stderr(&output).contains("--out"), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn train_then_evaluate_a_run_and_its_weights_file() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = train_short(&run, &["--method", "n-fgsm"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "results go to the folder, logs to standard error");

    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 12, "6 steps an epoch");
    for line in metrics.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in [
            "step",
            "epoch",
            "loss",
            "adv_acc",
            "lr",
            "alpha",
            "linearity",
            "pert_align",
            "delta_mean",
            "images_per_s",
        ] {
            assert!(line[key].is_number(), "{key} in {line}");
        }
    }
    let epochs = fs::read_to_string(run.join("epochs.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(epochs.lines().last().unwrap()).unwrap();
    assert_eq!(last["epoch"], 1);
    assert!(
        last["co"].is_null()
            && last["val"]["pgd"]["accuracy"].is_number()
            && last["peak_rss_mib"].is_number(),
        "{last}"
    );

    // config.toml starts the same run again.
    let again = dir.path().join("again");
    let config = run.join("config.toml");
    let output =
        sora(&["train", "--config", config.to_str().unwrap(), "--out", again.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        fs::read(run.join("model.safetensors")).unwrap()
            == fs::read(again.join("model.safetensors")).unwrap(),
        "the same weights"
    );
    let output = train_short(&run, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("resume it"), "{}", stderr(&output));

    let json = |call: &[&str]| -> serde_json::Value {
        let output = sora(call);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).lines().count(),
            1,
            "one JSON object, nothing else"
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let of_run = json(&[
        "eval",
        run.to_str().unwrap(),
        "--json",
        "--attacks",
        "clean,fgsm,pgd-3x2",
        "--batch",
        "16",
    ]);
    for key in ["dataset", "split", "n", "epsilon", "norm", "seed", "results", "warnings"] {
        assert!(!of_run[key].is_null(), "{key} in {of_run}");
    }
    assert_eq!(
        (&of_run["n"], &of_run["norm"], &of_run["split"]),
        (&50.into(), &"linf".into(), &"test".into())
    );
    let accuracy = |report: &serde_json::Value, name: &str| {
        report["results"][name]["accuracy"].as_f64().unwrap()
    };
    assert!(accuracy(&of_run, "clean") >= accuracy(&of_run, "fgsm"));
    assert_eq!(fs::read_dir(run.join("eval")).unwrap().count(), 1);

    // The weights file alone says which network and data set it belongs to.
    let weights = run.join("model.safetensors");
    let of_file = json(&[
        "eval",
        weights.to_str().unwrap(),
        "--json",
        "--attacks",
        "clean",
        "--limit",
        "50",
        "--seed",
        "7",
    ]);
    assert_eq!(
        (&of_file["dataset"], &of_file["n"], &of_file["epsilon"]),
        (&of_run["dataset"], &50.into(), &of_run["epsilon"])
    );
    if Path::new("/usr/share/datasets/fashion-mnist").exists() {
        refused(
            &["eval", weights.to_str().unwrap(), "--dataset", "fashion-mnist"],
            &["1x28x28", "3x8x8"],
        );
    }

    let at_zero = json(&[
        "eval",
        run.to_str().unwrap(),
        "--json",
        "--epsilon",
        "0",
        "--attacks",
        "clean,fgsm,pgd-2",
    ]);
    assert_eq!(accuracy(&at_zero, "clean"), accuracy(&at_zero, "pgd-2"), "no room, no harm");
    refused(
        &["eval", run.to_str().unwrap(), "--attacks", "clean,magic"],
        &["'magic'", "sora attacks"],
    );
    refused(&["eval", run.to_str().unwrap(), "--norm", "l2"], &["--epsilon"]);
}

#[test]
fn an_image_folder_trains_from_a_relative_path_and_resumes_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    for (split, count) in [("train", 12), ("test", 4)] {
        for (class, shade) in [("dark", 40u8), ("light", 200u8)] {
            let folder = dir.path().join("images").join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let path = folder.join(format!("{i:03}.png"));
                image::RgbImage::from_fn(20, 16, |x, y| {
                    image::Rgb([shade.wrapping_add((x * y + i) as u8 % 30); 3])
                })
                .save(&path)
                .unwrap();
            }
        }
    }
    let train = |more: &[&str]| {
        let call = [
            "train",
            "--dataset",
            "images",
            "--width",
            "4",
            "--batch",
            "8",
            "--epochs",
            "1",
            "--val",
            "2",
            "--data-dir",
            "cache",
            "--out",
            "run",
        ];
        Command::cargo_bin("sora")
            .unwrap()
            .args(call)
            .args(more)
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let output = train(&["--image-size", "12"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let run = dir.path().join("run");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    for path in ["images", "cache"] {
        assert!(
            config.contains(dir.path().join(path).to_str().unwrap()),
            "{path} is absolute in {config}"
        );
    }
    let output = sora(&["resume", run.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = sora(&["eval", run.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["n"], 8);
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let output = Command::cargo_bin("sora")
        .unwrap()
        .args(["bench", "step"])
        .env("SORA_ISA", "sse9")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("SORA_ISA") && stderr(&output).contains("avx2"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_timed_step_has_the_options_and_the_norm_that_were_asked_for() {
    let small = ["--width", "4", "--batch", "8", "--image-size", "8", "--steps", "1"];
    let timed = |more: &[&str]| -> serde_json::Value {
        let call = &["bench", "step", "--method", "pgd"][..];
        let output = sora(&[call, &small, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = timed(&[]);
    assert_eq!(plain["norm"], "linf");
    assert_eq!(plain["method_options"]["steps"], 10);
    let given = timed(&["--norm", "l2", "--set", "steps=2", "--set", "alpha=1"]);
    assert_eq!(given["norm"], "l2");
    assert_eq!(given["method_options"]["steps"], 2);
    assert_eq!(given["method_options"]["alpha"], 1.0);
}

#[test]
fn lists_are_complete_in_text_and_json() {
    for (command, names) in [
        ("methods", &["sora", "n-fgsm", "pgd-2"][..]),
        ("models", &["preact-resnet18"]),
        ("attacks", &["fgsm", "pgd-K"]),
    ] {
        let text = sora(&[command]);
        let json = sora(&[command, "--json"]);
        assert!(text.status.success() && json.status.success());
        let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        for name in names {
            assert!(text.contains(name), "{command}: {name}");
            assert!(
                value.as_object().unwrap().keys().any(|key| key.starts_with(name)),
                "{command}: {name}"
            );
        }
    }
    let list = sora(&["data", "list"]);
    let text = String::from_utf8(list.stdout).unwrap();
    for name in [
        "fashion-mnist",
        "mnist",
        "cifar10",
        "cifar100",
        "svhn",
        "pathmnist",
        "tiny-imagenet",
        "imagenet100",
        "synthetic",
    ] {
        assert!(text.contains(name), "{name}");
    }
    let info = sora(&["data", "info", "cifar10"]);
    assert!(String::from_utf8(info.stdout).unwrap().contains("SHA-256"));
}

#[test]
fn a_step_is_timed_with_the_usual_keys() {
    let call = [
        "bench",
        "step",
        "--width",
        "4",
        "--batch",
        "8",
        "--image-size",
        "8",
        "--steps",
        "1",
        "--method",
        "fgsm",
    ];
    let output = sora(&call);
    assert!(output.status.success(), "{}", stderr(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in [
        "median_s",
        "min_s",
        "images_per_s",
        "peak_rss_mib",
        "threads",
        "isa",
        "method",
        "width",
        "batch",
        "precision",
    ] {
        assert!(!value[key].is_null(), "{key} in {value}");
    }
}
