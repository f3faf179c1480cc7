//! Clean against robust accuracy, over methods, data sets and networks.

use super::{
    labels::{Fact, differing, label, numbered},
    styles::method_styles,
};
use crate::{
    plot::{Axis, Chart, Figure, Point, Series, Style},
    report::{
        caption::setting,
        measured::{Comparison, Measured},
        run::Run,
        seeds::{Group, groups, mean_and_deviation},
    },
    stats::Accuracy,
};

/// Draws robust accuracy over clean accuracy, with one point for each run, or for the seeds of an
/// experiment, and one panel for each set of images and each threat.
pub fn tradeoff(runs: &[Run]) -> Figure {
    let comparison = Comparison::of(runs);
    let all = groups(runs);
    let panels = panels(&all, &comparison);
    let mut figure = Figure::new("Clean against robust accuracy")
        .columns(panels.len().min(3))
        .panel_size(440.0, 320.0)
        .caption(format!(
            "{} {}; {}. Top right is best.",
            setting(runs),
            comparison.words(runs),
            bars(&all)
        ));
    let styles = method_styles(&all);
    let networks = differing(runs, &[Run::network]);
    for (title, members) in titles(runs, &all, &panels).into_iter().zip(&panels) {
        let mut chart = Chart::new(
            title,
            Axis::linear("clean accuracy (%)"),
            Axis::linear(format!("{} accuracy (%)", comparison.attack)),
        )
        .empty("not measured yet");
        for i in members {
            let (group, style) = (&all[*i], styles[*i]);
            let found = group.measured(runs, &comparison);
            let series = point(group, &found, &comparison.attack, style, &networks);
            chart = series.into_iter().fold(chart, Chart::series);
        }
        figure = figure.panel(chart);
    }
    figure
}

/// The groups of each panel, by their places: those whose accuracies are of the same images and
/// under the same threat.
fn panels(all: &[Group<'_>], comparison: &Comparison) -> Vec<Vec<usize>> {
    let mut panels: Vec<(_, Vec<usize>)> = Vec::new();
    for (i, group) in all.iter().enumerate() {
        let Some(run) = group.runs.first() else { continue };
        let key = (run.measured_key(comparison.on()), run.threat_key());
        match panels.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push(i),
            None => panels.push((key, vec![i])),
        }
    }
    panels.into_iter().map(|(_, members)| members).collect()
}

/// The title of each panel: its data set and, where the runs have several, its threat.
fn titles(runs: &[Run], all: &[Group<'_>], panels: &[Vec<usize>]) -> Vec<String> {
    let several = !differing(runs, &[Run::threat_key]).is_empty();
    let title = |run: &Run| {
        if several { format!("{}, {}", run.dataset(), run.threat()) } else { run.dataset() }
    };
    let first = |members: &Vec<usize>| {
        let run = members.first().and_then(|i| all[*i].runs.first());
        run.map_or_else(String::new, |run| title(run))
    };
    numbered(&panels.iter().map(first).collect::<Vec<_>>())
}

/// The meaning of error bars, for captions.
pub(super) fn bars(groups: &[Group<'_>]) -> &'static str {
    if groups.iter().any(Group::has_seeds) {
        "bars are 95 % Wilson intervals or, where several seeds were measured, a standard \
         deviation to both sides of their mean"
    } else {
        "bars are 95 % Wilson intervals"
    }
}

/// An accuracy over a group in percent with its interval: the run's own interval, or mean and
/// standard deviation over the seeds.
pub(super) fn over_group(group: &[(&Run, &Measured)], attack: &str) -> Option<(f64, [f64; 2])> {
    let all: Option<Vec<Accuracy>> = group.iter().map(|(_, m)| m.under(attack)).collect();
    match all?.as_slice() {
        [] => None,
        [one] => Some((100.0 * one.accuracy, one.ci95.map(|v| 100.0 * v))),
        several => {
            let values: Vec<f64> = several.iter().map(|a| 100.0 * a.accuracy).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            let deviation = deviation.unwrap_or_default();
            Some((mean, [mean - deviation, mean + deviation]))
        }
    }
}

/// The point of a group, whose runs were measured so.
fn point(
    group: &Group<'_>,
    found: &[(&Run, &Measured)],
    attack: &str,
    style: Style,
    facts: &[Fact],
) -> Option<Series> {
    let (x, x_interval) = over_group(found, "clean")?;
    let (y, y_interval) = over_group(found, attack)?;
    let point = Point { x, y, x_interval: Some(x_interval), y_interval: Some(y_interval) };
    let (first, _) = found.first()?;
    Some(Series::new(first.method(), style, [point]).labels(vec![label(group, found.len(), facts)]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of an epoch with a validation: its name, where its data set lies and what that is, its
    /// radius, and the digest of extra data.
    pub(in crate::report::figures) fn run(
        name: &str,
        [place, data, epsilon, extra]: [&str; 4],
    ) -> Run {
        let value = |accuracy: f64| serde_json::json!({"accuracy": accuracy, "ci95": [0.0, 1.0]});
        let val = serde_json::json!(
            {"n": 9, "clean": value(0.8), "fgsm": value(0.5), "pgd": value(0.4)}
        );
        let line = serde_json::json!(
            {"epoch": 0, "step": 5, "val": val, "seconds": 3.0, "peak_rss_mib": 7}
        );
        let split = |name: &str, sha256: &str| {
            format!(
                "[{name}]\nsha256 = \"{sha256}\"\nimages = 5\nshape = [1, 1, 1]\nclasses = []\n"
            )
        };
        let config = format!(
            "method = \"fgsm\"\nnorm = \"linf\"\nepsilon = \"{epsilon}\"\nseed = 0\n\
             dataset = \"folder:/{place}/pets\"\n{}{}{}",
            split("data.train", data),
            split("data.test", data),
            if extra.is_empty() { String::new() } else { split("extra", extra) }
        );
        Run {
            name: name.into(),
            config: config.parse().unwrap(),
            epochs: vec![serde_json::from_value(line).unwrap()],
            ..Run::default()
        }
    }

    #[test]
    fn a_panel_is_of_one_set_of_images_and_one_threat() {
        let runs = [
            run("a", ["old", "one", "8/255", ""]),
            run("b", ["new", "other", "8/255", ""]),
            run("c", ["new", "other", "16/255", ""]),
            run("d", ["copy", "one", "8/255", "more"]),
        ];
        let (all, comparison) = (groups(&runs), Comparison::of(&runs));
        let found = panels(&all, &comparison);
        assert_eq!(found, [vec![0usize, 3], vec![1], vec![2]]);
        let threat = "folder pets, l-inf \u{3b5}";
        let expected = [
            format!("{threat} = 8/255 (1)"),
            format!("{threat} = 8/255 (2)"),
            format!("{threat} = 16/255"),
        ];
        assert_eq!(titles(&runs, &all, &found), expected);
        let two = groups(&runs[..2]);
        let titles = titles(&runs[..2], &two, &panels(&two, &comparison));
        assert_eq!(titles, ["folder pets (1)", "folder pets (2)"]);
        let svg = tradeoff(&runs).to_svg().unwrap();
        assert!(expected.iter().all(|title| svg.contains(title)), "{svg}");
    }

    #[test]
    fn one_measured_seed_of_several_has_its_own_interval_and_says_so() {
        let mut runs = [run("a", ["x", "one", "8/255", ""]), run("b", ["x", "one", "8/255", ""])];
        runs[1].config.insert("seed".into(), toml::Value::Integer(1));
        runs[1].epochs.clear();
        let (all, comparison) = (groups(&runs), Comparison::of(&runs));
        let found = all[0].measured(&runs, &comparison);
        assert_eq!(over_group(&found, "pgd-10"), Some((40.0, [0.0, 100.0])));
        let svg = tradeoff(&runs).to_svg().unwrap();
        assert!(svg.contains("1 of 2 measured"), "{svg}");
    }
}
