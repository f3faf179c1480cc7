//! An evaluation as a table.

use sora::{
    evaluate::{Corruptions, Report},
    threat::Epsilon,
};

use crate::{
    console::{Table, duration, print, wrap},
    error::Result,
};

/// Prints the report.
pub fn show(report: &Report, epsilon: &Epsilon) -> Result<()> {
    print(&format!(
        "{} {}, n = {}, {} epsilon {epsilon}, seed {}\n\n",
        report.dataset, report.split, report.n, report.norm, report.seed
    ))?;
    let counted = report.results.0.iter().any(|(_, result)| result.queries.is_some());
    let mut heading = vec!["attack", "accuracy", "95 % interval", "attacked", "time", "ms/image"];
    heading.extend(counted.then_some("queries/image"));
    let mut table = Table::new(&heading);
    let per_image = |queries: Option<u64>, attacked: u64| {
        let text = queries.map(|count| format!("{:.1}", count as f64 / attacked.max(1) as f64));
        counted.then(|| text.unwrap_or_default())
    };
    for (name, result) in &report.results.0 {
        let [low, high] = result.accuracy.ci95;
        let cells = [
            name.clone(),
            percent(result.accuracy.accuracy),
            format!("{:.2} - {:.2} %", 100.0 * low, 100.0 * high),
            result.attacked.to_string(),
            duration(result.seconds),
            format!("{:.2}", 1000.0 * result.seconds_per_image),
        ];
        table.row(cells.into_iter().chain(per_image(result.queries, result.attacked)));
        for part in &result.parts {
            let cells = [
                format!("  after {}", part.attack),
                percent(part.correct as f64 / report.n.max(1) as f64),
                String::new(),
                part.attacked.to_string(),
                duration(part.seconds),
                format!("{:.2}", 1000.0 * part.seconds / part.attacked.max(1) as f64),
            ];
            table.row(cells.into_iter().chain(per_image(part.queries, part.attacked)));
        }
    }
    table.figures_from(1).print()?;
    if let Some(corruptions) = &report.corruptions {
        print("\n")?;
        show_corruptions(corruptions)?;
    }
    if !report.notes.is_empty() {
        print("\n")?;
    }
    report.notes.iter().try_for_each(|note| print(&wrap(&format!("note: {note}\n"))))
}

/// Accuracies in percent by corruption and severity, then the means.
fn show_corruptions(found: &Corruptions) -> Result<()> {
    let mut table = Table::new(["accuracy % under", "mean", "1", "2", "3", "4", "5"]);
    let row = |name: &str, mean: f64, by_severity: &[f64]| {
        let mut cells = vec![name.to_owned(), figure(mean)];
        cells.extend(by_severity.iter().copied().map(figure));
        cells.resize(7, String::new());
        cells
    };
    for one in &found.each {
        table.row(row(one.corruption.name(), one.mean, &one.accuracy));
    }
    for family in &found.by_family {
        table.row(row(&format!("mean of {}", family.family.name()), family.accuracy, &[]));
    }
    table.row(row("mean of all", found.mean.accuracy, &found.by_severity));
    table.figures_from(1).print()?;
    let [low, high] = found.mean.ci95.map(percent);
    print(&format!("95 % interval of the mean, over images: {low} to {high}\n"))
}

fn figure(fraction: f64) -> String {
    format!("{:.1}", 100.0 * fraction)
}

fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}
