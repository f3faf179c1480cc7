//! A sweep as tables.

use sora::{evaluate::sweep::Convergence, stats::Accuracy};

use super::Report;
use crate::{
    console::{Table, print},
    error::Result,
};

/// Prints a table for each thing that was swept.
pub fn show(report: &Report) -> Result<()> {
    print(&format!(
        "{} {}, n = {}, {}, seed {}\n",
        report.dataset, report.split, report.n, report.norm, report.seed
    ))?;
    let below = |table: Table| print("\n").and_then(|()| table.print());
    if let Some(first) = report.epsilons.first() {
        let names = first.results.0.iter().map(|(name, _)| name.as_str());
        let mut table = Table::new(std::iter::once("epsilon").chain(names));
        for at in &report.epsilons {
            let cells = at.results.0.iter().map(|(_, result)| percent(&result.accuracy));
            table.row(std::iter::once(in_255(at.epsilon)).chain(cells));
        }
        below(table)?;
    }
    if !report.steps.is_empty() {
        let mut table = Table::new(["step size", "single step"]);
        for at in &report.steps {
            table.row([in_255(at.alpha), percent(&at.accuracy)]);
        }
        below(table)?;
    }
    if let Some(nearest) = &report.distances {
        let median = nearest
            .median
            .map_or("more than half stand".into(), |median| format!("{:.2}/255", 255.0 * median));
        let mut table = Table::new(["epsilon".to_owned(), format!("fab, median {median}")]);
        for at in &nearest.curve {
            table.row([in_255(at.epsilon), percent(&at.accuracy)]);
        }
        below(table)?;
    }
    if let Some(Convergence { steps, restarts }) = &report.convergence {
        for (name, curve) in [("pgd steps", steps), ("pgd-50 restarts", restarts)] {
            let mut table = Table::new([name, "accuracy"]);
            for at in curve {
                table.row([at.count.to_string(), percent(&at.accuracy)]);
            }
            below(table)?;
        }
    }
    Ok(())
}

fn percent(accuracy: &Accuracy) -> String {
    let [low, high] = accuracy.ci95;
    format!("{:.2} % ({:.2} - {:.2})", 100.0 * accuracy.accuracy, 100.0 * low, 100.0 * high)
}

fn in_255(value: f32) -> String {
    format!("{:.2}/255", value * 255.0)
}
