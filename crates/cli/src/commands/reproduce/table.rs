//! The table of a recipe's evaluations, in Markdown.

use std::path::PathBuf;

use serde_json::Value;
use sora::run::recipe::{Recipe, RecipePlan};

use crate::{
    commands::shared::summary,
    error::{Failure, Result},
};

/// The table of the runs of `plan`, one row per run.
///
/// # Errors
/// A run without a summary.
pub fn table(
    recipe: &Recipe,
    plan: &RecipePlan,
    dirs: &[PathBuf],
    results: &[Value],
) -> Result<String> {
    let mut text = format!(
        "# {}\n\n| run | {} | seconds of training | peak MiB | catastrophic overfitting |\n",
        recipe.title,
        plan.attacks.join(" % | ") + " %"
    );
    text += &"|---".repeat(plan.attacks.len() + 4);
    text += "|\n";
    for ((run, dir), report) in plan.runs.iter().zip(dirs).zip(results) {
        let summary = summary(dir)?.ok_or_else(|| {
            Failure::work(format!("{}: the run has no summary.json", dir.display()))
        })?;
        let cells: Vec<_> =
            plan.attacks.iter().map(|name| accuracy(&report["results"][name])).collect();
        let seconds = summary["seconds"].as_f64().unwrap_or(f64::NAN);
        text += &format!(
            "| {} | {} | {seconds:.0} | {} | {} |\n",
            run.label,
            cells.join(" | "),
            summary["peak_rss_mib"],
            overfitting(&summary)
        );
    }
    let n = results.iter().find_map(|report| report["n"].as_u64()).unwrap_or(0);
    text += &format!(
        "\nTest images: {n}. Wilson 95 % intervals in brackets. Wall-clock seconds without \
         validation.\n"
    );
    Ok(text)
}

/// `51.20 (48.10 - 54.29)`.
fn accuracy(result: &Value) -> String {
    let percent = |value: &Value| {
        value.as_f64().map_or_else(|| "-".into(), |value| format!("{:.2}", 100.0 * value))
    };
    let [low, high] = [0, 1].map(|end| percent(&result["ci95"][end]));
    format!("{} ({low} - {high})", percent(&result["accuracy"]))
}

fn overfitting(summary: &Value) -> String {
    match (&summary["rollback"]["to_step"], &summary["co"]["step"]) {
        (Value::Null, Value::Null) => "no".into(),
        (Value::Null, step) => format!("step {step}"),
        (to, Value::Null) => format!("rolled back to step {to}"),
        (to, again) => format!("rolled back to step {to}, again at step {again}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_collapse_after_a_rollback_is_in_the_table() {
        let (back, again) = (json!({"to_step": 200}), json!({"step": 575}));
        for (rollback, co, expected) in [
            (Value::Null, Value::Null, "no"),
            (Value::Null, again.clone(), "step 575"),
            (back.clone(), Value::Null, "rolled back to step 200"),
            (back, again, "rolled back to step 200, again at step 575"),
        ] {
            assert_eq!(overfitting(&json!({"rollback": rollback, "co": co})), expected);
        }
    }
}
