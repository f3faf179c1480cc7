//! `sora diagnose`: the logs of runs gone over for catastrophic overfitting.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sora::{
    diagnose::{CoDetector, CoEvent, Collapse, collapse},
    error::{Error, Result},
    follow::Follower,
    metrics::{EpochLine, Rollback, StepLine},
    run::RunDir,
};

use super::{print_json, print_table};

/// What was found in a run.
#[derive(Serialize)]
struct Diagnosis {
    run: String,
    method: String,
    epsilon: String,
    seed: u64,
    steps: u64,
    /// What the detector says of the logged figures.
    co: Option<CoEvent>,
    /// Whether and when multi-step accuracy was lost, from the validations.
    collapse: Option<Collapse>,
    /// Steps from the detector's word to the loss of half of the accuracy for good, where there was
    /// some.
    ahead: Option<i64>,
    /// Validations that this rests on.
    validations: usize,
    rollback: Option<Rollback>,
}

/// Goes over the runs in `dirs`.
pub fn diagnose(dirs: &[PathBuf], json: bool) -> Result<()> {
    let found = dirs.iter().map(|dir| of_run(dir)).collect::<Result<Vec<_>>>()?;
    if json {
        return print_json(&serde_json::json!({ "runs": found }));
    }
    let mut rows = vec![
        [
            "run",
            "method",
            "epsilon",
            "seed",
            "steps",
            "noticed",
            "sign",
            "pgd halved",
            "steps ahead",
        ]
        .map(String::from)
        .to_vec(),
    ];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for run in &found {
        rows.push(vec![
            run.run.clone(),
            run.method.clone(),
            run.epsilon.clone(),
            run.seed.to_string(),
            run.steps.to_string(),
            or_dash(run.co.map(|co| co.step.to_string())),
            or_dash(run.co.map(|co| format!("{:?}", co.sign).to_lowercase())),
            or_dash(
                run.collapse.map(|c| {
                    c.half_step.map_or_else(|| "never rose".into(), |step| step.to_string())
                }),
            ),
            or_dash(run.ahead.map(|ahead| ahead.to_string())),
        ]);
    }
    print_table(&rows)
}

fn of_run(path: &Path) -> Result<Diagnosis> {
    let (dir, config) = RunDir::open(path)?;
    let (mut steps, mut epochs) =
        (Follower::<StepLine>::new(dir.metrics()), Follower::<EpochLine>::new(dir.epochs()));
    steps.poll()?;
    epochs.poll()?;
    if steps.damaged() + epochs.damaged() > 0 {
        tracing::warn!(
            "{}: {} damaged log lines passed over",
            path.display(),
            steps.damaged() + epochs.damaged()
        );
    }
    if steps.lines().is_empty() {
        return Err(Error::input(format!(
            "{}: the run has no steps yet; go on with `sora resume {}`",
            path.display(),
            path.display()
        )));
    }
    let mut detector = CoDetector::default();
    let mut pgd = Vec::new();
    let mut ends = epochs.lines().iter().peekable();
    for line in steps.lines() {
        let warming_up = config.warming_up(line.step, config.steps_per_epoch.unwrap_or(0));
        if !warming_up {
            detector.observe(line, config.lr_max);
        }
        let mut val = line.val;
        if let Some(end) = ends.next_if(|end| end.step == line.step + 1) {
            val = val.or(end.val);
        }
        if let Some(val) = val {
            if !warming_up && config.method != "none" {
                detector.observe_validation(line.step, &val);
            }
            pgd.push((line.step, val.pgd.accuracy));
        }
    }
    let chance =
        config.network.as_ref().map_or(0.0, |network| 1.0 / network.shape.classes.max(1) as f64);
    let (co, collapse) = (detector.event(), collapse(&pgd, chance));
    Ok(Diagnosis {
        run: path.display().to_string(),
        method: config.method,
        epsilon: config.epsilon.to_string(),
        seed: config.seed,
        steps: steps.lines().len() as u64,
        ahead: co
            .zip(collapse.and_then(|c| c.half_step))
            .map(|(co, half)| half as i64 - co.step as i64),
        co,
        collapse,
        validations: pgd.len(),
        rollback: steps.lines().iter().find_map(|line| line.rollback.clone()),
    })
}
