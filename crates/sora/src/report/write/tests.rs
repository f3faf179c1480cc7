use super::{super::run::tests::folder, *};

#[test]
fn what_is_written_was_named_before() {
    let config = "method = \"fgsm\"\n";
    let steps = "{\"step\":0,\"loss\":2.5}\n{\"step\":1,\"loss\":2.0}\n";
    let dir = folder(&[
        ("a/seed0/config.toml", config),
        ("a/seed0/metrics.jsonl", steps),
        ("b/seed0/config.toml", config),
        ("b/seed0/metrics.jsonl", steps),
        ("begun/config.toml", config),
    ]);
    let runs = ["a/seed0", "b/seed0", "begun"].map(|run| dir.path().join(run));
    for (paths, formats) in [(&runs[..], Formats::Svg), (&runs[..1], Formats::SvgAndPng)] {
        let out = dir.path().join(format!("out of {}", paths.len()));
        let (all, options) =
            (Runs::load(paths).unwrap(), ReportOptions { formats, ..Default::default() });
        let mut named = outputs(&all, &out, &options);
        assert!(named.iter().all(|(_, path)| !path.exists()));
        write(&all, &out, &options).unwrap();
        assert!(named.iter().all(|(_, path)| path.is_file()), "{named:?}");
        named.retain(|(kind, _)| *kind != FileKind::Page);
        let count = |name: &str| fs::read_dir(out.join(name)).unwrap().count();
        assert_eq!(count(PLOTS) + count(LOGS), named.len(), "{named:?}");
    }
}

#[test]
fn no_file_of_a_run_is_written_over_that_of_another() {
    let names = ["exp1/a/seed0", "exp2/a/seed0", "run 1", "run-1", "Run+1", "run-1-2"];
    let config = "method = \"fgsm\"\n";
    let steps: Vec<_> =
        (0..names.len()).map(|i| format!("{{\"step\":0,\"loss\":{i}.5}}\n")).collect();
    let files: Vec<_> = names
        .iter()
        .zip(&steps)
        .flat_map(|(name, steps)| {
            let log = (format!("{name}/metrics.jsonl"), steps.as_str());
            [(format!("{name}/config.toml"), config), log]
        })
        .collect();
    let dir = folder(&files.iter().map(|(file, text)| (file.as_str(), *text)).collect::<Vec<_>>());
    let all = Runs::load(&names.map(|name| dir.path().join(name))).unwrap();
    let out = dir.path().join("out");
    write(&all, &out, &ReportOptions::default()).unwrap();
    let named = outputs(&all, &out, &ReportOptions::default());
    let lower = |path: &PathBuf| path.to_string_lossy().to_lowercase();
    let distinct: BTreeSet<_> = named.iter().map(|(_, path)| lower(path)).collect();
    assert_eq!(distinct.len(), named.len(), "{named:?}");
    for (i, run) in all.runs.iter().enumerate() {
        let log = fs::read_to_string(out.join(LOGS).join(log_name(&all.runs, &run.name))).unwrap();
        assert!(log.contains(&format!("0,0,{i}.5,")), "{}: {log}", run.name);
    }
    let animations = all.runs.iter().map(|run| animation_name(&all.runs, &run.name).to_lowercase());
    assert_eq!(animations.collect::<BTreeSet<_>>().len(), names.len());
    assert_eq!(log_name(&all.runs[..1], &all.runs[0].name), "exp1-a-seed0.csv");
}

#[test]
fn a_folder_that_cannot_be_made_leaves_nothing_half_written() {
    let steps = "{\"step\":0,\"loss\":2.5}\n";
    let run = [("run/config.toml", "method = \"fgsm\"\n"), ("run/metrics.jsonl", steps)];
    let dir = folder(&[&run[..], &[("out/csv", "a file")]].concat());
    let all = Runs::load(&[dir.path().join("run")]).unwrap();
    let out = dir.path().join("out");
    assert!(write(&all, &out, &ReportOptions::default()).is_err());
    assert_eq!(fs::read_dir(out.join(PLOTS)).unwrap().count(), 0);
    assert!(!out.join(PAGE).exists());
}

#[test]
fn a_page_of_a_run_is_linked_where_it_lies_near() {
    let dir = tempfile::tempdir().unwrap();
    for run in ["runs/a", "runs/b c", "elsewhere/far"] {
        let run = dir.path().join(run);
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("report.html"), "").unwrap();
    }
    let at = |path: &str| dir.path().join(path);
    for (run, out, expected) in [
        ("runs/a", "runs/all", Some("../a/report.html")),
        ("runs/a", "runs", Some("a/report.html")),
        ("runs/a", "", Some("runs/a/report.html")),
        ("runs/a", "runs/a", None),
        ("runs/b c", "runs", None),
        ("elsewhere/far", "runs/all", None),
        ("runs/missing", "runs", None),
    ] {
        assert_eq!(own_page(&at(run), &at(out)).as_deref(), expected, "{run} {out}");
    }
}
