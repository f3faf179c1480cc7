//! The loss around an image: surface and contour, over the weights of a run.

use super::Blank;
use crate::{
    plot::{Axis, Contour, Field, Figure, Surface, range},
    report::compute::{Landscape, Landscapes},
};

/// Most points along a side of a surface in a strip: more cannot be told apart there.
const COARSE: usize = 21;

fn field(landscape: &Landscape, values: &[f32], coarse: bool) -> Field {
    let size = landscape.at.len();
    let step = if coarse { size.saturating_sub(1).div_ceil(COARSE - 1).max(1) } else { 1 };
    let places: Vec<f64> = landscape.at.iter().step_by(step).map(|v| f64::from(*v)).collect();
    let rows = values.chunks(size.max(1)).step_by(step);
    let values = rows.flat_map(|row| row.iter().step_by(step)).map(|v| f64::from(*v)).collect();
    Field { x: places.clone(), y: places, values }
}

fn ends(landscapes: &[&Landscape]) -> [f64; 2] {
    let fields: Vec<_> = landscapes.iter().map(|l| field(l, &l.loss, false)).collect();
    let [low, high] = range(fields.iter());
    // A loss near 0 is read from 0.
    if low < 0.3 * high { [0.0, high] } else { [low, high] }
}

fn directions(of: &Landscapes) -> [String; 2] {
    let own = if of.norm == "linf" {
        "along the gradient's sign (\u{3b5})"
    } else {
        "along the gradient (\u{3b5})"
    };
    [own.into(), "random direction (\u{3b5})".into()]
}

fn surface(landscape: &Landscape, ends: [f64; 2], coarse: bool) -> Surface {
    Surface {
        title: landscape.weights.clone(),
        field: field(landscape, &landscape.loss, coarse),
        ends,
        labels: [
            "gradient (\u{3b5})".into(),
            "random (\u{3b5})".into(),
            "cross-entropy (nats)".into(),
        ],
    }
}

fn contour(of: &Landscapes, landscape: &Landscape, ends: [f64; 2]) -> Contour {
    let [x, y] = directions(of);
    let last = landscape.at.last().copied().map_or(1.0, f64::from);
    let mut points = vec![([0.0, 0.0], "image".to_owned())];
    if last >= 0.99 {
        points.push(([1.0, 0.0], "single step".into()));
    }
    Contour {
        title: String::new(),
        field: field(landscape, &landscape.loss, false),
        boundary: Some(field(landscape, &landscape.margin, false)),
        axes: [Axis::linear(x), Axis::linear(y)],
        ends,
        label: "nats".into(),
        points,
    }
}

fn caption(of: &Landscapes) -> String {
    format!(
        "{}. Cross-entropy of test image {} (class {}) in eval mode, pixels clipped to [0, 1]; both directions have length \u{3b5} = {}, the random one \
         is drawn from seed {}. Strong line: where the answer turns wrong.",
        of.about, of.config.index, of.class, of.epsilon, of.config.seed
    )
}

/// Draws one set of weights: surface and contour.
pub fn landscape(of: &Landscapes, landscape: &Landscape) -> Figure {
    frame(of, landscape, ends(&[landscape]))
}

fn frame(of: &Landscapes, landscape: &Landscape, ends: [f64; 2]) -> Figure {
    Figure::new(format!("Loss landscape: {}", of.name))
        .panel_size(400.0, 340.0)
        .caption(caption(of))
        .panel(surface(landscape, ends, false))
        .panel(contour(of, landscape, ends))
}

/// Draws all weights alike, a frame each.
pub fn landscape_frames(of: &Landscapes) -> Vec<Figure> {
    let ends = ends(&of.rows.iter().collect::<Vec<_>>());
    of.rows.iter().map(|row| frame(of, row, ends)).collect()
}

/// Draws the weights of several runs as strips: a row of surfaces and a row of contours for each
/// run.
pub fn landscape_strip(all: &[Landscapes]) -> Figure {
    let across = all.iter().map(|of| of.rows.len()).max().unwrap_or(1).clamp(1, 4);
    let title = match all {
        [one] => format!("Loss landscape over training: {}", one.name),
        _ => "Loss landscape over training".to_owned(),
    };
    let mut figure = Figure::new(title)
        .columns(across)
        .panel_size(330.0, 270.0)
        .caption(all.first().map(caption).unwrap_or_default());
    for of in all {
        let ends = ends(&of.rows.iter().collect::<Vec<_>>());
        for rows in of.rows.chunks(across) {
            for i in 0..across {
                figure = match rows.get(i) {
                    Some(row) => {
                        let surface = surface(row, ends, true);
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
                    Some(row) => figure.panel(contour(of, row, ends)),
                    None => figure.panel(Blank),
                };
            }
        }
    }
    figure
}
