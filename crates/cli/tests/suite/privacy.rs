//! What is made to be passed on does not say where it was on the machine that made it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::{sora, stderr},
    datasets::photos,
};

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn weights_networks_figures_and_pages_name_no_folder_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = (dir.path().join("private-place"), dir.path().join("public"));
    photos(&private.join("photos"));
    fs::create_dir(&public).unwrap();
    let own = |name: &str| private.join(name).to_str().unwrap().to_owned();
    let out = |name: &str| public.join(name).to_str().unwrap().to_owned();
    let call = |words: &[&str]| {
        let output = sora(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    };
    let dataset = format!("imagefolder:{}", own("photos"));
    let train = |run: &str, more: &[&str]| {
        let small = ["--image-size", "16", "--width", "4", "--batch", "8", "--val", "6"];
        let call_of = ["train", "--dataset", &dataset, "--epochs", "1", "--out", run];
        call(&[&call_of[..], &small, more].concat());
    };
    train(&own("first"), &[]);
    // With the weights of another run, and of an import.
    train(&own("run"), &["--init", &own("first")]);
    call(&["export", &own("first"), "--format", "safetensors", "--out", &out("w.safetensors")]);
    call(&["import", &out("w.safetensors"), "--out", &own("imported")]);
    let run = own("run");
    call(&["eval", &run, "--attacks", "clean,fgsm", "--limit", "6"]);
    call(&["export", &run, "--format", "safetensors", "--out", &out("run.safetensors")]);
    call(&["export", &run, "--format", "onnx", "--out", &out("run.onnx"), "--samples", "2"]);
    call(&["export", &own("imported"), "--format", "onnx", "--out", &out("imported.onnx")]);
    for figure in ["curves", "cost", "tradeoff", "examples", "landscape", "epsilon"] {
        let svg = out(&format!("{figure}.svg"));
        call(&[
            "plot",
            figure,
            &run,
            &own("first"),
            "--limit",
            "6",
            "--images",
            "2",
            "--out",
            &svg,
        ]);
    }
    call(&["report", &run, &own("first"), "--png", "--out", &out("report")]);
    for name in ["run", "imported"] {
        fs::copy(private.join(name).join("model.safetensors"), out(&format!("{name}-own")))
            .unwrap();
    }
    let found = files(&public);
    assert!(found.len() > 14, "{found:?}");
    let place = b"private-place";
    for path in found {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(place.len()).position(|window| window == place);
        let said = |at: usize| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(80)..bytes.len().min(at + 40)])
                .into_owned()
        };
        assert_eq!(at.map(said), None, "{}", path.display());
    }
}
