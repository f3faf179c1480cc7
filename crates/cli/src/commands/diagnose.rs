//! `sora diagnose`: searches the logs of runs for catastrophic overfitting.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sora::{
    diagnose::{
        Alarms, CoEvent, Collapse, FiveNumbers, Judgement, REFERENCE, RuleResult, Rules, collapse,
        judge_rules,
    },
    run::{
        RunConfig, RunDir,
        digests::changed_logs,
        follow::Follower,
        log::{EpochLine, Rollback, StepLine},
    },
};

use super::shared::passing_over;
use crate::{
    complete,
    console::{Table, print, print_json},
    error::{Failure, Result},
};

/// Which runs, and how to print.
#[derive(Debug, clap::Args)]
pub struct DiagnoseArgs {
    /// Run folders; others are passed over
    #[arg(required = true, add = complete::runs())]
    pub dirs: Vec<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Columns of the table.
const HEADING: [&str; 7] =
    ["run", "training", "noticed", "reference rule", "pgd halved", "steps ahead", "verdict"];

/// The findings on a run.
#[derive(Serialize)]
struct Diagnosis {
    run: String,
    method: String,
    epsilon: String,
    seed: u64,
    steps: u64,
    /// The detector's event for the logged figures.
    co: Option<CoEvent>,
    /// The loss of multi-step accuracy, from the validations.
    collapse: Option<Collapse>,
    /// Number of steps from the detector's event to the lasting loss of half of the accuracy, if
    /// both exist.
    ahead: Option<i64>,
    /// What became of the run by the criterion of docs/study.md; absent for fewer than three
    /// validations.
    judged: Option<Judgement>,
    /// The steps at which the detector, and the rules beside it, first spoke.
    alarms: Alarms,
    /// Number of validations on which the finding rests.
    validations: usize,
    rollback: Option<Rollback>,
}

/// Goes over the runs.
pub fn run(args: &DiagnoseArgs) -> Result<()> {
    let found = passing_over(&args.dirs, |dir| of_run(dir))?;
    let judged = found.iter().filter_map(|run| Some((run.judged?, &run.alarms)));
    let rules = judge_rules(&judged.collect::<Vec<_>>());
    if args.json {
        return print_json(&serde_json::json!({ "runs": found, "rules": rules }));
    }
    let mut table = Table::new(HEADING);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let common = common_folder(found.iter().map(|run| Path::new(&run.run)));
    for run in &found {
        let name = Path::new(&run.run).strip_prefix(common).unwrap_or(Path::new(&run.run));
        let noticed =
            |co: CoEvent| format!("{} {}", co.step, format!("{:?}", co.sign).to_lowercase());
        let halved = |c: Collapse| match c.half_step {
            Some(step) => step.to_string(),
            None => "never rose".into(),
        };
        table.row([
            name.display().to_string(),
            format!("{} {}, seed {}", run.method, run.epsilon, run.seed),
            or_dash(run.co.map(noticed)),
            or_dash(run.alarms.0.get(REFERENCE).copied().flatten().map(|step| step.to_string())),
            or_dash(run.collapse.map(halved)),
            or_dash(run.ahead.map(|ahead| ahead.to_string())),
            or_dash(run.judged.map(|judged| judged.verdict.name().to_owned())),
        ]);
    }
    table.print()?;
    if found.len() > 1 { show_rules(&rules) } else { Ok(()) }
}

/// The folder that holds all of several runs, which the table does not repeat.
fn common_folder<'a>(mut runs: impl Iterator<Item = &'a Path>) -> &'a Path {
    let nothing = Path::new("");
    let Some(first) = runs.next() else { return nothing };
    let holds = |folder: &Path, run: &Path| run.parent().is_some_and(|at| at.starts_with(folder));
    let (mut common, mut alone) = (first.parent().unwrap_or(nothing), true);
    for run in runs {
        alone = false;
        common = common.ancestors().find(|folder| holds(folder, run)).unwrap_or(nothing);
    }
    if alone { nothing } else { common }
}

/// How often and how early each rule was right.
fn show_rules(rules: &[RuleResult]) -> Result<()> {
    let Some(RuleResult { collapsed, healthy, .. }) = rules.first() else { return Ok(()) };
    print(&format!("\n{collapsed} of the runs collapsed, {healthy} are healthy\n\n"))?;
    let mut table = Table::new([
        "rule",
        "told",
        "late",
        "missed",
        "false alarms",
        "precision",
        "recall",
        "steps ahead: median (range)",
    ]);
    let percent = |share: Option<f64>, interval: Option<[f64; 2]>| match (share, interval) {
        (Some(share), Some([low, high])) => {
            format!("{:.0} % ({:.0} - {:.0})", 100.0 * share, 100.0 * low, 100.0 * high)
        }
        _ => "-".into(),
    };
    let lead = |FiveNumbers { min, quartiles, max, .. }: FiveNumbers| {
        format!("{:.0} ({min:.0} to {max:.0})", quartiles[1])
    };
    for rule in rules {
        table.row([
            rule.rule.clone(),
            rule.hits.to_string(),
            rule.late.to_string(),
            rule.missed.to_string(),
            rule.false_alarms.to_string(),
            percent(rule.precision, rule.precision_ci95),
            percent(rule.recall, rule.recall_ci95),
            rule.lead.map_or("-".into(), lead),
        ]);
    }
    table.figures_from(1).print()
}

fn of_run(path: &Path) -> Result<Diagnosis> {
    let (dir, config) = RunDir::open(path)?;
    let (mut steps, mut epochs) =
        (Follower::<StepLine>::new(dir.metrics()), Follower::<EpochLine>::new(dir.epochs()));
    steps.poll()?;
    epochs.poll()?;
    let (at, damaged) = (path.display(), steps.damaged() + epochs.damaged());
    if damaged > 0 {
        tracing::warn!("{at}: {damaged} damaged log lines passed over");
    }
    for line in changed_logs(&dir) {
        tracing::warn!("{at}: {line}");
    }
    if steps.lines().is_empty() {
        return Err(Failure::input(format!(
            "{at}: the run has no steps yet; go on with `sora resume {at}`"
        )));
    }
    let (rules, pgd) = replay(&config, steps.lines(), epochs.lines());
    let co = rules.event();
    let chance = 1.0 / config.network.shape.classes.max(1) as f64;
    let collapse = collapse(&pgd, chance);
    let half = collapse.and_then(|c| c.half_step);
    Ok(Diagnosis {
        run: at.to_string(),
        method: config.settings.method,
        epsilon: config.settings.epsilon.to_string(),
        seed: config.settings.seed,
        steps: steps.lines().len() as u64,
        ahead: co.zip(half).map(|(co, half)| half as i64 - co.step as i64),
        co,
        collapse,
        judged: Judgement::of(&pgd, chance),
        alarms: rules.alarms(),
        validations: pgd.len(),
        rollback: steps.lines().iter().find_map(|line| line.rollback.clone()),
    })
}

/// Replays the logged figures through the rules; returns these, and pgd accuracy by step.
fn replay(
    config: &RunConfig,
    steps: &[StepLine],
    epochs: &[EpochLine],
) -> (Rules, Vec<(u64, f64)>) {
    let mut rules = Rules::new(config.settings.lr_max);
    let mut pgd = Vec::new();
    let mut ends = epochs.iter().peekable();
    for line in steps {
        if line.rollback.is_some() {
            // As in the run: what follows is another method's, from an earlier state on.
            rules = Rules::new(config.settings.lr_max);
        }
        let warming_up = config.settings.warming_up(line.step, config.steps_per_epoch);
        if !warming_up {
            rules.observe(line);
        }
        let mut val = line.val;
        if let Some(end) = ends.next_if(|end| end.step == line.step.saturating_add(1)) {
            val = val.or(end.val);
        }
        if let Some(val) = val {
            if !warming_up && config.settings.method != "none" {
                rules.observe_validation(line.step, &val);
            }
            pgd.push((line.step, val.pgd.accuracy));
        }
    }
    (rules, pgd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_are_named_within_their_common_folder() {
        fn common<'a>(runs: &[&'a str]) -> &'a Path {
            common_folder(runs.iter().map(|run| Path::new(*run)))
        }
        assert_eq!(common(&["runs/a"]), Path::new(""), "one run keeps its path");
        assert_eq!(common(&["runs/small/a", "runs/small/b/"]), Path::new("runs/small"));
        assert_eq!(common(&["runs/small/a", "runs/large/b"]), Path::new("runs"));
        assert_eq!(common(&["/x/a", "y/b"]), Path::new(""));
        assert_eq!(common(&["a", "a/b"]), Path::new(""), "a run within a run's folder");
    }
}
