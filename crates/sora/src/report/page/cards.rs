//! The cards of a page, each with the main figures of a run.

use serde::Serialize;

use super::{colour, tables::percent};
use crate::{
    plot::{DASHES, Style},
    report::{caption::thousands, measured::Measured, run::Run},
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
    let noticed = |step: u64| format!("\u{2715} catastrophic overfitting at step {step}");
    match (run.onset(), run.rollback()) {
        (Some(again), Some(rollback)) => {
            let first = noticed(rollback.co.step);
            (format!("{first}, rolled back; again at step {}", again.step), "bad")
        }
        (None, Some(rollback)) => (format!("{}, rolled back", noticed(rollback.co.step)), "bad"),
        (Some(onset), None) => (noticed(onset.step), "bad"),
        (None, None) if run.epochs.is_empty() && run.steps.is_empty() => {
            ("no records".into(), "none")
        }
        (None, None) => ("\u{2713} no catastrophic overfitting noticed".into(), "good"),
    }
}

/// Clean accuracy, and accuracies under a single step and under the strongest other attack, all of
/// one measurement.
fn figures(result: Option<&Measured>) -> Vec<Figure> {
    let strongest = result.and_then(|result| result.strongest(&["clean", "fgsm"]));
    let strongest = strongest.map_or("pgd-10", |(name, _)| name);
    let figure = |name: &str| {
        let accuracy = result.and_then(|result| result.under(name));
        Figure { value: percent(accuracy.as_ref()), name: format!("{name} %") }
    };
    ["clean", "fgsm", strongest].map(figure).into()
}

fn source(result: &Measured) -> String {
    let words = result.words();
    let strongest = result.strongest(&["clean"]).or_else(|| result.strongest(&[]));
    let Some((name, accuracy)) = strongest else {
        return words;
    };
    let [low, high] = accuracy.ci95.map(|v| 100.0 * v);
    format!("{words}; 95 % interval of {name}: {low:.1}\u{2013}{high:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(results: &[(&str, f64)]) -> Measured {
        let accuracy = |accuracy| crate::stats::Accuracy { accuracy, ci95: [0.0, 1.0] };
        let results = results.iter().map(|(name, under)| ((*name).to_owned(), accuracy(*under)));
        let source = crate::report::measured::MeasuredOn::Validation(3);
        Measured { results: results.collect(), n: 48, source, place: 0 }
    }

    fn shown(result: &Measured) -> Vec<String> {
        let all = figures(Some(result)).into_iter();
        all.map(|figure| format!("{} {}", figure.value, figure.name)).collect()
    }

    #[test]
    fn a_card_shows_one_measurement_and_a_dash_for_what_it_lacks() {
        let measured = measured(&[("clean", 0.9), ("autoattack", 0.4)]);
        assert_eq!(shown(&measured), ["90.0 clean %", "\u{2013} fgsm %", "40.0 autoattack %"]);
        assert_eq!(figures(None).len(), 3);
    }

    #[test]
    fn a_card_shows_the_attack_with_the_lowest_accuracy() {
        let weak = [("clean", 0.2), ("fgsm", 0.047), ("pgd-20", 0.047), ("square-20", 0.078)];
        let weak = measured(&weak);
        assert_eq!(shown(&weak), ["20.0 clean %", "4.7 fgsm %", "4.7 pgd-20 %"]);
        assert!(source(&weak).contains("interval of pgd-20"), "{}", source(&weak));
        let masked = measured(&[("clean", 0.9), ("fgsm", 0.1), ("pgd-20", 0.3), ("rays", 0.2)]);
        assert_eq!(shown(&masked), ["90.0 clean %", "10.0 fgsm %", "20.0 rays %"]);
        assert!(source(&masked).contains("interval of fgsm"), "{}", source(&masked));
        assert!(source(&measured(&[("clean", 0.9)])).contains("interval of clean"));
    }

    #[test]
    fn a_collapse_after_a_rollback_is_shown_beside_the_one_before() {
        let run =
            |line: &str| Run { steps: vec![serde_json::from_str(line).unwrap()], ..Run::default() };
        let back = "\"rollback\":{\"co\":{\"step\":210},\"to_step\":200,\"from_method\":\"fgsm\",\
                    \"method\":\"sora\"}";
        let again = "\"co\":{\"step\":575}";
        for (more, expected) in [
            (format!(",{back}"), "at step 210, rolled back"),
            (format!(",{again}"), "at step 575"),
            (format!(",{back},{again}"), "at step 210, rolled back; again at step 575"),
        ] {
            let (text, class) = verdict(&run(&format!("{{\"step\":575{more}}}")));
            assert_eq!(text, format!("\u{2715} catastrophic overfitting {expected}"));
            assert_eq!(class, "bad");
        }
    }
}
