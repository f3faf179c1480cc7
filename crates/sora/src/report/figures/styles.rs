//! Colours and shapes with the same meaning in every figure, and the arrangement of panels.

use crate::{
    plot::{Chart, Figure, MARKERS, Marker, PALETTE, Panel, Style, Svg},
    report::{run::Run, seeds::Group},
};

/// Accuracy on clean images.
pub(super) fn clean_style() -> Style {
    Style::marked(2).paint(PALETTE[2]).dash("2 2.5").marker(Marker::Circle)
}

/// Accuracy under a single step.
pub(super) fn single_style() -> Style {
    Style::marked(1).paint(PALETTE[1]).dash("7 3").marker(Marker::Triangle)
}

/// Accuracy under many steps.
pub(super) fn multi_style() -> Style {
    Style::marked(0).paint(PALETTE[0]).dash("").marker(Marker::Square)
}

/// Line of each run, in the colour of its method where this separates the runs.
pub fn run_styles(runs: &[Run]) -> Vec<Style> {
    indices(&runs.iter().map(Run::method).collect::<Vec<_>>()).map_or_else(
        || (0..runs.len()).map(Style::line).collect(),
        |all| all.into_iter().map(Style::line).collect(),
    )
}

/// Line of each experiment, in the colour of its method where this separates the experiments.
pub(super) fn group_styles(groups: &[Group<'_>]) -> Vec<Style> {
    indices(&methods(groups)).map_or_else(
        || (0..groups.len()).map(Style::line).collect(),
        |all| all.into_iter().map(Style::line).collect(),
    )
}

/// Points of each experiment, coloured by method: SORA is a blue star, and the other methods take
/// their colours in the order of their appearance.
pub(super) fn method_styles(groups: &[Group<'_>]) -> Vec<Style> {
    let methods = methods(groups);
    let style = |(method, index): (&String, usize)| {
        let marker = if method == "sora" { Marker::Star } else { MARKERS[index % MARKERS.len()] };
        Style::points(index).marker(marker)
    };
    methods.iter().zip(by_method(&methods)).map(style).collect()
}

fn methods(groups: &[Group<'_>]) -> Vec<String> {
    let first = |group: &Group<'_>| group.runs.first().map(|run| run.method()).unwrap_or_default();
    groups.iter().map(first).collect()
}

/// A number for each method, if all methods differ.
fn indices(methods: &[String]) -> Option<Vec<usize>> {
    let mut distinct = methods.to_vec();
    distinct.sort();
    distinct.dedup();
    (distinct.len() == methods.len()).then(|| by_method(methods))
}

/// A number for each method; SORA's is 0.
fn by_method(methods: &[String]) -> Vec<usize> {
    let mut seen = vec!["sora".to_owned()];
    let mut index = |method: &String| {
        seen.iter().position(|m| m == method).unwrap_or_else(|| {
            seen.push(method.clone());
            seen.len() - 1
        })
    };
    methods.iter().map(&mut index).collect()
}

/// Heading of an experiment's panel.
pub(super) fn heading(group: &Group<'_>) -> String {
    let method = group.runs.first().map(|run| run.method()).unwrap_or_default();
    let said = group.name.strip_prefix(method.as_str());
    if said.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric())) {
        group.name.clone()
    } else {
        format!("{} ({method})", group.name)
    }
}

/// An empty place in the grid.
#[derive(Debug)]
pub(super) struct Blank;

impl Panel for Blank {
    fn draw(&self, _: &mut Svg, _: [f64; 4]) {}
}

/// Panels of a grid with one column for each experiment and one row for each of `rows`. More than
/// `across` experiments continue below.
pub(super) fn columns(
    figure: Figure,
    groups: &[Group<'_>],
    across: usize,
    rows: &[&dyn Fn(&Group<'_>) -> Chart],
) -> Figure {
    let across = across.min(groups.len()).max(1);
    let mut figure = figure.columns(across);
    for part in groups.chunks(across) {
        for row in rows {
            for i in 0..across {
                figure = match part.get(i) {
                    Some(group) => figure.panel(row(group)),
                    None => figure.panel(Blank),
                };
            }
        }
    }
    figure
}

/// The meaning of bands, for captions.
pub(super) fn bands(groups: &[Group<'_>]) -> &'static str {
    match (groups.iter().any(Group::has_seeds), groups.iter().all(Group::has_seeds)) {
        (false, _) => "bands are 95 % Wilson intervals",
        (true, true) => "lines are means over seeds, bands a standard deviation to both sides",
        (true, false) => {
            "with several seeds, lines are means and bands a standard deviation to both sides; else \
             bands are 95 % Wilson intervals"
        }
    }
}
