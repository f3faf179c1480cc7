//! Adversarial examples: image, amplified perturbation, adversarial image, with what the network
//! says.

use crate::{
    plot::{Figure, INK, Key, Panel, Svg, TextStyle, Tile, Weight},
    report::compute::ExampleSet,
};

/// A line of text over a row of tiles.
#[derive(Debug)]
struct Label(String);

impl Panel for Label {
    fn draw(&self, svg: &mut Svg, [x, y, _, height]: [f64; 4]) {
        svg.text([x, y + height - 8.0], &self.0, TextStyle::new(13.0).bold().paint(INK));
    }

    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

/// Wrong answers are bold.
fn weight(right: bool) -> Weight {
    if right { Weight::Regular } else { Weight::Bold }
}

/// Draws the examples of each run: a column for each image; rows of images, perturbations and
/// adversarial images.
pub fn examples(sets: &[ExampleSet]) -> Figure {
    let columns = sets.iter().map(|set| set.examples.len()).max().unwrap_or(1).max(1);
    let about = sets.first().map(|set| set.about.clone()).unwrap_or_default();
    let seed = sets.first().map_or(0, |set| set.seed);
    let mut heights = Vec::new();
    let mut figure = Figure::new("Adversarial examples").columns(columns).panel_size(122.0, 140.0).caption(format!(
        "{about}. Test images; pgd-10 at the training epsilon, seed {seed}. Rows: image, perturbation amplified by the factor given (grey is no change), \
         adversarial image; below each what the network says, with its probability; wrong answers in bold."
    ));
    for set in sets {
        let class =
            |index: usize| set.classes.get(index).cloned().unwrap_or_else(|| index.to_string());
        let answer = |(index, probability): (usize, f32)| {
            format!("{} {:.0} %", class(index), 100.0 * probability)
        };
        heights.extend([28.0, 144.0, 126.0, 136.0]);
        for i in 0..columns {
            figure = figure.panel(Label(if i == 0 { set.name.clone() } else { String::new() }));
        }
        for row in 0..3 {
            for i in 0..columns {
                let Some(example) = set.examples.get(i) else {
                    figure = figure.panel(super::Blank);
                    continue;
                };
                let tile = match row {
                    0 => Tile {
                        picture: example.clean.clone(),
                        lines: vec![
                            (
                                format!("{}: {}", example.index, class(example.label)),
                                Weight::Regular,
                            ),
                            (answer(example.before), weight(example.before.0 == example.label)),
                        ],
                    },
                    1 => Tile {
                        picture: example.perturbation.clone(),
                        lines: vec![(
                            format!("\u{d7} {:.0}", 0.5 / example.amplified.max(1e-6)),
                            Weight::Regular,
                        )],
                    },
                    _ => Tile {
                        picture: example.adversarial.clone(),
                        lines: vec![(
                            answer(example.after),
                            weight(example.after.0 == example.label),
                        )],
                    },
                };
                figure = figure.panel(tile);
            }
        }
    }
    figure.heights(heights)
}
