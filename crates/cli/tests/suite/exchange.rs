//! Networks that leave the program and come back.

use std::path::Path;

use crate::cli::{refused, sora, stderr, train_short};

#[test]
fn a_run_goes_out_and_comes_back_with_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = at("run");
    assert!(
        train_short(
            Path::new(&run),
            &["--epochs", "1", "--model", "resnet18", "--activation", "silu", "--seed", "0"]
        )
        .status
        .success()
    );
    let figures = |subject: &str| {
        let output =
            sora(&["eval", subject, "--attacks", "clean,pgd-2", "--limit", "50", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let mut value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for attack in value["results"].as_object_mut().unwrap().values_mut() {
            attack.as_object_mut().unwrap().retain(|key, _| key == "accuracy");
        }
        value["results"].clone()
    };
    let call = |call: &[&str]| {
        let output = sora(call);
        assert!(output.status.success(), "{call:?}: {}", stderr(&output));
    };
    let expected = figures(&run);
    call(&["export", &run, "--format", "safetensors"]);
    call(&["export", &run, "--format", "onnx", "--out", &at("net.onnx"), "--samples", "2"]);
    assert!(
        Path::new(&at("net.onnx")).exists()
            && Path::new(&at("net.onnx.samples.safetensors")).exists()
    );
    let exported = format!("{run}/export/model.safetensors");
    assert_eq!(figures(&exported), expected);
    call(&["import", &exported, "--model", "resnet18", "--out", &at("back")]);
    assert_eq!(figures(&at("back")), expected);

    let refused = |call: &[&str], part: &str| {
        let output = sora(call);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{call:?}: {text}");
        assert!(text.contains(part) && text.lines().count() == 1, "{call:?}: {text}");
    };
    refused(&["import", &exported, "--model", "resnet18", "--out", &at("back")], "not empty");
    let (flipped, mut bytes) = (at("flipped.safetensors"), std::fs::read(&exported).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&flipped, bytes).unwrap();
    refused(&["import", &flipped, "--model", "resnet18", "--out", &at("new")], "SHA-256");
    refused(
        &[
            "import",
            &exported,
            "--model",
            "resnet34",
            "--out",
            &at("other"),
            "--dataset",
            "synthetic",
            "--image-size",
            "8",
        ],
        "missing",
    );
    refused(&["import", &at("none.pt"), "--model", "resnet18", "--out", &at("other")], "none.pt");
    refused(
        &["import", &at("net.onnx"), "--model", "resnet18", "--out", &at("other")],
        "torch.save",
    );
    refused(
        &["export", &exported, "--format", "safetensors", "--out", &exported],
        "choose another",
    );
    refused(&["export", &at("nowhere"), "--format", "onnx"], "nowhere");
    assert!(!Path::new(&at("other")).exists(), "a refused import leaves nothing behind");
}

/// A file of this program as another program would have written it: tensors alone.
fn bare(from: &Path, to: &Path) {
    let bytes = std::fs::read(from).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    safetensors::serialize_to_file(file.tensors(), None, to).unwrap();
}

#[test]
fn an_import_finds_the_network_by_its_shapes_and_says_which_one_fits() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["dm-preact-resnet18", "wideresnet-28-10"] {
        let run = at(name);
        let more = ["--epochs", "1", "--model", name, "--width", "2", "--limit-train", "60"];
        let output = train_short(&run, &more);
        assert!(output.status.success(), "{}", stderr(&output));
        let file = at(&format!("{name}.safetensors"));
        bare(&run.join("model.safetensors"), &file);
        let (file, out) = (file.to_str().unwrap(), at(&format!("{name}-back")));
        let call = ["import", file, "--image-size", "8", "--mean", "0.5", "--std", "0.25", "--out"];
        let call = [&call[..], &[out.to_str().unwrap()]].concat();
        let output = sora(&[&call[..], &["--model", "resnet18"]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let fits = format!("it fits {name} of width 2");
        assert!(stderr(&output).contains(&fits), "{}", stderr(&output));
        let output = sora(&call);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        let activation = if name.starts_with("dm") { "silu" } else { "relu" };
        let words = format!("as {name} of width 2 with {activation} for images");
        assert!(said.contains(&words), "{said}");
        // The same network, but for the normalisation that was given.
        let eval = ["eval", out.to_str().unwrap(), "--dataset", "synthetic", "--limit", "20"];
        let output = sora(&[&eval[..], &["--attacks", "clean", "--json"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        // A file of this program's own says itself what it is.
        let again = at(&format!("{name}-again"));
        let own = run.join("model.safetensors");
        let call = ["import", own.to_str().unwrap(), "--out", again.to_str().unwrap()];
        let output = sora(&[&call[..], &["--norm", "l2"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        // What is given goes before what the file says.
        let said = std::fs::read(again.join("model.safetensors")).unwrap();
        let said = String::from_utf8_lossy(&said[..3000]).into_owned();
        assert!(
            said.contains("128/255") && said.contains("l2") && !said.contains("linf"),
            "{said}"
        );
        // A data set that is named gives only what the file leaves open.
        let named = at(&format!("{name}-named"));
        let call = ["import", own.to_str().unwrap(), "--out", named.to_str().unwrap()];
        let output = sora(&[&call[..], &["--dataset", "cifar10"]].concat());
        assert!(stderr(&output).contains("from the file's metadata"), "{}", stderr(&output));
        let described = |file: &Path| {
            let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()[..3000]).into_owned();
            let behind = |key: &str| text.split(key).nth(1).unwrap().to_owned();
            let list = |key| behind(key).split(']').next().unwrap().to_owned();
            let word = |key| behind(key).split(',').next().unwrap().to_owned();
            [list("mean"), list("std"), word("activation"), word("method")]
        };
        assert_eq!(described(&own), described(&named.join("model.safetensors")));
    }
}

#[test]
fn a_log_goes_out_as_csv_with_a_row_for_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = at("run");
    assert!(train_short(Path::new(&run), &[]).status.success());
    let export =
        |more: &[&str]| sora(&[&["export", run.as_str(), "--format", "csv"], more].concat());
    let out = export(&[]);
    assert!(out.status.success(), "{}", stderr(&out));
    let log = Path::new(&run).join("export/log.csv");
    let text = std::fs::read_to_string(&log).unwrap();
    let mut rows = text.lines().map(|row| row.split(',').collect::<Vec<_>>());
    let heading = rows.next().unwrap();
    let rows: Vec<_> = rows.collect();

    // Each line of the log, figure by figure, under the names that it has there.
    let lines = std::fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), lines.len());
    let mut figures = 0;
    for (row, line) in rows.iter().zip(&lines) {
        assert_eq!(row.len(), heading.len());
        for (name, value) in line.as_object().unwrap() {
            if let Some(value) = value.as_f64().filter(|_| name != "co") {
                let column = heading.iter().position(|column| column == name);
                let cell = row[column.unwrap_or_else(|| panic!("no column {name}"))];
                assert_eq!(cell.parse::<f32>().unwrap(), value as f32, "{name}");
                figures += 1;
            }
        }
    }
    assert!(figures >= 13 * rows.len(), "{figures} figures");
    let validated = heading.iter().position(|name| *name == "val_pgd").unwrap();
    assert!(rows.last().unwrap()[validated].parse::<f64>().is_ok(), "the last validation");

    // A run that goes on has a log; a weights file has none. Files of others stay.
    std::fs::remove_file(Path::new(&run).join("summary.json")).unwrap();
    let out = export(&[]);
    assert!(out.status.success() && stderr(&out).contains("not finished"), "{}", stderr(&out));
    let mine = at("mine.csv");
    std::fs::write(&mine, "step,loss\n1,2\n").unwrap();
    refused(&["export", &run, "--format", "csv", "--out", &mine], &["mine.csv", "--force"]);
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "step,loss\n1,2\n");
    assert!(export(&["--out", &mine, "--force"]).status.success());
    assert!(export(&["--out", &mine]).status.success(), "its own file");
    let weights = Path::new(&run).join("model.safetensors");
    let weights = weights.to_str().unwrap();
    refused(&["export", weights, "--format", "csv"], &["not a run folder"]);
    refused(&["export", &run, "--format", "csv", "--samples", "3"], &["--samples"]);
}

#[test]
fn a_file_of_a_run_or_of_another_kind_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = at("run");
    assert!(train_short(Path::new(&run), &[]).status.success());
    let export = |format: &str, out: &str| {
        ["export", &run, "--format", format, "--out", out].map(str::to_owned).to_vec()
    };
    let eval = |out: &str| {
        let eval = ["eval", &run, "--limit", "5", "--attacks", "clean", "--out", out];
        eval.map(str::to_owned).to_vec()
    };
    let figure = |out: &str| ["plot", "curves", &run, "--out", out].map(str::to_owned).to_vec();
    let unchanged = |path: &str, call: &[String], more: &[&str], part: &str| {
        let before = std::fs::read(path).unwrap();
        let call: Vec<&str> = call.iter().map(String::as_str).chain(more.iter().copied()).collect();
        refused(&call, &[path, part]);
        assert_eq!(std::fs::read(path).unwrap(), before, "{call:?}");
    };
    // With --force, too, and under another name.
    let checkpoint = std::fs::read_dir(at("run/checkpoints")).unwrap().next().unwrap().unwrap();
    let manifest = checkpoint.path().join("MANIFEST.json");
    std::os::unix::fs::symlink(at("run/model.safetensors"), at("link.safetensors")).unwrap();
    for own in [
        at("run/model.safetensors"),
        at("run/summary.json"),
        at("run/../run/metrics.jsonl"),
        at("link.safetensors"),
        manifest.to_str().unwrap().to_owned(),
    ] {
        for call in [export("csv", &own), export("onnx", &own), export("safetensors", &own)] {
            unchanged(&own, &call, &[], "belongs to a run");
            unchanged(&own, &call, &["--force"], "belongs to a run");
        }
        unchanged(&own, &eval(&own), &["--force"], "belongs to a run");
    }
    // What this program wrote is safe from its other commands.
    let [log, onnx, weights] = ["log.csv", "net.onnx", "net.safetensors"].map(at);
    let calls = [export("csv", &log), export("onnx", &onnx), export("safetensors", &weights)];
    for call in &calls {
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        assert!(sora(&call).status.success(), "{call:?}");
    }
    for (path, others) in [
        (&weights, [export("csv", &weights), export("onnx", &weights), eval(&weights)]),
        (&onnx, [export("csv", &onnx), export("safetensors", &onnx), eval(&onnx)]),
        (&log, [export("onnx", &log), export("safetensors", &log), eval(&log)]),
    ] {
        others.iter().for_each(|call| unchanged(path, call, &[], "--force"));
    }
    let svg = at("figure.svg");
    std::fs::copy(&weights, &svg).unwrap();
    unchanged(&svg, &figure(&svg), &[], "is not a figure that sora wrote");
    let forced = [&export("csv", &weights)[..], &["--force".to_owned()]].concat();
    assert!(sora(&forced.iter().map(String::as_str).collect::<Vec<_>>()).status.success());
    assert!(std::fs::read(&weights).unwrap().starts_with(b"step,"));
}
