//! The loss around an image: surface and contour, over the weights of a run.

use super::styles::Blank;
use crate::{
    plot::{Axis, Contour, Field, Figure, Surface, range},
    report::{
        caption::{Setting, each, settings},
        compute::{Landscape, Landscapes, Plane},
    },
};

/// Most points along a side of a surface in a strip; a reader cannot tell more apart there.
const COARSE: usize = 21;

fn field(landscape: &Landscape, values: &[f32], coarse: bool) -> Field {
    let size = landscape.at.len();
    let step = if coarse { size.saturating_sub(1).div_ceil(COARSE - 1).max(1) } else { 1 };
    let places: Vec<f64> = landscape.at.iter().step_by(step).map(|v| f64::from(*v)).collect();
    let rows = values.chunks(size.max(1)).step_by(step);
    let values = rows.flat_map(|row| row.iter().step_by(step)).map(|v| f64::from(*v)).collect();
    Field { x: places.clone(), y: places, values }
}

/// The losses of the darkest and the lightest colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale([f64; 2]);

impl LossScale {
    /// One scale for all these landscapes, so that their heights and colours can be compared.
    pub fn of(all: &[Landscapes]) -> Self {
        Self::over(all.iter().flat_map(|of| &of.rows))
    }

    fn over<'a>(rows: impl Iterator<Item = &'a Landscape>) -> Self {
        let fields: Vec<_> = rows.map(|l| field(l, &l.loss, false)).collect();
        let [low, high] = range(fields.iter());
        // The scale begins at 0 if the lowest loss is near 0.
        Self(if low < 0.3 * high { [0.0, high] } else { [low, high] })
    }
}

/// The texts of both directions: for the axis of a map, and a shorter one for a surface.
fn directions(of: &Landscapes) -> [[String; 2]; 2] {
    let unit = "(\u{3b5})";
    let named = |long: &str, short: &str, unit: &str| {
        [format!("{long} {unit}"), format!("{short} {unit}")].map(|text| text.trim().to_owned())
    };
    match of.config.plane {
        Plane::GradientRandom if of.norm == "linf" => {
            [named("along the gradient's sign", "gradient", unit), random(unit)]
        }
        Plane::GradientRandom => [named("along the gradient", "gradient", unit), random(unit)],
        Plane::FgsmPgd => {
            let [fgsm, pgd] = ["fgsm", "pgd-10"]
                .map(|name| named(&format!("part of {name}'s perturbation"), name, ""));
            [fgsm, pgd]
        }
    }
}

fn random(unit: &str) -> [String; 2] {
    [format!("random direction {unit}"), format!("random {unit}")]
}

fn surface(of: &Landscapes, landscape: &Landscape, scale: LossScale, coarse: bool) -> Surface {
    let [[_, x], [_, y]] = directions(of);
    Surface {
        title: landscape.weights.clone(),
        field: field(landscape, &landscape.loss, coarse),
        ends: scale.0,
        labels: [x, y, "cross-entropy (nats)".into()],
    }
}

fn contour(of: &Landscapes, landscape: &Landscape, scale: LossScale) -> Contour {
    let [[x, _], [y, _]] = directions(of);
    let [low, high] =
        [landscape.at.first(), landscape.at.last()].map(|v| v.copied().map_or(0.0, f64::from));
    let named = match of.config.plane {
        Plane::GradientRandom => vec![([0.0, 0.0], "image"), ([1.0, 0.0], "single step")],
        Plane::FgsmPgd => {
            vec![([0.0, 0.0], "image"), ([1.0, 0.0], "fgsm"), ([0.0, 1.0], "pgd-10")]
        }
    };
    let inside = |v: &f64| (low - 0.01..=high + 0.01).contains(v);
    let points = named.into_iter().filter(|(at, _)| at.iter().all(inside));
    Contour {
        title: String::new(),
        field: field(landscape, &landscape.loss, false),
        boundary: Some(field(landscape, &landscape.margin, false)),
        axes: [Axis::linear(x), Axis::linear(y)],
        ends: scale.0,
        label: "nats".into(),
        points: points.map(|(at, name)| (at, name.to_owned())).collect(),
    }
}

/// A fact about each of `all`.
fn of_each(all: &[&Landscapes], fact: impl Fn(&Landscapes) -> String) -> String {
    each(&all.iter().map(|of| (of.name.as_str(), fact(of))).collect::<Vec<_>>())
}

/// The directions of a plane in words; `None` if none of `all` is over it.
fn directions_in_words(plane: Plane, all: &[&Landscapes]) -> Option<String> {
    let all: Vec<_> = all.iter().copied().filter(|of| of.config.plane == plane).collect();
    let epsilon = of_each(&all, |of| of.epsilon.clone());
    let seed = of_each(&all, |of| of.config.seed.to_string());
    let words = match plane {
        Plane::GradientRandom => format!(
            "both directions have length \u{3b5} = {epsilon}, the random one is drawn from seed \
             {seed}"
        ),
        Plane::FgsmPgd => format!(
            "the directions are the perturbations that fgsm and pgd-10 find at \u{3b5} = \
             {epsilon}, pgd-10 from a start drawn from seed {seed}"
        ),
    };
    (!all.is_empty()).then_some(words)
}

fn caption(all: &[&Landscapes]) -> String {
    let abouts: Vec<&Setting> = all.iter().map(|of| &of.about).collect();
    let planes = Plane::ALL.into_iter().filter_map(|plane| directions_in_words(plane, all));
    format!(
        "{} Cross-entropy of test image {} (class {}) in eval mode, pixels clipped to [0, 1]; {}. \
         Strong line: where the answer turns wrong.",
        settings(&abouts),
        of_each(all, |of| of.config.index.to_string()),
        of_each(all, |of| of.class.clone()),
        planes.collect::<Vec<_>>().join("; ")
    )
}

/// Draws one set of weights: surface and contour.
pub fn landscape(of: &Landscapes, landscape: &Landscape) -> Figure {
    frame(of, landscape, LossScale::over(std::iter::once(landscape)))
}

fn frame(of: &Landscapes, landscape: &Landscape, scale: LossScale) -> Figure {
    Figure::new(format!("Loss landscape: {}", of.name))
        .panel_size(400.0, 340.0)
        .caption(caption(&[of]))
        .panel(surface(of, landscape, scale, false))
        .panel(contour(of, landscape, scale))
}

/// Draws all weights on one scale, one frame each.
pub fn landscape_frames(of: &Landscapes, scale: LossScale) -> Vec<Figure> {
    of.rows.iter().map(|row| frame(of, row, scale)).collect()
}

/// Draws the weights of several runs as strips: a row of surfaces and a row of contours for each
/// run, all on one scale.
pub fn landscape_strip(all: &[Landscapes]) -> Figure {
    let across = all.iter().map(|of| of.rows.len()).max().unwrap_or(1).clamp(1, 4);
    let title = match all {
        [one] => format!("Loss landscape over training: {}", one.name),
        _ => "Loss landscape over training".to_owned(),
    };
    let mut figure = Figure::new(title)
        .columns(across)
        .panel_size(330.0, 270.0)
        .caption(caption(&all.iter().collect::<Vec<_>>()) + " All panels share their scale.");
    let scale = LossScale::of(all);
    for of in all {
        for rows in of.rows.chunks(across) {
            for i in 0..across {
                figure = match rows.get(i) {
                    Some(row) => {
                        let surface = surface(of, row, scale, true);
                        let title = if all.len() > 1 {
                            format!("{}, {}", of.name, surface.title)
                        } else {
                            surface.title.clone()
                        };
                        figure.panel(Surface { title, ..surface })
                    }
                    None => figure.panel(Blank),
                };
            }
            for i in 0..across {
                figure = match rows.get(i) {
                    Some(row) => figure.panel(contour(of, row, scale)),
                    None => figure.panel(Blank),
                };
            }
        }
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compute::LandscapeConfig;

    #[test]
    fn a_strip_says_the_radius_and_the_class_of_every_run() {
        let of = |name: &str, epsilon: &str, class: &str| Landscapes {
            name: name.into(),
            about: Setting { threat: format!("l-inf {epsilon}"), ..Setting::default() },
            norm: "linf".into(),
            epsilon: epsilon.into(),
            class: class.into(),
            config: LandscapeConfig::new(3, Plane::GradientRandom),
            rows: Vec::new(),
        };
        let all = [of("a", "8/255", "cat"), of("b", "16/255", "dog")];
        let text = landscape_strip(&all).caption_text().to_owned();
        for part in [
            "l-inf 16/255, l-inf 8/255",
            "test image 3 (class cat (a), dog (b))",
            "length \u{3b5} = 8/255 (a), 16/255 (b), the random one is drawn from seed 0.",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
        assert!(!text.contains("perturbations"), "{text}");
        let alone = landscape_strip(&all[..1]).caption_text().to_owned();
        assert!(alone.contains("test image 3 (class cat) in"), "{alone}");
    }
}
