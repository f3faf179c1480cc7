//! Contour maps.

use super::{
    colour_bar::{MARGIN, colour_bar},
    isoline::isoline,
    values::{Field, part},
};
use crate::{
    axis::Axis,
    frame::{Grid, Ticked, axes, heading},
    paint::{Anchor, Paint, Stroke, TextStyle, Weight},
    panel::Panel,
    picture::{Raster, Scaling},
    style::{Marker, viridis},
    svg::{Fill, Svg},
    text::text_width,
};

/// A map with lines of equal value.
#[derive(Clone, Debug)]
pub struct Contour {
    /// Heading.
    pub title: String,
    /// The values that the map shows.
    pub field: Field,
    /// Another field whose zero is drawn as a strong line, such as the boundary between right and
    /// wrong answers.
    pub boundary: Option<Field>,
    /// Axes; their ends are the field's.
    pub axes: [Axis; 2],
    /// The values of the darkest and of the lightest colour.
    pub ends: [f64; 2],
    /// The quantity that the values measure.
    pub label: String,
    /// Marked places, each with its text.
    pub points: Vec<([f64; 2], String)>,
}

/// Number of colours of a contour map.
const LEVELS: usize = 14;

/// The boundary is black on any theme, because it lies on the map's own colours.
const BOUNDARY: Paint = Paint { colour: "#111111", class: "fixed" };
/// These lines are white on any theme, because they lie on the map's own colours.
const PAPER_LINE: Paint = Paint { colour: "#ffffff", class: "fixed" };

/// First and last place of the field's rows or columns; `None` where there are too few of them to
/// draw.
fn ends(places: &[f64]) -> Option<[f64; 2]> {
    match places {
        [first, .., last] => Some([*first, *last]),
        _ => None,
    }
}

impl Panel for Contour {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let (px, py) = (x + left, y + top);
        let side = (width - left - right).min(height - top - bottom);
        let area = [px, py, side, side];
        heading(svg, [px, y + 14.0], width - left, &self.title);
        let (Some(x_ends), Some(y_ends)) = (ends(&self.field.x), ends(&self.field.y)) else {
            return;
        };
        svg.picture(area, &self.picture(200), Scaling::Smooth);
        self.draw_lines(svg, area);
        let [x_axis, y_axis] = &self.axes;
        let [across, up] =
            [(x_axis, x_ends), (y_axis, y_ends)].map(|(axis, ends)| Ticked::new(axis, ends, 4));
        axes(svg, area, [&across, &up], Grid::None);
        for (i, ([fx, fy], label)) in self.points.iter().enumerate() {
            let at = [px + side * part(*fx, x_ends), py + side * (1.0 - part(*fy, y_ends))];
            // Names stand above and below in turn, so that neighbours do not meet, and inside the
            // map, away from the ticks.
            let dy = match at[1] {
                y if y < py + 20.0 => 15.0,
                y if y > py + side - 20.0 => -6.0,
                _ if i % 2 == 0 => -6.0,
                _ => 15.0,
            };
            draw_point(svg, at, px + side, dy, label);
        }
        colour_bar(svg, [px + side + 12.0, py, 12.0, side], self.ends, &self.label);
    }
}

/// A marked point with its name, which stays left of `limit`.
fn draw_point(svg: &mut Svg, at: [f64; 2], limit: f64, dy: f64, label: &str) {
    let disc = Marker::Circle.outline(at[0], at[1], 3.6);
    svg.polygon(&disc, Fill::new("#ffffff"));
    let closed: Vec<_> = disc.iter().chain(disc.first()).copied().collect();
    svg.polyline(&closed, Stroke::new(BOUNDARY, 1.4));
    let room = at[0] + 7.0 + text_width(label, 10.5, Weight::Regular) < limit;
    let (dx, anchor) = if room { (7.0, Anchor::Start) } else { (-7.0, Anchor::End) };
    let style = TextStyle::new(10.5).paint(BOUNDARY).anchor(anchor).halo();
    svg.text([at[0] + dx, at[1] + dy], label, style);
}

impl Contour {
    /// Lines of equal value, and the boundary.
    fn draw_lines(&self, svg: &mut Svg, [x, y, side, _]: [f64; 4]) {
        let (rows, columns) = (self.field.y.len(), self.field.x.len());
        let place = |c: f64, r: f64| {
            [x + side * c / (columns - 1) as f64, y + side * (1.0 - r / (rows - 1) as f64)]
        };
        for level in 1..LEVELS {
            let value = self.ends[0] + (self.ends[1] - self.ends[0]) * level as f64 / LEVELS as f64;
            let line = isoline(&self.field, value, place);
            svg.polyline(&line, Stroke::new(PAPER_LINE, 0.6).opacity(0.55));
        }
        if let Some(boundary) = &self.boundary {
            let line = isoline(boundary, 0.0, place);
            svg.polyline(&line, Stroke::new(PAPER_LINE, 3.6));
            svg.polyline(&line, Stroke::new(BOUNDARY, 1.8));
        }
    }

    /// The map's colours as a picture of `size` pixels a side, with one colour for each level.
    fn picture(&self, size: u32) -> Raster {
        let step = |count: usize, i: u32| (count - 1) as f64 * f64::from(i) / f64::from(size - 1);
        let mut rgb = Vec::with_capacity((size * size * 3) as usize);
        for i in 0..size {
            for j in 0..size {
                let value = self
                    .field
                    .between(step(self.field.y.len(), size - 1 - i), step(self.field.x.len(), j));
                let level = (part(value, self.ends) * LEVELS as f64)
                    .floor()
                    .clamp(0.0, (LEVELS - 1) as f64);
                rgb.extend(viridis((level + 0.5) / LEVELS as f64));
            }
        }
        Raster { width: size, height: size, rgb }
    }
}
