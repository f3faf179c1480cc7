//! Everything that decides a result, changed in turn: nothing of another evaluation is taken over,
//! and no report shows it as the run's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use sora::report::{Of, Run};

use crate::cli::{refused, sora, stderr};

/// Test images of each class.
const TEST: usize = 6;

/// Two classes that a tiny network tells apart: dark and bright.
fn pictures(root: &Path) {
    for (class, level) in [("a", 40u8), ("b", 200)] {
        for (split, n) in [("train", 16), ("test", TEST)] {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let at = |x: u32, y: u32| level + ((x * 5 + y * 3 + i as u32) % 23) as u8;
                let picture = RgbImage::from_fn(8, 8, |x, y| Rgb([at(x, y), at(y, x), level]));
                picture.save(folder.join(format!("{i:02}.png"))).unwrap();
            }
        }
    }
}

/// A change of a run folder.
type OnFolder<'a> = &'a dyn Fn(&Path);
/// A change of a record.
type OnRecord<'a> = &'a dyn Fn(&mut Value);

const TINY: &[&str] = &[
    "--model",
    "mnist-cnn",
    "--width",
    "2",
    "--batch",
    "8",
    "--augment",
    "none",
    "--val",
    "0",
    "--epochs",
    "20",
    "--lr-max",
    "0.05",
    "--epsilon",
    "0.03137",
];

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

struct Place {
    dir: tempfile::TempDir,
    dataset: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pictures(&dir.path().join("d"));
        let dataset = format!("folder:{}", dir.path().join("d").display());
        Self { dir, dataset }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn train(&self, name: &str, more: &[&str]) -> PathBuf {
        let run = self.at(name);
        let call = ["train", "--dataset", &self.dataset, "--out", run.to_str().unwrap()];
        done(&sora(&[&call[..], TINY, more].concat()));
        run
    }

    /// The same run again, with its images in a place of their own.
    fn copy(&self, run: &Path, name: &str) -> PathBuf {
        let to = self.at(name);
        copy(run, &to);
        fs::remove_dir_all(to.join("eval")).ok();
        to
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn evaluate(run: &Path, more: &[&str]) -> Output {
    let call = ["eval", run.to_str().unwrap(), "--json"];
    let attacks = ["--attacks", "clean,pgd-2"];
    let attacks = if more.contains(&"--attacks") { &[][..] } else { &attacks };
    sora(&[&call[..], attacks, more].concat())
}

fn report(run: &Path, more: &[&str]) -> Value {
    serde_json::from_str(&done(&evaluate(run, more))).unwrap()
}

fn correct(report: &Value, attack: &str) -> u64 {
    report["results"][attack]["correct"].as_u64().unwrap()
}

/// A state in which every image has fallen to each of `attacks`: whoever goes on from it shows 0.
fn forge(report: &Value, attacks: &[&str], file: &Path) {
    let mut identity = report["identity"].clone();
    identity["attacks"] = json!([]);
    // The mark comes first.
    let mut text = format!("{{\"sora_evaluation\":1,\"identity\":{identity}}}\n");
    let ids = json!((0..report["n"].as_u64().unwrap()).collect::<Vec<_>>());
    for attack in attacks {
        let line = format!(
            "{{\"attack\":\"{attack}\",\"round\":0,\"ids\":{ids},\"fallen\":{ids},\"seconds\":1.0"
        );
        // Each line is sealed by the first half of the SHA-256 of what it says.
        let seal = sora::files::sha256(format!("{line}}}\n").as_bytes());
        text += &format!("{line},\"sum\":\"{}\"}}\n", &seal[..32]);
    }
    fs::write(file, text).unwrap();
}

/// Changes what a weights file says about itself.
fn describe(file: &Path, change: impl Fn(&mut Value)) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let text = header["__metadata__"]["sora"].as_str().unwrap();
    let mut about: Value = serde_json::from_str(text).unwrap();
    change(&mut about);
    // Without it the description is taken for one of an older version.
    about.as_object_mut().unwrap().remove("sum");
    header["__metadata__"]["sora"] = about.to_string().into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let all = [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat();
    fs::write(file, all).unwrap();
}

/// The records of `other` as if `run` had made them.
fn records_of(other: &Path, run: &Path) {
    fs::remove_dir_all(run.join("eval")).ok();
    copy(&other.join("eval"), &run.join("eval"));
}

fn shown(run: &Path) -> Option<u64> {
    Run::load(run).unwrap().result().map(|result| result.n)
}

#[test]
fn a_forged_state_is_taken_for_the_evaluation_that_it_names_alone() {
    let place = Place::new();
    let run = place.train("run", &[]);
    let state = place.at("state.jsonl");
    let again = ["--state", state.to_str().unwrap()];
    let fresh = report(&run, &[]);
    assert!(correct(&fresh, "clean") > 0, "{fresh}");
    assert_eq!(shown(&run), Some(2 * TEST as u64));
    forge(&fresh, &["clean"], &state);
    assert_eq!(correct(&report(&run, &again), "clean"), 0, "the forged state is what is read");
    assert!(!state.exists(), "a finished evaluation takes its state away");

    // Another attack of the same evaluation is not what the state knows.
    forge(&fresh, &["pgd-2"], &state);
    let other = report(&run, &[&again[..], &["--attacks", "clean,pgd-3"]].concat());
    let alone = report(&run, &["--attacks", "clean,pgd-3"]);
    assert_eq!(correct(&other, "pgd-3"), correct(&alone, "pgd-3"));
    assert!(correct(&other, "pgd-3") > 0, "{other}");

    for (more, part) in [
        (&["--epsilon", "0.03138"][..], "threat"),
        (&["--norm", "l2", "--epsilon", "0.03137"], "threat"),
        (&["--seed", "1"], "seed 1, 0 before"),
        (&["--limit", "11"], "11 images, 12 before"),
        (&["--eight-bit"], "other options"),
        (&["--attack-precision", "bf16"], "other options"),
        (&["--target", "a"], "other options"),
    ] {
        forge(&fresh, &["clean", "pgd-2"], &state);
        let before = fs::read(&state).unwrap();
        let call = ["eval", run.to_str().unwrap(), "--attacks", "clean,pgd-2"];
        refused(&[&call[..], &again, more].concat(), &["--state", part, "--fresh"]);
        assert_eq!(fs::read(&state).unwrap(), before, "{more:?}");
        assert!(correct(&report(&run, more), "clean") > 0, "{more:?}");
    }
}

#[test]
fn what_was_found_of_other_weights_or_another_network_is_not_the_runs() {
    let place = Place::new();
    let run = place.train("run", &[]);
    let fresh = report(&run, &[]);
    let state = place.at("state.jsonl");
    let others: [(&str, OnFolder<'_>, &str); 4] = [
        (
            "weights",
            &|to| {
                let other = place.train("again", &["--seed", "2"]);
                fs::copy(other.join("model.safetensors"), to.join("model.safetensors")).unwrap();
            },
            "other weights",
        ),
        (
            "mean",
            &|to| describe(&to.join("model.safetensors"), |a| a["network"]["mean"][1] = json!(0.4)),
            "another network or normalisation",
        ),
        (
            "std",
            &|to| describe(&to.join("model.safetensors"), |a| a["network"]["std"][0] = json!(0.9)),
            "another network or normalisation",
        ),
        (
            "activation",
            &|to| {
                describe(&to.join("model.safetensors"), |a| {
                    a["network"]["options"]["activation"] = json!("silu");
                });
            },
            "another network or normalisation",
        ),
    ];
    for (what, change, part) in others {
        let other = place.copy(&run, what);
        change(&other);
        forge(&fresh, &["clean"], &state);
        let call = ["eval", other.to_str().unwrap(), "--attacks", "clean", "--state"];
        refused(&[&call[..], &[state.to_str().unwrap()]].concat(), &["--state", part]);

        report(&other, &[]);
        records_of(&other, &run);
        let read = Run::load(&run).unwrap();
        assert_eq!(read.records[0].of, Of::Other, "{what}");
        assert_eq!(shown(&run), None, "{what}");
    }
    // Its own does.
    fs::remove_dir_all(run.join("eval")).unwrap();
    report(&run, &[]);
    assert_eq!(shown(&run), Some(2 * TEST as u64));
}

#[test]
fn a_stem_and_a_patch_are_part_of_what_a_result_is_of() {
    let place = Place::new();
    let size = ["--image-size", "16", "--epochs", "1"];
    for (name, wide, option, values) in [
        ("resnet18", "2", "--stem", ["cifar", "imagenet"]),
        ("vit-tiny", "3", "--patch", ["4", "8"]),
    ] {
        let runs = values.map(|value| {
            let more = [&size[..], &["--model", name, "--width", wide, option, value]].concat();
            place.train(&format!("{name}-{value}"), &more)
        });
        let state = place.at("state.jsonl");
        forge(&report(&runs[0], &[]), &["clean"], &state);
        let call = ["eval", runs[1].to_str().unwrap(), "--attacks", "clean", "--state"];
        let call = [&call[..], &[state.to_str().unwrap()]].concat();
        refused(&call, &["another network or normalisation"]);
        report(&runs[1], &[]);
        records_of(&runs[1], &runs[0]);
        assert_eq!(shown(&runs[0]), None, "{name}");
    }
}

#[test]
fn what_was_found_on_other_images_is_not_the_runs() {
    let place = Place::new();
    let run = place.train("run", &[]);
    let fresh = report(&run, &[]);
    let (images, state) = (place.at("d"), place.at("state.jsonl"));
    let keep = place.at("kept");
    copy(&images, &keep);
    let image = |path: &str| images.join("test").join(path);
    let changes: [(&str, &dyn Fn(), &str); 5] = [
        (
            "a pixel",
            &|| {
                let mut picture = image::open(image("b/05.png")).unwrap().into_rgb8();
                picture.get_pixel_mut(3, 4).0[2] ^= 1;
                picture.save(image("b/05.png")).unwrap();
            },
            "other images or labels",
        ),
        (
            "a label",
            &|| {
                // As many of each class as before.
                fs::rename(image("a/05.png"), image("x.png")).unwrap();
                fs::rename(image("b/05.png"), image("a/05.png")).unwrap();
                fs::rename(image("x.png"), image("b/05.png")).unwrap();
            },
            "other images or labels",
        ),
        (
            "an image more",
            &|| assert!(fs::copy(image("a/00.png"), image("a/99.png")).is_ok()),
            "13 images, 12 before",
        ),
        (
            "class names",
            &|| {
                for split in ["train", "test"] {
                    let split = images.join(split);
                    fs::rename(split.join("b"), split.join("c")).unwrap();
                }
            },
            "other class names",
        ),
        (
            "classes in each other's place",
            &|| {
                for split in ["train", "test"] {
                    let split = images.join(split);
                    fs::rename(split.join("a"), split.join("z")).unwrap();
                }
            },
            "other class names",
        ),
    ];
    for (what, change, part) in changes {
        fs::remove_dir_all(&images).unwrap();
        copy(&keep, &images);
        change();
        forge(&fresh, &["clean"], &state);
        let call = ["eval", run.to_str().unwrap(), "--attacks", "clean", "--state"];
        refused(&[&call[..], &[state.to_str().unwrap()]].concat(), &["--state", part]);
        // Also where the first images, all that are looked at, are the same.
        for more in [&[][..], &["--limit", "4"]] {
            fs::remove_dir_all(run.join("eval")).ok();
            let output = evaluate(&run, more);
            done(&output);
            let said = stderr(&output);
            assert!(said.contains("not those that the run began with"), "{what}: {said}");
            assert_eq!(shown(&run), None, "{what} {more:?}");
        }
    }
    // A set of the same images in another place is another set.
    fs::remove_dir_all(&images).unwrap();
    copy(&keep, &images);
    fs::remove_dir_all(run.join("eval")).ok();
    let elsewhere = format!("folder:{}", keep.display());
    forge(&fresh, &["clean"], &state);
    let call = ["eval", run.to_str().unwrap(), "--attacks", "clean", "--dataset", &elsewhere];
    let call = [&call[..], &["--state", state.to_str().unwrap()]].concat();
    refused(&call, &["data set", "before"]);
    report(&run, &["--dataset", &elsewhere]);
    assert_eq!(shown(&run), None);
    // Named in full, the own set is the own set.
    report(&run, &["--dataset", &place.dataset, "--limit", "4"]);
    assert_eq!(shown(&run), Some(4));
}

#[test]
fn a_report_shows_nothing_of_another_threat_or_of_attacks_towards_a_class() {
    let place = Place::new();
    let run = place.train("run", &[]);
    for more in [
        &["--epsilon", "0.03138"][..],
        &["--norm", "l2", "--epsilon", "0.03137"],
        &["--target", "a"],
        &["--eight-bit"],
        &["--attack-precision", "bf16"],
    ] {
        fs::remove_dir_all(run.join("eval")).ok();
        report(&run, more);
        assert_eq!(shown(&run), None, "{more:?}");
        let page = place.at("page");
        let call = ["report", run.to_str().unwrap(), "--no-compute", "--out"];
        done(&sora(&[&call[..], &[page.to_str().unwrap()]].concat()));
        let html = fs::read_to_string(page.join("report.html")).unwrap();
        assert!(html.contains("Not measured yet"), "{more:?}");
        if more.len() < 3 && more[0] != "--epsilon" {
            // The table of all records says what it is.
            let word = match more[0] {
                "--target" => "target 0",
                "--eight-bit" => "eight-bit",
                _ => "attacks in bf16",
            };
            assert!(html.contains(word), "{more:?}");
        }
    }
}

/// What figures compute is kept in the run folder, and only for the weights that it is of.
#[test]
fn kept_figures_are_of_the_weights_that_are_there() {
    let place = Place::new();
    let run = place.train("run", &[]);
    let kept = run.join("plots/epsilon.json");
    let plot = || {
        let call = ["plot", "epsilon", run.to_str().unwrap(), "--force"];
        done(&sora(&call));
        serde_json::from_slice::<Value>(&fs::read(&kept).unwrap()).unwrap()
    };
    let first = plot();
    assert!(first["rows"][0]["clean"].is_u64(), "{first}");
    // A row for each of the weights that the run keeps.
    assert_eq!(first["rows"].as_array().unwrap().len(), 3);
    // Taken over: a mark in the file stays.
    let mark = |value: &Value| {
        let mut marked = value.clone();
        marked["rows"][0]["clean"] = json!(77);
        fs::write(&kept, marked.to_string()).unwrap();
    };
    mark(&first);
    assert_eq!(plot()["rows"][0]["clean"], 77);
    // Other weights under the same name, then other images under the same weights.
    mark(&first);
    describe(&run.join("model.safetensors"), |about| about["network"]["mean"][0] = json!(0.1));
    let second = plot();
    assert_ne!(second["rows"][0]["clean"], 77);
    assert_ne!(second["rows"][0]["of"], first["rows"][0]["of"]);
    mark(&second);
    fs::copy(place.at("d/test/a/01.png"), place.at("d/test/a/00.png")).unwrap();
    assert_ne!(plot()["rows"][0]["clean"], 77);
}

#[test]
fn a_grid_takes_up_its_own_evaluations_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grid.toml");
    let text = "attacks = ['clean', 'fgsm']\nlimit = 20\n[train]\ndataset = 'synthetic'\n\
                image_size = 8\nwidth = 2\nmodel = 'mnist-cnn'\nbatch = 40\nlimit_train = 80\n\
                limit_test = 50\nval = 0\nepochs = 1\n[[runs]]\nmethod = ['fgsm']\nseed = [0]\n";
    fs::write(&file, text).unwrap();
    let out = dir.path().join("out");
    let clean = || -> f64 {
        let call = ["grid", file.to_str().unwrap(), "--json", "--out", out.to_str().unwrap()];
        let table: Value = serde_json::from_str(&done(&sora(&call))).unwrap();
        table["groups"][0]["accuracy"]["clean"]["mean"].as_f64().unwrap()
    };
    let first = clean();
    let folder = fs::read_dir(&out).unwrap().flatten().find(|e| e.path().is_dir()).unwrap().path();
    let record = fs::read_dir(folder.join("eval")).unwrap().flatten().next().unwrap().path();
    let kept: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let mark = |change: &dyn Fn(&mut Value)| {
        fs::remove_dir_all(folder.join("eval")).unwrap();
        fs::create_dir(folder.join("eval")).unwrap();
        let mut marked = kept.clone();
        marked["results"]["clean"]["accuracy"] = json!(0.125);
        change(&mut marked);
        fs::write(&record, marked.to_string()).unwrap();
    };
    mark(&|_| {});
    assert_eq!(clean(), 0.125, "its own is taken up");
    let changes: [(&str, OnRecord<'_>); 8] = [
        ("weights", &|r| r["identity"]["weights"]["sha256"] = json!("00")),
        ("network", &|r| {
            let network = r["identity"]["weights"]["network"].as_str().unwrap();
            let other = network.replace("\"dropout\":0.0", "\"dropout\":0.5");
            assert_ne!(network, other);
            r["identity"]["weights"]["network"] = other.into();
        }),
        ("data set", &|r| r["dataset"] = json!("synthetic:90")),
        ("images", &|r| r["split_sha256"] = json!("00")),
        ("count", &|r| r["n"] = json!(19)),
        ("seed", &|r| r["seed"] = json!(1)),
        ("options", &|r| r["identity"]["options"] = json!(["target 3"])),
        ("program", &|r| r["identity"]["program"] = json!("sora 0.0.1 x")),
    ];
    for (what, change) in changes {
        mark(change);
        assert_eq!(clean(), first, "{what}");
    }
}
