//! Figures and the report page, from real runs of a few seconds, from damaged folders, and in a
//! browser where there is one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::cli::{sora, stderr, train_short};

/// Two runs that every test may read: do not write to them.
static RUNS: LazyLock<(tempfile::TempDir, [PathBuf; 2])> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let runs = ["fgsm", "sora"].map(|method| {
        let out = dir.path().join(method);
        let output = train_short(&out, &["--method", method]);
        assert!(output.status.success(), "{}", stderr(&output));
        out
    });
    (dir, runs)
});

fn text(path: &Path) -> &str {
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
    let output = sora(&["report", text(a), text(b), "--limit", "10", "--out", text(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "At a glance",
        "figure-epsilon",
        "figure-landscape",
        "figure-examples",
        "figure-pertalign",
        "<td>method</td>",
        "pgd-10",
    ] {
        assert!(page.contains(part), "no '{part}'");
    }
    for figure in
        ["curves", "pertalign", "history", "tradeoff", "cost", "epsilon", "landscape", "examples"]
    {
        assert!(out.join("plots").join(format!("{figure}.svg")).is_file(), "{figure}");
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

    let empty = dir.path().join("empty");
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

/// A browser, if this machine has one.
fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}

/// Pixels of each of two colours in a screenshot of the page.
fn coloured(browser: &str, page: &Path, theme: &str, dir: &Path) -> [usize; 2] {
    let picture = dir.join("shot.png");
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1400,3200",
            "--virtual-time-budget=4000",
        ])
        .arg(format!("--user-data-dir={}", text(profile.path())))
        .arg(format!("--screenshot={}", text(&picture)))
        .arg(format!("file://{}?theme={theme}", text(page)))
        .output()
        .unwrap();
    let shot = image::open(&picture)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
        .to_rgb8();
    let colours = if theme == "dark" {
        [[0x5a, 0xae, 0xe6], [0xff, 0x8c, 0x42]]
    } else {
        [[0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00]]
    };
    colours.map(|wanted: [u8; 3]| {
        shot.pixels().filter(|p| p.0.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24)).count()
    })
}

#[test]
fn the_charts_draw_in_a_browser() {
    let Some(browser) = chromium() else {
        eprintln!("skipped: no chromium on this machine");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let output = sora(&[
        "report",
        text(&RUNS.1[0]),
        text(&RUNS.1[1]),
        "--no-compute",
        "--out",
        text(dir.path()),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = dir.path().join("report.html");
    // The same page without its last script: what is more than on it, the charts drew.
    let html = fs::read_to_string(&page).unwrap();
    let cut = html.rfind("<script>").unwrap();
    let still = dir.path().join("still.html");
    fs::write(&still, &html[..cut]).unwrap();
    for theme in ["light", "dark"] {
        let drawn = coloured(browser, &page, theme, dir.path());
        // Without the script the page is light whatever was asked for.
        let without =
            if theme == "light" { coloured(browser, &still, theme, dir.path()) } else { [0; 2] };
        for (drawn, without) in drawn.into_iter().zip(without) {
            assert!(
                drawn > without + 1500,
                "{theme}: {drawn} coloured pixels, {without} without the charts"
            );
        }
    }
}
