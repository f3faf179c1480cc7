//! Runs of a plan: missing runs are trained and evaluated, and runs that were cut off continue.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use serde_json::Value;
use sora::{
    evaluate, files, report,
    run::{
        RunDir, checkpoint,
        recipe::{PlannedRun, RecipePlan},
    },
    sealed,
};

use super::child::{Output, sora};
use crate::{
    complete,
    error::{Failure, Result},
};

/// File name of a run's final figures.
const SUMMARY: &str = "summary.json";

/// Settings that go over those of a plan's file.
#[derive(Clone, Debug, clap::Args)]
pub struct Overrides {
    /// Train on this data set instead of the file's
    #[arg(long, value_name = "NAME|PATH", add = complete::datasets(), help_heading = "Data")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Where to compute
    #[arg(long, help_heading = "Machine")]
    pub device: Option<String>,
    /// CPU threads; 0: one a core
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub threads: Option<usize>,
}

impl Overrides {
    /// As keys of a config file.
    ///
    /// # Errors
    /// A path that TOML cannot hold.
    pub fn table(&self) -> Result<toml::Table> {
        let mut table = toml::Table::new();
        let path = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Failure::input(format!("--data-dir {}: not UTF-8", path.display())))
        };
        for (key, value) in [
            ("dataset", self.dataset.clone().map(toml::Value::String)),
            ("data_dir", self.data_dir.as_deref().map(path).transpose()?.map(toml::Value::String)),
            ("device", self.device.clone().map(toml::Value::String)),
            ("threads", self.threads.map(|threads| toml::Value::Integer(threads as i64))),
        ] {
            table.extend(value.map(|value| (key.to_owned(), value)));
        }
        Ok(table)
    }

    /// As flags of `sora eval`; the data set is the run's.
    fn flags(&self) -> Vec<OsString> {
        [
            ("--threads", self.threads.map(|n| n.to_string().into())),
            ("--device", self.device.clone().map(OsString::from)),
            ("--data-dir", self.data_dir.clone().map(OsString::from)),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some([flag.into(), value?]))
        .flatten()
        .collect()
    }
}

/// Whether the run in `dir` is finished. One whose final figures were changed is not: going on with
/// it writes them anew.
pub fn is_done(dir: &Path) -> bool {
    fs::read(dir.join(SUMMARY)).is_ok_and(|text| !sealed::is_changed(&text))
}

/// Whether the finished run in `dir` has lost its weights, but not the checkpoints that have them.
fn has_lost_weights(dir: &Path) -> bool {
    let run = RunDir::at(dir);
    let kept = checkpoint::list(&run.checkpoints()).is_ok_and(|all| !all.is_empty());
    kept && !run.model().exists()
}

/// The final figures of the run in `dir`; `None` if it is not finished.
///
/// # Errors
/// A file that is damaged or was changed.
pub fn summary(dir: &Path) -> Result<Option<Value>> {
    let path = dir.join(SUMMARY);
    match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io("read", &path, &e)),
        Ok(text) => Ok(Some(sealed::parse(&path, &text)?)),
    }
}

/// `done`, `cut off` or `missing`.
pub fn state(dir: &Path) -> &'static str {
    match () {
        () if is_done(dir) => "done",
        () if dir.join("config.toml").exists() => "cut off",
        () => "missing",
    }
}

/// Trains the run in `dir` to its end.
///
/// # Errors
/// A run that fails or is interrupted.
pub fn train(run: &PlannedRun, dir: &Path, interrupt: &AtomicBool) -> Result<()> {
    if is_done(dir) && !has_lost_weights(dir) {
        return Ok(());
    }
    if dir.join("config.toml").exists() {
        if is_done(dir) {
            tracing::warn!(
                "{}: is gone; written anew from the newest checkpoint",
                RunDir::at(dir).model().display()
            );
        } else if dir.join(SUMMARY).exists() {
            tracing::warn!(
                "{}: changed since it was written (damaged or edited); made anew from the run",
                dir.join(SUMMARY).display()
            );
        }
        let call = [OsStr::new("resume"), dir.as_os_str()];
        return sora(&call, Output::Drop, interrupt).map(drop);
    }
    // A kill during the creation of the folder leaves it without settings; only empty folders are
    // removed here.
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

/// The report of the plan's evaluation of `dir`: an existing one, or a new one.
///
/// # Errors
/// An evaluation that fails or is interrupted.
pub fn evaluate(
    plan: &RecipePlan,
    dir: &Path,
    over: &Overrides,
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
    call.extend(plan.limit.into_iter().flat_map(|n| ["--limit".into(), n.to_string().into()]));
    call.extend(over.flags());
    let json = sora(&call, Output::Keep, interrupt)?;
    serde_json::from_slice(&json).map_err(|e| {
        Failure::work(format!("{}: the evaluation's report is damaged: {e}", dir.display()))
    })
}

/// The record under `dir/eval` of the plan's evaluation: by this program, of the run's final weights
/// on its own test images under its own threat, with every attack of the plan and as many images.
pub fn evaluated(plan: &RecipePlan, dir: &Path) -> Option<Value> {
    let run = report::Run::load(dir).ok()?;
    for line in run.warnings.iter().filter(|line| line.starts_with("eval/")) {
        tracing::warn!("{}: {line}", dir.display());
    }
    // A run without its data in config.toml (of an older version) does not know how many there are.
    let all = run.test_identity().map(|own| own.images as u64);
    let most = run.records.iter().map(|record| record.n).max().unwrap_or(0);
    let whole = all.unwrap_or(most);
    let wanted = plan.limit.map_or(whole, |n| whole.min(n as u64));
    // Weights that were removed to save space can no longer be compared: their steps tell them.
    let gone = !run.dir().model().exists();
    let last = summary(dir).ok()??["steps"].as_u64();
    let of_end = |of| of == report::Of::Final || (gone && last.map(report::Of::Step) == Some(of));
    let fits = |record: &&report::Record| {
        of_end(record.of)
            && record.program == evaluate::program()
            && record.seed == 0
            && record.n == wanted
            && run.is_own_test(record)
            && plan.attacks.iter().all(|name| record.results.contains_key(name))
    };
    let record = run.records.iter().find(fits)?;
    let file = run.dir().evaluations().join(format!("{}.json", record.name));
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}
