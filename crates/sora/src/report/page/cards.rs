//! The cards of a page, each with the main figures of a run.

use serde::Serialize;

use super::{colour, tables::percent};
use crate::{
    plot::{DASHES, Style},
    report::{caption::thousands, measured::Measured, record::strength, run::Run},
};

#[derive(Serialize)]
pub(super) struct Card {
    name: String,
    method: String,
    threat: String,
    network: String,
    dataset: String,
    seed: String,
    colour: usize,
    dash: String,
    verdict: String,
    verdict_class: &'static str,
    figures: Vec<Figure>,
    source: String,
    progress: String,
    links: Vec<(String, String)>,
}

/// An accuracy with its name.
#[derive(Serialize)]
struct Figure {
    value: String,
    name: String,
}

/// A card for each run.
pub(super) fn cards(runs: &[Run], styles: &[Style], links: &[Vec<(String, String)>]) -> Vec<Card> {
    let links = |i: usize| links.get(i).cloned().unwrap_or_default();
    runs.iter()
        .zip(styles)
        .enumerate()
        .map(|(i, (run, style))| card(run, style, links(i)))
        .collect()
}

fn card(run: &Run, style: &Style, links: Vec<(String, String)>) -> Card {
    let result = run.result();
    let (verdict, verdict_class) = verdict(run);
    Card {
        name: run.name.clone(),
        method: run.method(),
        threat: run.threat(),
        network: run.network(),
        dataset: run.dataset(),
        seed: run.seed(),
        colour: colour(style),
        dash: style.dash.unwrap_or(DASHES[0]).to_owned(),
        verdict,
        verdict_class,
        figures: figures(result.as_ref()),
        source: result.as_ref().map_or_else(|| "Not measured yet.".into(), source),
        progress: format!(
            "{} of {} epochs, {} steps{}",
            run.epochs.len(),
            run.setting("epochs"),
            thousands(run.steps_made()),
            if run.finished { "" } else { "; not finished" }
        ),
        links,
    }
}

fn verdict(run: &Run) -> (String, &'static str) {
    match (run.onset(), run.rollback()) {
        (_, Some(rollback)) => (
            format!("\u{2715} catastrophic overfitting at step {}, rolled back", rollback.co.step),
            "bad",
        ),
        (Some(onset), None) => {
            (format!("\u{2715} catastrophic overfitting at step {}", onset.step), "bad")
        }
        (None, None) if run.epochs.is_empty() && run.steps.is_empty() => {
            ("no records".into(), "none")
        }
        (None, None) => ("\u{2713} no catastrophic overfitting noticed".into(), "good"),
    }
}

/// Clean accuracy, and accuracies under a single step and under the strongest attack, all of one
/// measurement.
fn figures(result: Option<&Measured>) -> Vec<Figure> {
    let none = std::collections::BTreeMap::new();
    let results = result.map_or(&none, |result| &result.results);
    let strongest = results.keys().filter(|name| strength(name) > 1).max_by_key(|n| strength(n));
    let strongest = strongest.map_or("pgd-10", String::as_str);
    let figure =
        |name: &str| Figure { value: percent(results.get(name)), name: format!("{name} %") };
    ["clean", "fgsm", strongest].map(figure).into()
}

fn source(result: &Measured) -> String {
    let words = result.words();
    let strongest = result.results.keys().max_by_key(|name| strength(name));
    let Some((name, accuracy)) = strongest.and_then(|name| Some((name, result.under(name)?)))
    else {
        return words;
    };
    let [low, high] = accuracy.ci95.map(|v| 100.0 * v);
    format!("{words}; 95 % interval of {name}: {low:.1}\u{2013}{high:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_shows_one_measurement_and_a_dash_for_what_it_lacks() {
        let accuracy = |accuracy| crate::stats::Accuracy { accuracy, ci95: [0.0, 1.0] };
        let results =
            [("clean".to_owned(), accuracy(0.9)), ("autoattack".to_owned(), accuracy(0.4))];
        let source = crate::report::measured::MeasuredOn::Validation(3);
        let measured = Measured { results: results.into(), n: 48, source };
        let shown: Vec<_> = figures(Some(&measured))
            .into_iter()
            .map(|f| format!("{} {}", f.value, f.name))
            .collect();
        assert_eq!(shown, ["90.0 clean %", "\u{2013} fgsm %", "40.0 autoattack %"]);
        assert_eq!(figures(None).len(), 3);
    }
}
