//! Draws the picture of the README: `cargo run -p sora-robust-plot --example readme [FILE]`.

use std::path::Path;

use sora_plot::{Axis, Chart, Field, Figure, Format, Mark, Point, Series, Style, Surface};

/// Accuracy over the radius of an attack, with intervals along the lines.
fn curves() -> Chart {
    let line = |fall: f64| {
        (0..=16).map(move |radius| {
            let y = 80.0 * (-fall * f64::from(radius)).exp();
            (f64::from(radius), y, [y - 3.0, y + 3.0])
        })
    };
    Chart::new("lines", Axis::linear("radius (1/255)"), Axis::linear("accuracy (%)"))
        .series(Series::new("robust", Style::marked(0), line(0.06)))
        .series(Series::new("not robust", Style::line(1), line(0.3)))
        .mark(Mark::alarm(8.0, "trained with"))
}

/// Points with error bars and labels.
fn points() -> Chart {
    let axes = [Axis::linear("clean accuracy (%)"), Axis::linear("robust accuracy (%)")];
    let [x, y] = axes;
    let found = [("a", 84.0, 45.0), ("b", 81.0, 47.0), ("c", 82.5, 46.2), ("d", 83.0, 45.2)];
    let each = found.into_iter().enumerate();
    each.fold(Chart::new("points", x, y), |chart, (i, (name, clean, robust))| {
        let point = Point {
            x: clean,
            y: robust,
            x_interval: Some([clean - 0.7, clean + 0.7]),
            y_interval: Some([robust - 1.0, robust + 1.0]),
        };
        let label = vec![format!("method {name}")];
        chart.series(Series::new("", Style::points(i), [point]).labels(label))
    })
}

/// A bowl with a ripple.
fn surface() -> Surface {
    let places: Vec<f64> = (-15..=15).map(|i| f64::from(i) / 15.0).collect();
    let height = |x: f64, y: f64| x * x + 0.6 * y * y + 0.25 * (5.0 * x).sin();
    let values = places.iter().flat_map(|y| places.iter().map(move |x| height(*x, *y))).collect();
    let field = Field { x: places.clone(), y: places, values };
    let ends = field.range();
    let labels = ["x", "y", "height"].map(String::from);
    Surface { title: "surface".into(), field, ends, labels }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/images/figure.svg");
    let path = std::env::args().nth(1).unwrap_or_else(|| default.to_owned());
    let figure = Figure::new("A figure")
        .caption("Bands and bars are intervals.")
        .columns(3)
        .panel_size(330.0, 250.0)
        .panel(curves())
        .panel(points())
        .panel(surface());
    let path = Path::new(&path);
    std::fs::write(path, figure.encode(Format::of(path)?)?)?;
    Ok(())
}
