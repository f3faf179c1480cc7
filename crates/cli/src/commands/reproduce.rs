//! `sora reproduce`: a figure or table of the paper from its recipe.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use sora::{
    error::{Error, Result},
    files,
    recipe::{Plan, PlannedRun, RECIPES, Recipe},
};

use super::{print, print_table};
use crate::cli::ReproduceArgs;

/// Runs what is missing and draws.
pub fn reproduce(args: &ReproduceArgs) -> Result<()> {
    let Some(name) = &args.figure else {
        return list();
    };
    let recipe = Recipe::find(name)?;
    let plan = recipe.plan(args.scale, &overrides(args)?)?;
    let runs = args.out.join("runs");
    let dirs: Vec<PathBuf> = plan.runs.iter().map(|run| runs.join(&run.name)).collect();
    let done = dirs.iter().filter(|dir| is_done(dir)).count();
    tracing::info!(
        "{name} ({}), scale {}: {} runs, {done} of them done",
        recipe.title,
        args.scale.name(),
        dirs.len()
    );
    if args.dry_run {
        let rows = plan.runs.iter().zip(&dirs).map(|(run, dir)| {
            vec![run.label.clone(), state(dir).into(), dir.display().to_string()]
        });
        return print_table(&rows.collect::<Vec<_>>());
    }
    fs::create_dir_all(&runs).map_err(|e| {
        Error::input(format!("--out {}: cannot make the folder: {e}", args.out.display()))
    })?;
    // The child sees Ctrl-C too, saves its state and ends; this process waits for it.
    ctrlc::set_handler(|| {}).map_err(|e| Error::work(format!("cannot watch for Ctrl-C: {e}")))?;

    let mut results = Vec::new();
    for (i, (run, dir)) in plan.runs.iter().zip(&dirs).enumerate() {
        tracing::info!("run {}/{}: {}", i + 1, dirs.len(), run.label);
        train(run, dir)?;
        results.push(if plan.attacks.is_empty() {
            Value::Null
        } else {
            evaluate(&plan, dir, args)?
        });
    }

    let stem = format!(
        "{}-{}",
        Path::new(name).file_stem().unwrap_or_default().to_string_lossy(),
        args.scale.name()
    );
    if recipe.table {
        let path = args.out.join(format!("{stem}.md"));
        files::write_atomic(&path, table(&recipe, &plan, &dirs, &results)?.as_bytes())?;
        tracing::info!("table in {}", path.display());
    }
    for kind in &recipe.plots {
        let path = args.out.join(if recipe.plots.len() == 1 {
            format!("{stem}.svg")
        } else {
            format!("{stem}-{kind}.svg")
        });
        let mut call = vec!["plot".into(), kind.into()];
        call.extend(dirs.iter().map(|dir| dir.as_os_str().to_owned()));
        call.extend(["--out".into(), path.as_os_str().to_owned()]);
        sora(&call, Stdio::null())?;
        tracing::info!("figure in {}", path.display());
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut rows = vec![vec!["figure".to_owned(), "what it shows".to_owned()]];
    for (name, _) in RECIPES {
        rows.push(vec![(*name).to_owned(), Recipe::find(name)?.title]);
    }
    print_table(&rows)?;
    print("\nsora reproduce FIGURE --scale smoke|small|full [--dataset NAME|PATH]\n")
}

/// Settings of the call that go over the recipe's.
fn overrides(args: &ReproduceArgs) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::input(format!("--data-dir {}: not UTF-8", path.display())))
    };
    for (key, value) in [
        ("dataset", args.dataset.clone().map(toml::Value::String)),
        ("data_dir", args.data_dir.as_deref().map(path).transpose()?.map(toml::Value::String)),
        ("device", args.device.clone().map(toml::Value::String)),
        ("threads", args.threads.map(|threads| toml::Value::Integer(threads as i64))),
    ] {
        table.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(table)
}

fn is_done(dir: &Path) -> bool {
    dir.join("summary.json").exists()
}

fn state(dir: &Path) -> &'static str {
    match () {
        () if is_done(dir) => "done",
        () if dir.join("config.toml").exists() => "cut off",
        () => "missing",
    }
}

/// Brings the run in `dir` to its end.
fn train(run: &PlannedRun, dir: &Path) -> Result<()> {
    if is_done(dir) {
        return Ok(());
    }
    if dir.join("config.toml").exists() {
        return sora(&["resume".into(), dir.into()], Stdio::null()).map(drop);
    }
    // A kill while the folder was being made leaves it without settings; only empty folders go
    // here.
    fs::remove_dir(dir.join("checkpoints")).ok();
    fs::remove_dir(dir).ok();
    let config = dir.with_extension("toml");
    files::write_atomic(&config, run.config.as_bytes())?;
    let result = sora(
        &["train".into(), "--config".into(), config.clone().into(), "--out".into(), dir.into()],
        Stdio::null(),
    );
    fs::remove_file(&config).ok();
    result.map(drop)
}

/// The report of the plan's evaluation of `dir`: the one that is there, or a new one.
fn evaluate(plan: &Plan, dir: &Path, args: &ReproduceArgs) -> Result<Value> {
    if let Some(found) = evaluated(plan, dir) {
        return Ok(found);
    }
    let mut call: Vec<std::ffi::OsString> = vec![
        "eval".into(),
        dir.into(),
        "--json".into(),
        "--attacks".into(),
        plan.attacks.join(",").into(),
    ];
    for (flag, value) in [
        ("--limit", plan.limit.map(|n| n.to_string())),
        ("--threads", args.threads.map(|n| n.to_string())),
        ("--device", args.device.clone()),
        ("--data-dir", args.data_dir.as_ref().map(|dir| dir.display().to_string())),
    ] {
        if let Some(value) = value {
            call.extend([flag.into(), value.into()]);
        }
    }
    let json = sora(&call, Stdio::piped())?;
    serde_json::from_slice(&json).map_err(|e| {
        Error::work(format!("{}: the evaluation's report is damaged: {e}", dir.display()))
    })
}

/// A report under `dir/eval` with every attack of the plan on at least as many images.
fn evaluated(plan: &Plan, dir: &Path) -> Option<Value> {
    let reports = fs::read_dir(dir.join("eval")).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_report = path.extension().is_some_and(|extension| extension == "json");
        is_report.then(|| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok()).flatten()
    });
    let wanted = plan.limit.map_or(u64::MAX, |n| n as u64);
    let mut fitting = reports.filter(|report| {
        let (n, whole) =
            (report["n"].as_u64().unwrap_or(0), report["split"] == "test" && plan.limit.is_none());
        (n == wanted || whole)
            && plan.attacks.iter().all(|name| report["results"][name]["accuracy"].is_number())
    });
    // Without a limit a report on fewer images than the split has would pass: the largest is the
    // best that can be told from here.
    let first = fitting.next()?;
    Some(fitting.fold(first, |a, b| if b["n"].as_u64() > a["n"].as_u64() { b } else { a }))
}

/// A Markdown table of the runs.
fn table(recipe: &Recipe, plan: &Plan, dirs: &[PathBuf], results: &[Value]) -> Result<String> {
    let mut text = format!(
        "# {}\n\n| run | {} | seconds of training | peak MiB | catastrophic overfitting |\n",
        recipe.title,
        plan.attacks.join(" % | ") + " %"
    );
    text += &"|---".repeat(plan.attacks.len() + 4);
    text += "|\n";
    for ((run, dir), report) in plan.runs.iter().zip(dirs).zip(results) {
        let path = dir.join("summary.json");
        let summary = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let summary: Value = serde_json::from_slice(&summary)
            .map_err(|e| Error::work(format!("{}: damaged: {e}", path.display())))?;
        let cell = |name: &String| {
            let result = &report["results"][name];
            let percent = |value: &Value| {
                value.as_f64().map_or_else(|| "-".into(), |v| format!("{:.2}", 100.0 * v))
            };
            format!(
                "{} ({} - {})",
                percent(&result["accuracy"]),
                percent(&result["ci95"][0]),
                percent(&result["ci95"][1])
            )
        };
        let co = match (&summary["rollback"]["to_step"], &summary["co"]["step"]) {
            (Value::Null, Value::Null) => "no".into(),
            (Value::Null, step) => format!("step {step}"),
            (to, _) => format!("rolled back to step {to}"),
        };
        let cells = plan.attacks.iter().map(cell).collect::<Vec<_>>().join(" | ");
        let seconds = summary["seconds"].as_f64().unwrap_or(f64::NAN);
        text += &format!(
            "| {} | {cells} | {seconds:.0} | {} | {co} |\n",
            run.label, summary["peak_rss_mib"]
        );
    }
    let n = results.iter().find_map(|report| report["n"].as_u64()).unwrap_or(0);
    Ok(text
        + &format!(
            "\nTest images: {n}. Wilson 95 % intervals in brackets. Wall-clock seconds without validation.\n"
        ))
}

/// Runs this program with `call`; what it printed on standard output if that is piped.
fn sora(call: &[std::ffi::OsString], stdout: Stdio) -> Result<Vec<u8>> {
    let program = std::env::current_exe()
        .map_err(|e| Error::work(format!("cannot find this program: {e}")))?;
    let words = || call.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = Command::new(program)
        .args(call)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Error::work(format!("cannot start `sora {}`: {e}", words())))?;
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(130) => Err(Error::Stopped {
            work: format!("`sora {}`; the same call goes on from there", words()),
        }),
        Some(2) => Err(Error::input(format!("`sora {}` refused, see above", words()))),
        _ => Err(Error::work(format!(
            "`sora {}` failed, see above; the same call goes on from there",
            words()
        ))),
    }
}
