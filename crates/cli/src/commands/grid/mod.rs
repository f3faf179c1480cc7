//! `sora grid`: a product of settings and seeds, over one machine or many.

mod estimate;
mod shard;
mod table;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use sora::run::recipe::{Recipe, RecipePlan, Scale};

use self::{shard::Shard, table::Outcome};
use super::shared::{Overrides, evaluate, evaluated, start_threads, state, train};
use crate::{
    console::{Table, duration, print, print_json},
    error::{Failure, Kind, Result},
    finish::OnFinish,
    output_file::{Content, Overwrite, make_folder, prepare},
    signals,
    values::{SCALES, one_of},
};

/// Which grid, and what to do with it.
#[derive(Debug, clap::Args)]
pub struct GridArgs {
    /// The grid: [train] settings, [[runs]] with lists, attacks and limit of the evaluation; or a
    /// recipe of `sora reproduce`
    ///
    /// Each [[runs]] is a product of its lists, such as method = ["fgsm", "sora"] and seed =
    /// [0, 1, 2]; runs that differ in nothing but the seed are put together in the table.
    #[arg(value_name = "FILE.toml|FIGURE")]
    pub file: String,
    /// Size, for a recipe that has several
    #[arg(long, value_parser = one_of::<Scale>(SCALES))]
    pub scale: Option<Scale>,
    /// Folder of the runs [default: runs/ and the file's name]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Only the I-th of N parts of the grid, from 1 [default: of a Slurm job array, its task]
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Say which runs are done, cut off or missing, and do nothing
    #[arg(long)]
    pub status: bool,
    /// Measure a step of each kind of run, say how long the grid would take, and do nothing
    #[arg(long, conflicts_with = "status")]
    pub dry_run: bool,
    /// The table as one JSON object on standard output
    #[arg(long, conflicts_with_all = ["status", "dry_run"], help_heading = "Output")]
    pub json: bool,
    /// Also write a row for each run to a CSV file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["status", "dry_run"],
        help_heading = "Output"
    )]
    pub csv: Option<PathBuf>,
    /// Overwrite a CSV file that another program wrote
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    #[command(flatten)]
    pub over: Overrides,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Runs the missing runs and prints the table.
pub fn run(args: &GridArgs) -> Result<()> {
    let plan = Recipe::find(&args.file)?.plan(args.scale, &args.over.table()?)?;
    start_threads(args.over.threads.unwrap_or(1))?;
    let name = Path::new(&args.file);
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(name.file_stem().unwrap_or_default()));
    let dirs: Vec<PathBuf> = plan.runs.iter().map(|run| run.folder(&out)).collect();
    let shard = match args.shard {
        Some(shard) => shard,
        None => Shard::of_slurm(|name| std::env::var(name).ok())?,
    };
    args.finish.after(|| {
        if args.status {
            return status(&plan, &dirs, args.shard);
        }
        if args.dry_run {
            return estimate::estimate(&plan, &dirs, shard, &args.over);
        }
        make_folder(&out)?;
        if let Some(csv) = &args.csv {
            prepare(csv, Content::Rows, Overwrite::by(args.force))?;
        }
        // The table shows what is done, also where a run has failed.
        let worked = work(&plan, &dirs, shard, &args.over);
        if worked.as_ref().is_err_and(|failure| failure.kind() == Kind::Interrupted) {
            return worked;
        }
        show(args, &plan, &dirs).and(worked)
    })
}

/// The state of the runs of `shard`, or of all.
fn status(plan: &RecipePlan, dirs: &[PathBuf], shard: Option<Shard>) -> Result<()> {
    let mut table = Table::new(["run", "state", "folder"]);
    let wanted = |i: usize| shard.is_none_or(|shard| shard.takes(i));
    for (_, (run, dir)) in plan.runs.iter().zip(dirs).enumerate().filter(|(i, _)| wanted(*i)) {
        table.row([&run.label, state(dir), &dir.display().to_string()]);
    }
    table.print()
}

/// Trains and evaluates the runs of `shard`. A run that fails does not stop the others.
fn work(plan: &RecipePlan, dirs: &[PathBuf], shard: Shard, over: &Overrides) -> Result<()> {
    let interrupt = signals::flag();
    let own: Vec<_> =
        plan.runs.iter().zip(dirs).enumerate().filter(|(i, _)| shard.takes(*i)).collect();
    let mut failed = Vec::new();
    for (nth, (_, (run, dir))) in own.iter().enumerate() {
        tracing::info!("run {} of {}: {} ({})", nth + 1, own.len(), run.label, state(dir));
        let one = |interrupt: &AtomicBool| -> Result<()> {
            train(run, dir, interrupt)?;
            if !plan.attacks.is_empty() {
                evaluate(plan, dir, over, interrupt)?;
            }
            Ok(())
        };
        match one(&interrupt) {
            Ok(()) => {}
            Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
            Err(failure) => {
                tracing::warn!("{}: {}", run.label, crate::render::text(&failure));
                failed.push(run.label.clone());
            }
        }
        if interrupt.load(Ordering::Relaxed) {
            return Err(Failure::interrupted("interrupted; the same call goes on from there"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::work(format!(
        "{} of {} runs failed: {}",
        failed.len(),
        own.len(),
        failed.join("; ")
    )))
}

/// Prints the table of the finished runs.
fn show(args: &GridArgs, plan: &RecipePlan, dirs: &[PathBuf]) -> Result<()> {
    let mut missing = 0;
    let mut outcomes: Vec<Outcome> = plan
        .runs
        .iter()
        .zip(dirs)
        .map(|(run, dir)| {
            let report = evaluated(plan, dir);
            let unmeasured = report.is_none() && !plan.attacks.is_empty();
            let mut outcome = Outcome::read(run, dir, report)?;
            // Figures of a validation do not stand beside those of an evaluation.
            if unmeasured {
                outcome.figures.clear();
            }
            missing += usize::from(unmeasured || outcome.seconds.is_none());
            Ok(outcome)
        })
        .collect::<Result<_>>()?;
    table::separate(&mut outcomes);
    let summary = table::Summary::of(&outcomes);
    if let Some(csv) = &args.csv {
        sora::files::write_atomic(csv, table::csv(&outcomes).as_bytes())?;
        tracing::info!("rows in {}", csv.display());
    }
    if args.json {
        return print_json(&summary);
    }
    if missing > 0 {
        print(&format!("{missing} of {} runs are not done\n\n", outcomes.len()))?;
    }
    let seconds: f64 = outcomes.iter().filter_map(|outcome| outcome.seconds).sum();
    summary.print()?;
    print(&format!("\nseconds of training in all: {}\n", duration(seconds)))
}
