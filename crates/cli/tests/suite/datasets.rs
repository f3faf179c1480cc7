//! Data sets through the command line: images decoded on demand, what cannot be trained on, the
//! loader's own timing.

use std::{fs, path::Path};

use image::{Rgb, RgbImage};

use crate::cli::{sora, stderr};

/// Three classes of pictures of different sizes.
pub fn photos(root: &Path) {
    for class in 0..3u8 {
        for (split, n) in [("train", 24), ("val", 6)] {
            let folder = root.join(split).join(format!("class-{class}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let picture = RgbImage::from_fn(20 + i % 7, 26 - i % 5, |x, y| {
                    Rgb([80 * class + (x * 3) as u8, (y * 5 + i) as u8, 255 - 60 * class])
                });
                picture.save(folder.join(format!("{i}.jpg"))).unwrap();
            }
        }
    }
}

#[test]
fn photographs_are_trained_on_resumed_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let dataset = format!("imagefolder:{}", dir.path().join("photos").display());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let train = |out: &str| {
        let call = [
            "train",
            "--dataset",
            &dataset,
            "--image-size",
            "16",
            "--width",
            "4",
            "--batch",
            "8",
            "--epochs",
            "2",
            "--val",
            "6",
        ];
        let output =
            sora(&[&call[..], &["--seed", "3", "--checkpoint-steps", "3", "--out", out]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    train(&path("whole"));
    // Taken up in the middle of the last epoch: the same weights.
    train(&path("broken"));
    let checkpoints = dir.path().join("broken/checkpoints");
    let mut names: Vec<_> =
        fs::read_dir(&checkpoints).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let last = names.pop().unwrap();
    let state = fs::read_to_string(names.last().unwrap().join("state.json")).unwrap();
    assert!(
        !state.contains("\"batch\": 0,"),
        "the one before the last is within an epoch: {state}"
    );
    fs::remove_dir_all(last).unwrap();
    fs::remove_file(dir.path().join("broken/model.safetensors")).unwrap();
    let output = sora(&["resume", &path("broken")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let weights = |run: &str| fs::read(dir.path().join(run).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("broken"), "weights differ");

    let output = sora(&["eval", &path("whole"), "--attacks", "clean,fgsm", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["n"], 18);
    // The run with its set named again, and its weights file alone: the network knows its input.
    let weights_file = dir.path().join("whole/model.safetensors");
    for subject in [path("whole"), weights_file.to_str().unwrap().to_owned()] {
        let call = ["eval", &subject, "--attacks", "clean,fgsm", "--dataset", &dataset, "--json"];
        let output = sora(&call);
        assert!(output.status.success(), "{}", stderr(&output));
        let again: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(again["results"]["fgsm"]["correct"], report["results"]["fgsm"]["correct"]);
        assert_eq!(again["identity"]["data"], report["identity"]["data"]);
    }

    // A picture that breaks later is named, with exit status 2.
    fs::write(dir.path().join("photos/val/class-1/3.jpg"), b"broken").unwrap();
    let output = sora(&["eval", &path("whole"), "--attacks", "clean"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("class-1/3.jpg: found no image format"),
        "{}",
        stderr(&output)
    );
}

/// Grey pictures of 16x16 in `root/SPLIT/CLASS/`, the same for the same number.
fn shades(root: &Path, split: &str, class: &str, numbers: std::ops::Range<u8>) {
    let folder = root.join(split).join(class);
    fs::create_dir_all(&folder).unwrap();
    for i in numbers {
        let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([i, (x * 9) as u8, (y * 7) as u8]));
        picture.save(folder.join(format!("{i}.png"))).unwrap();
    }
}

#[test]
fn extra_data_are_mixed_in_by_the_names_of_their_classes_and_never_judged_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    for (class, first) in [("ant", 0), ("bee", 100)] {
        shades(&path("own"), "train", class, first..first + 30);
        shades(&path("own"), "test", class, first + 30..first + 40);
    }
    // No test folder, one class only, the second of the set; 20 of the test images are among them.
    shades(&path("more"), "train", "bee", 130..180);
    shades(&path("more"), "train", "ant", 30..40);
    shades(&path("others"), "train", "bee", 0..9);
    shades(&path("others"), "train", "cat", 0..9);
    let train = |out: &str, extra: &str, more: &[&str]| {
        let (own, out) = (format!("folder:{}", text("own")), text(out));
        let call = ["train", "--dataset", &own, "--model", "mnist-cnn", "--width", "4", "--batch"];
        let call = [&call[..], &["8", "--epochs", "2", "--val", "12", "--data-dir"]].concat();
        let data_dir = text("data");
        let call = [&call[..], &[&data_dir, "--out", &out, "--extra-data", extra], more].concat();
        sora(&call)
    };
    let output = train("run", &format!("folder:{}", text("more")), &["--extra-fraction", "0.25"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("20 of 60 images are also among the validation or test images"),
        "{said}"
    );
    assert!(said.contains("0.25 of each batch from folder:"), "{said}");
    let config = fs::read_to_string(path("run/config.toml")).unwrap();
    for line in ["extra_fraction = 0.25", "steps_per_epoch = 8", "[extra]", "images = 40"] {
        assert!(config.contains(line), "{line}: {config}");
    }
    // The weights know it, without the place.
    let weights = fs::read(path("run/model.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&weights).contains(r#"\"extra\":\"folder:more\""#));
    let output =
        sora(&["report", &text("run"), "--out", &text("report"), "--data-dir", &text("data")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = fs::read_to_string(path("report/report.html")).unwrap();
    assert!(page.contains("with extra data, 0.25 of each batch from folder more"));
    assert!(!page.contains(dir.path().to_str().unwrap()));

    for (extra, more, parts) in [
        (text("others"), &[][..], &["--extra-data", "'cat'", "ant, bee"][..]),
        (text("more"), &["--extra-fraction", "1.5"], &["--extra-fraction 1.5", "below 1"]),
        ("synthetic".into(), &[], &["--extra-data synthetic", "3x32x32", "--image-size"]),
    ] {
        let output = train("none", &extra, more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(!path("none").exists());
    }
}

#[test]
fn the_loader_is_timed_and_sets_are_described() {
    let output = sora(&[
        "bench",
        "data",
        "--dataset",
        "synthetic",
        "--batch",
        "16",
        "--batches",
        "3",
        "--limit-train",
        "64",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((value["on_demand"].as_bool(), value["train"].as_u64()), (Some(false), Some(64)));
    assert!(
        value["images_per_s"].as_f64().unwrap() > 0.0 && value["peak_rss_mib"].as_u64().is_some()
    );

    for (name, part) in [
        ("organamnist-224", "organamnist_224.npz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("imagenet", "1281167 train"),
        ("chestmnist", "any of 14 findings"),
    ] {
        let output = sora(&["data", "info", name]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(part), "{name}: {text}");
    }
}

/// A JPEG whose EXIF segment says that it is to be turned by a quarter.
fn turned(picture: &RgbImage) -> Vec<u8> {
    let mut plain = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut plain, image::ImageFormat::Jpeg).unwrap();
    let plain = plain.into_inner();
    let tag: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let exif = [b"Exif\0\0", tag].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat()
}

#[test]
fn the_orientation_of_photographs_is_a_setting_and_part_of_what_a_run_is() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("photos");
    for class in 0..2u8 {
        for split in ["train", "test"] {
            let folder = images.join(split).join(format!("class-{class}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..8u8 {
                let at = |x, y| Rgb([90 * class + (x * 9) as u8, (y * 2) as u8 + i, 30]);
                let picture = RgbImage::from_fn(8, 8, at);
                fs::write(folder.join(format!("{i}.jpg")), turned(&picture)).unwrap();
            }
        }
    }
    let dataset = format!("folder:{}", images.display());
    let train = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let call = ["train", "--dataset", &dataset, "--model", "mnist-cnn", "--width", "2"];
        let rest = ["--batch", "8", "--epochs", "1", "--val", "0", "--out", out.to_str().unwrap()];
        let output = sora(&[&call[..], &rest, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        out
    };
    let [stored, exif] =
        [("stored", &[][..]), ("exif", &["--orientation", "exif"])].map(|(n, m)| train(n, m));
    let digest = |run: &Path| {
        let report = sora(&["eval", run.to_str().unwrap(), "--attacks", "clean", "--json"]);
        assert!(report.status.success(), "{}", stderr(&report));
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        report["identity"]["data"]["sha256"].clone()
    };
    let own = digest(&exif);
    assert_ne!(digest(&stored), own);
    let config = fs::read_to_string(exif.join("config.toml")).unwrap();
    assert!(config.contains("orientation = \"exif\""), "{config}");
    // A weights file alone knows it, and does not say where the images lie.
    let alone = dir.path().join("alone.safetensors");
    fs::copy(exif.join("model.safetensors"), &alone).unwrap();
    let bytes = fs::read(&alone).unwrap();
    let place = dir.path().to_str().unwrap().as_bytes();
    assert!(!bytes.windows(place.len()).any(|part| part == place), "a path of the machine");
    let alone = alone.to_str().unwrap();
    let output = sora(&["eval", alone, "--attacks", "clean"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--dataset is missing"), "{}", stderr(&output));
    assert!(stderr(&output).contains("'photos'"), "{}", stderr(&output));
    let output = sora(&["eval", alone, "--attacks", "clean", "--dataset", &dataset, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["identity"]["data"]["sha256"], own);
    // Within its run folder it finds them.
    let inside = exif.join("model.safetensors");
    assert_eq!(digest(&inside), own);
    let output = sora(&["train", "--dataset", &dataset, "--orientation", "up", "--out", "x"]);
    assert_eq!(output.status.code(), Some(2));
}
