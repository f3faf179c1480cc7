//! Adversarial examples: image, amplified perturbation and adversarial image, with the network's
//! predictions.

use super::styles::Blank;
use crate::{
    plot::{Figure, INK, Panel, Svg, TextStyle, Tile, Weight},
    report::{
        caption::{Setting, each, settings},
        compute::{Example, ExampleSet},
    },
};

/// A line of text over a row of tiles.
#[derive(Debug)]
struct Label(String);

impl Panel for Label {
    fn draw(&self, svg: &mut Svg, [x, y, _, height]: [f64; 4]) {
        svg.text([x, y + height - 8.0], &self.0, TextStyle::new(13.0).bold().paint(INK));
    }
}

/// A row of tiles.
#[derive(Clone, Copy)]
enum Row {
    Image,
    Perturbation,
    Adversarial,
}

/// Draws the examples of each run, with a column for each image and rows of images, perturbations
/// and adversarial images.
pub fn examples(sets: &[ExampleSet]) -> Figure {
    let columns = sets.iter().map(|set| set.examples.len()).max().unwrap_or(1).max(1);
    let mut heights = Vec::new();
    let mut figure = Figure::new("Adversarial examples")
        .columns(columns)
        .panel_size(122.0, 140.0)
        .caption(caption(sets));
    let several = sets.windows(2).any(|two| two[0].about.threat != two[1].about.threat);
    for set in sets {
        heights.extend([28.0, 144.0, 126.0, 136.0]);
        let name =
            if several { format!("{}, {}", set.name, set.about.threat) } else { set.name.clone() };
        figure = figure.panel(Label(name));
        for _ in 1..columns {
            figure = figure.panel(Blank);
        }
        for row in [Row::Image, Row::Perturbation, Row::Adversarial] {
            for i in 0..columns {
                figure = match set.examples.get(i) {
                    Some(example) => figure.panel(tile(set, example, row)),
                    None => figure.panel(Blank),
                };
            }
        }
    }
    figure.heights(heights)
}

fn caption(sets: &[ExampleSet]) -> String {
    let abouts: Vec<&Setting> = sets.iter().map(|set| &set.about).collect();
    let seeds: Vec<_> = sets.iter().map(|set| (set.name.as_str(), set.seed.to_string())).collect();
    format!(
        "{} Test images; pgd-10 at the training epsilon, seed {}. Rows: image, perturbation \
         amplified by the factor given (grey is no change), adversarial image; below each what the \
         network says, with its probability; wrong answers in bold.",
        settings(&abouts),
        each(&seeds)
    )
}

fn tile(set: &ExampleSet, example: &Example, row: Row) -> Tile {
    let class = |index: usize| set.classes.get(index).cloned().unwrap_or_else(|| index.to_string());
    let answer = |(index, probability): (usize, f32)| {
        // Wrong predictions are bold.
        let weight = if index == example.label { Weight::Regular } else { Weight::Bold };
        (format!("{} {:.0} %", class(index), 100.0 * probability), weight)
    };
    let (picture, lines) = match row {
        Row::Image => {
            let title = format!("{}: {}", example.index, class(example.label));
            (&example.clean, vec![(title, Weight::Regular), answer(example.before)])
        }
        Row::Perturbation => {
            let factor = format!("\u{d7} {:.0}", 0.5 / example.amplified.max(1e-6));
            (&example.perturbation, vec![(factor, Weight::Regular)])
        }
        Row::Adversarial => (&example.adversarial, vec![answer(example.after)]),
    };
    Tile { picture: picture.clone(), lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_each_run_name_its_threat_where_they_differ() {
        let set = |name: &str, threat: &str| ExampleSet {
            name: name.into(),
            about: Setting { threat: threat.into(), ..Setting::default() },
            classes: Vec::new(),
            seed: 0,
            examples: Vec::new(),
        };
        let both = examples(&[set("a", "l-inf 8/255"), set("b", "l2 0.5")]);
        assert!(both.caption_text().contains("l-inf 8/255, l2 0.5"), "{}", both.caption_text());
        let svg = both.to_svg().unwrap();
        assert!(svg.contains("a, l-inf 8/255") && svg.contains("b, l2 0.5"), "{svg}");
    }
}
