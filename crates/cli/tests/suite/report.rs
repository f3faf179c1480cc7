//! Figures and the report page, from real runs of a few seconds and from damaged folders.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use sora::report::{ReportOptions, Runs, compute::ComputeOptions, outputs};

use crate::cli::{sora, stderr, train_short};

/// Two runs that every test may read: do not write to them.
pub static RUNS: LazyLock<(tempfile::TempDir, [PathBuf; 2])> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["fgsm", "sora"].map(|method| {
        let out = dir.path().join(method);
        let output = train_short(&out, &["--method", method]);
        assert!(output.status.success(), "{}", stderr(&output));
        out
    });
    (dir, runs)
});

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn every_figure_is_drawn_as_svg_and_png() {
    let (dir, [a, b]) = (tempfile::tempdir().unwrap(), &RUNS.1);
    for (figure, part) in [
        ("curves", "pgd-10 (multi-step)"),
        ("pertalign", "PertAlign in action"),
        ("epsilon", "trained with"),
        ("landscape", "cross-entropy (nats)"),
        ("tradeoff", "clean accuracy (%)"),
        ("cost", "training time (s)"),
        ("examples", "amplified"),
        ("history", "linearity"),
    ] {
        let out = dir.path().join("figures").join(format!("{figure}.svg"));
        let output = sora(&[
            "plot",
            figure,
            text(a),
            text(b),
            "--limit",
            "10",
            "--images",
            "2",
            "--out",
            text(&out),
        ]);
        assert!(output.status.success(), "{figure}: {}", stderr(&output));
        let svg = fs::read_to_string(&out).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>") && svg.contains(part),
            "{figure}: no '{part}'"
        );
        assert!(svg.contains("seed") && !svg.contains("NaN") && !svg.contains("inf\""), "{figure}");
    }
    let out = dir.path().join("curves.png");
    assert!(sora(&["plot", "curves", text(a), "--out", text(&out)]).status.success());
    let picture = image::open(&out).unwrap().to_rgb8();
    let dark = picture.pixels().filter(|p| p.0.iter().all(|v| *v < 90)).count();
    assert!(dark > 2000, "text is missing: {dark} dark pixels");
}

#[test]
fn a_landscape_over_training_is_a_strip_and_an_animation_and_agrees_with_the_loss_at_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    copy(&RUNS.1[1], &run);
    let output =
        sora(&["landscape", text(&run), "--checkpoint", "all", "--grid", "5", "--index", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let plots = run.join("plots");
    assert!(fs::read(plots.join("landscape-3.gif")).unwrap().starts_with(b"GIF89a"));
    assert!(fs::read_to_string(plots.join("landscape-3-strip.svg")).unwrap().contains("epoch 1"));
    let data: serde_json::Value =
        serde_json::from_slice(&fs::read(plots.join("landscape-3.json")).unwrap()).unwrap();
    let rows = data["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "an epoch's checkpoint and the final weights");
    for row in rows {
        let (loss, margin) = (&row["loss"], &row["margin"]);
        assert_eq!((loss.as_array().unwrap().len(), margin.as_array().unwrap().len()), (25, 25));
        assert!(loss.as_array().unwrap().iter().all(|v| v.as_f64().is_some_and(|v| v >= 0.0)));
        // Towards the gradient the loss rises.
        assert!(loss[13].as_f64().unwrap() >= loss[12].as_f64().unwrap(), "{loss}");
    }
}

#[test]
fn the_page_compares_the_runs_and_fetches_nothing() {
    let (dir, [a, b]) = (tempfile::tempdir().unwrap(), &RUNS.1);
    let out = dir.path().join("report");
    let call = ["report", text(a), text(b), "--limit", "10", "--out", text(&out)];
    // The second time over its own files, which the guard knows.
    for _ in 0..2 {
        let output = sora(&call);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let options = ReportOptions { compute: Some(ComputeOptions::default()), ..Default::default() };
    let named = outputs(&Runs::load(&[a.clone(), b.clone()]).unwrap(), &out, &options);
    assert!(out.join("plots/landscape-sora.gif").is_file());
    for file in [".", "plots", "csv"].iter().flat_map(|dir| fs::read_dir(out.join(dir)).unwrap()) {
        let file = file.unwrap();
        let known = named.iter().any(|(_, path)| path.file_name() == Some(&*file.file_name()));
        assert!(known || file.path().is_dir(), "{:?} was not named before", file.path());
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "At a glance",
        "id=\"results\"",
        "aria-sort",
        "name=\"generator\" content=\"sora",
        "figure-epsilon",
        "figure-landscape",
        "figure-examples",
        "figure-pertalign",
        "<th scope=\"row\">method</th>",
        "pgd-10",
    ] {
        assert!(page.contains(part), "no '{part}'");
    }
    for figure in
        ["curves", "pertalign", "history", "tradeoff", "cost", "epsilon", "landscape", "examples"]
    {
        assert!(out.join("plots").join(format!("{figure}.svg")).is_file(), "{figure}");
    }
    for log in ["fgsm", "sora"] {
        let text = fs::read_to_string(out.join(format!("csv/{log}.csv"))).unwrap();
        assert!(text.starts_with("step,epoch,loss,") && text.lines().count() > 2, "{text}");
    }
    for svg in fs::read_dir(out.join("plots")).unwrap() {
        let svg = String::from_utf8_lossy(&fs::read(svg.unwrap().path()).unwrap()).into_owned();
        assert!(!svg.contains(text(dir.path())) && !svg.contains(text(a)), "a path in a figure");
    }
    for fetched in ["<link", "src=\"http", "url(http", "@import", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    // The page writes a slash in text as an entity.
    let plain = page.replace("&#x2f;", "/");
    assert!(!plain.contains(text(dir.path())) && !plain.contains(text(a)), "a path of the machine");
}

#[test]
fn damaged_runs_give_a_page_with_warnings_and_what_is_no_run_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("<b>damaged & torn");
    copy(&RUNS.1[0], &run);
    let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("metrics.jsonl"), &metrics[..metrics.len() - 30]).unwrap();
    fs::write(run.join("epochs.jsonl"), "{\"epoch\": 0}\n\u{1}\n").unwrap();
    fs::remove_file(run.join("summary.json")).unwrap();
    fs::write(run.join("model.safetensors"), "cut").unwrap();
    fs::create_dir_all(run.join("eval")).unwrap();
    fs::write(run.join("eval/x.json"), "{\"results\": {\"fgsm\": 7}}").unwrap();
    let output = sora(&["report", text(&run)]);
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("panicked"), "{said}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "ends in the middle of line",
        "epochs.jsonl: 1 of",
        "is not finished",
        "x.json is not an evaluation",
        "&lt;b&gt;damaged &amp; torn",
    ] {
        assert!(page.contains(part), "no '{part}'");
    }
    assert!(!page.contains("<b>damaged"));

    // A folder that is no run is a line on the page, not a stop.
    let empty = dir.path().join("empty");
    let both = dir.path().join("both");
    let output = sora(&[
        "report",
        text(&run),
        text(&dir.path().join("empty")),
        "--no-compute",
        "--out",
        text(&both),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = fs::read_to_string(both.join("report.html")).unwrap();
    assert!(page.contains("<b>empty</b>: left out, not a run folder"), "not said");
    assert!(stderr(&output).contains("not a run folder"), "{}", stderr(&output));
    fs::create_dir(&empty).unwrap();
    let nowhere = dir.path().join("out");
    for (call, part) in [
        (vec!["report", text(&empty), "--out", text(&nowhere)], "not a run folder"),
        (vec!["report", text(&run), text(&empty)], "--out is missing"),
        (vec!["report", text(&run), "--limit", "0", "--out", text(&nowhere)], "--limit 0"),
        (vec!["plot", "curves", text(&empty)], "not a run folder"),
        (vec!["plot", "curves", text(&run), "--out", "x.pdf"], ".svg or .png"),
        (vec!["plot", "waves", text(&run)], "curves"),
        (
            vec!["plot", "examples", text(&RUNS.1[0]), "--index", "50", "--out", "x.svg"],
            "50 images",
        ),
        (vec!["landscape", text(&RUNS.1[0]), "--grid", "2"], "--grid 2"),
        (vec!["landscape", text(&RUNS.1[0]), "--span", "0"], "--span 0"),
        (vec!["landscape", text(&RUNS.1[0]), "--checkpoint", "9"], "--checkpoint 9"),
        (vec!["landscape", text(&RUNS.1[0]), "--index", "50"], "--index 50"),
        (vec!["landscape", text(&empty)], "not a run folder"),
    ] {
        let output = sora(&call);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{call:?}: {said}");
        assert!(
            said.contains(part) && !said.contains("panicked"),
            "{call:?}: no '{part}' in {said}"
        );
    }
    assert!(
        !nowhere.exists() && fs::read_dir(&empty).unwrap().next().is_none(),
        "something was left behind"
    );
}

/// Puts another digit behind the first `key` of a file.
pub fn change_a_digit(file: &Path, key: &str) {
    let mut text = fs::read(file).unwrap();
    let at = text.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let digit = text[at..].iter_mut().find(|byte| byte.is_ascii_digit()).unwrap();
    *digit = if *digit == b'1' { b'2' } else { b'1' };
    fs::write(file, text).unwrap();
}

#[test]
fn changed_figures_are_said_on_the_page_and_those_of_records_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    copy(&RUNS.1[1], &run);
    let attacks = ["--attacks", "clean,fgsm", "--limit", "10"];
    let output = sora(&[&["eval", text(&run)], &attacks[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let record = fs::read_dir(run.join("eval")).unwrap().next().unwrap().unwrap().path();
    let name = record.file_name().unwrap().to_str().unwrap().to_owned();
    let page = || {
        let output = sora(&["report", text(&run), "--no-compute"]);
        assert!(output.status.success(), "{}", stderr(&output));
        plain(&run.join("report.html"))
    };
    assert!(!page().contains("was changed since"));
    let before = fs::read(&record).unwrap();
    change_a_digit(&record, "\"accuracy\":");
    change_a_digit(&run.join("metrics.jsonl"), "\"linearity\":");
    change_a_digit(&run.join("epochs.jsonl"), "\"pert_align\":");
    let found = page();
    for name in ["metrics.jsonl", "epochs.jsonl", &name] {
        assert!(found.contains(&format!("{name} was changed since")), "{name}: {found}");
    }
    let said = stderr(&sora(&["diagnose", text(&run)]));
    assert!(said.contains("metrics.jsonl was changed since"), "{said}");
    // The evaluation is made again, to the same record.
    let output = sora(&[&["eval", text(&run)], &attacks[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let figures = |text: &[u8]| {
        let record: serde_json::Value = serde_json::from_slice(text).unwrap();
        ["clean", "fgsm"].map(|attack| record["results"][attack]["correct"].clone())
    };
    assert_eq!(figures(&fs::read(&record).unwrap()), figures(&before));
    assert!(!page().contains(&format!("{name} was changed")));
}

/// A page as a browser shows it: its text without markup.
fn plain(page: &Path) -> String {
    let mut html = fs::read_to_string(page).unwrap();
    while let Some(start) = html.find("<script") {
        let end = html[start..].find("</script>").unwrap() + start + "</script>".len();
        html.replace_range(start..end, " ");
    }
    let (mut text, mut inside) = (String::new(), false);
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts an evaluation into a run's folder.
fn put_record(run: &Path, name: &str, value: serde_json::Value) {
    fs::create_dir_all(run.join("eval")).unwrap();
    fs::write(run.join("eval").join(name), value.to_string()).unwrap();
}

#[test]
fn a_card_shows_the_final_weights_on_the_own_test_set_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("r");
    copy(&RUNS.1[0], &run);
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    let header = fs::read(run.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&header[8..8 + length]).unwrap();
    let about: serde_json::Value =
        serde_json::from_str(header["__metadata__"]["sora"].as_str().unwrap()).unwrap();
    let digest = about["sha256"].as_str().unwrap();
    let step = about["step"].as_u64().unwrap();
    let own = config["dataset"].as_str().unwrap();
    let epsilon = config["epsilon"].as_str().unwrap();
    let (top, bottom) = epsilon.split_once('/').unwrap();
    let epsilon = top.parse::<f64>().unwrap() / bottom.parse::<f64>().unwrap();
    let record = |dataset: &str, digest: &str, step: u64, n: u64, results: &[(&str, f64)]| {
        let results: serde_json::Map<_, _> = results
            .iter()
            .map(|(name, v)| {
                ((*name).to_owned(), serde_json::json!({"accuracy": v, "ci95": [0.0, 1.0]}))
            })
            .collect();
        serde_json::json!({
            "dataset": dataset, "split": "test", "n": n, "epsilon": epsilon, "norm": "linf", "seed": 0,
            "results": results, "warnings": [],
            "identity": {"weights": {"sha256": digest, "step": step}},
        })
    };
    let all = |v: f64| [("clean", v), ("fgsm", v), ("pgd-10", v), ("autoattack", v)];
    put_record(&run, "a.json", record("folder:/far/away/other", digest, step, 9000, &all(0.111)));
    put_record(&run, "b.json", record(own, "beef", step - 1, 9000, &all(0.222)));
    put_record(&run, "c.json", record(own, "beef", step, 9000, &all(0.333)));
    put_record(
        &run,
        "d.json",
        record(own, digest, step, 50, &[("clean", 0.987), ("pgd-10", 0.456)]),
    );
    put_record(
        &run,
        "e.json",
        record(own, digest, step, 2000, &[("clean", 0.876), ("fgsm", 0.765)]),
    );
    let output = sora(&["report", text(&run), "--no-compute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = plain(&run.join("report.html"));
    let card =
        &page[page.find("At a glance r").unwrap()..page.find("Accuracy in percent").unwrap()];
    assert!(card.contains("98.7 clean %") && card.contains("45.6 pgd-10 %"), "{card}");
    assert!(card.contains("\u{2013} fgsm %"), "fgsm of another evaluation: {card}");
    assert!(card.contains("n = 50 test images, final weights"), "{card}");
    for other in ["11.1", "22.2", "33.3", "87.6", "76.5"] {
        assert!(!card.contains(other), "{other} in {card}");
    }
    let table = &page[page.find("Accuracy in percent").unwrap()..];
    for part in ["of another set, folder other", "weights after step", "other weights than the run"]
    {
        assert!(table.contains(part), "no '{part}'");
    }
    assert!(!page.contains("away"), "a path of the machine");
    let tradeoff = fs::read_to_string(run.join("plots/tradeoff.svg")).unwrap();
    assert!(tradeoff.contains("n = 50 test images, final weights"), "{tradeoff}");
}

#[test]
fn a_watched_page_is_kept_until_the_run_ends() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("r");
    copy(&RUNS.1[1], &run);
    let output = sora(&["watch", text(&run), "--html"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("At a glance") && !page.contains("http-equiv=\"refresh\""));
}
