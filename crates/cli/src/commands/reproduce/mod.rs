//! `sora reproduce`: a figure or table of the paper from its recipe.

mod child;
mod table;

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use serde_json::Value;
use sora::{
    files,
    recipe::{Plan, PlannedRun, RECIPES, Recipe, Scale},
};

use self::child::{Output, sora};
use super::shared::start_threads;
use crate::{
    complete,
    console::{Table, print},
    error::{Failure, Result},
    finish::OnFinish,
    output_file::make_folder,
    signals::{self, FirstSignal},
    values::{SCALES, one_of},
};

/// Which figure of the paper to make, and where.
#[derive(Debug, clap::Args)]
pub struct ReproduceArgs {
    /// Name of a figure or table (without one: the list), or a file like those in configs/
    #[arg(value_name = "FIGURE|FILE.toml")]
    pub figure: Option<String>,
    /// Size: smoke takes minutes, small an hour or so on two cores, full is the paper's
    #[arg(long, value_parser = one_of::<Scale>(SCALES), default_value = "small")]
    pub scale: Scale,
    /// Folder of the runs and the figure
    #[arg(long, value_name = "DIR", default_value = "runs/paper")]
    pub out: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Train on this data set instead of the recipe's
    #[arg(long, value_name = "NAME|PATH", add = complete::datasets(), help_heading = "Data")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Where to compute
    #[arg(long, help_heading = "Machine")]
    pub device: Option<String>,
    /// CPU threads; 0: one a core
    #[arg(long, help_heading = "Machine")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Runs what is missing and draws.
pub fn run(args: &ReproduceArgs) -> Result<()> {
    let Some(name) = &args.figure else {
        return list();
    };
    let recipe = Recipe::find(name)?;
    let plan = recipe.plan(args.scale, &overrides(args)?)?;
    start_threads(args.threads.unwrap_or(1))?;
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
        return what_would_be_done(&plan, &dirs);
    }
    make_folder(&runs)?;
    args.finish.after(|| {
        let interrupt = signals::watch(FirstSignal::Finish(
            "interrupted: waiting for the run to write its state (again to stop at once)",
        ))?;
        let mut results = Vec::new();
        for (i, (run, dir)) in plan.runs.iter().zip(&dirs).enumerate() {
            tracing::info!("run {} of {}: {}", i + 1, dirs.len(), run.label);
            train(run, dir, &interrupt)?;
            results.push(if plan.attacks.is_empty() {
                Value::Null
            } else {
                evaluate(&plan, dir, args, &interrupt)?
            });
        }
        draw(name, &recipe, &plan, &dirs, &results, args, &interrupt)
    })
}

fn what_would_be_done(plan: &Plan, dirs: &[PathBuf]) -> Result<()> {
    let mut table = Table::new(["run", "state", "folder"]);
    for (run, dir) in plan.runs.iter().zip(dirs) {
        table.row([&run.label, state(dir), &dir.display().to_string()]);
    }
    table.print()
}

/// Writes the recipe's table and figures.
fn draw(
    name: &str,
    recipe: &Recipe,
    plan: &Plan,
    dirs: &[PathBuf],
    results: &[Value],
    args: &ReproduceArgs,
    interrupt: &AtomicBool,
) -> Result<()> {
    let name = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let stem = format!("{name}-{}", args.scale.name());
    if recipe.table {
        let path = args.out.join(format!("{stem}.md"));
        files::write_atomic(&path, table::table(recipe, plan, dirs, results)?.as_bytes())?;
        tracing::info!("table in {}", path.display());
    }
    for kind in &recipe.plots {
        let alone = recipe.plots.len() == 1;
        let file = if alone { format!("{stem}.svg") } else { format!("{stem}-{kind}.svg") };
        let path = args.out.join(file);
        let mut call: Vec<OsString> = vec!["plot".into(), kind.into()];
        call.extend(dirs.iter().map(|dir| dir.as_os_str().to_owned()));
        // The names of the figures in this folder are the program's own.
        call.extend(["--force".into(), "--out".into(), path.as_os_str().to_owned()]);
        sora(&call, Output::Drop, interrupt)?;
        tracing::info!("figure in {}", path.display());
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut table = Table::new(["figure", "what it shows"]);
    for (name, _) in RECIPES {
        table.row([*name, &Recipe::find(name)?.title]);
    }
    table.print()?;
    print("\nsora reproduce FIGURE --scale smoke|small|full [--dataset NAME|PATH]\n")
}

/// Settings of the call that go over the recipe's.
fn overrides(args: &ReproduceArgs) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::input(format!("--data-dir {}: not UTF-8", path.display())))
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
fn train(run: &PlannedRun, dir: &Path, interrupt: &AtomicBool) -> Result<()> {
    if is_done(dir) {
        return Ok(());
    }
    if dir.join("config.toml").exists() {
        let call = [OsStr::new("resume"), dir.as_os_str()];
        return sora(&call, Output::Drop, interrupt).map(drop);
    }
    // A kill while the folder was being made leaves it without settings; only empty folders go
    // here.
    fs::remove_dir(dir.join("checkpoints")).ok();
    fs::remove_dir(dir).ok();
    let config = dir.with_extension("toml");
    files::write_atomic(&config, run.config.as_bytes())?;
    let [train, from, out] = ["train", "--config", "--out"].map(OsStr::new);
    let call = [train, from, config.as_os_str(), out, dir.as_os_str()];
    let result = sora(&call, Output::Drop, interrupt);
    fs::remove_file(&config).ok();
    result.map(drop)
}

/// The report of the plan's evaluation of `dir`: the one that is there, or a new one.
fn evaluate(
    plan: &Plan,
    dir: &Path,
    args: &ReproduceArgs,
    interrupt: &AtomicBool,
) -> Result<Value> {
    if let Some(found) = evaluated(plan, dir) {
        return Ok(found);
    }
    let mut call: Vec<OsString> = vec![
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
    let json = sora(&call, Output::Keep, interrupt)?;
    serde_json::from_slice(&json).map_err(|e| {
        Failure::work(format!("{}: the evaluation's report is damaged: {e}", dir.display()))
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
