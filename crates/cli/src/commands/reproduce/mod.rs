//! `sora reproduce`: a figure or table of the paper from its recipe.

mod table;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use serde_json::Value;
use sora::{
    files,
    run::recipe::{RECIPES, Recipe, RecipePlan, Scale},
};

use super::shared::{Output, Overrides, evaluate, is_done, sora, start_threads, state, train};
use crate::{
    console::{Table, print},
    error::Result,
    finish::OnFinish,
    output_file::make_folder,
    signals,
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
    #[command(flatten)]
    pub over: Overrides,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Runs the missing runs and draws the figures.
pub fn run(args: &ReproduceArgs) -> Result<()> {
    let Some(name) = &args.figure else {
        return list();
    };
    let recipe = Recipe::find(name)?;
    let plan = recipe.plan(Some(args.scale), &args.over.table()?)?;
    start_threads(args.over.threads.unwrap_or(1))?;
    let runs = args.out.join("runs");
    let dirs: Vec<PathBuf> = plan.runs.iter().map(|run| run.folder(&runs)).collect();
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
        let interrupt = signals::flag();
        let mut results = Vec::new();
        for (i, (run, dir)) in plan.runs.iter().zip(&dirs).enumerate() {
            tracing::info!("run {} of {}: {}", i + 1, dirs.len(), run.label);
            train(run, dir, &interrupt)?;
            results.push(if plan.attacks.is_empty() {
                Value::Null
            } else {
                evaluate(&plan, dir, &args.over, &interrupt)?
            });
        }
        draw(name, &recipe, &plan, &dirs, &results, args, &interrupt)
    })
}

fn what_would_be_done(plan: &RecipePlan, dirs: &[PathBuf]) -> Result<()> {
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
    plan: &RecipePlan,
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
        // The figures in this folder have names of the program's own, so they may be overwritten.
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
