//! Surfaces in perspective.

use super::values::{Field, part};
use crate::{
    axis::Axis,
    frame::heading,
    paint::{Anchor, INK, MUTED, Stroke, TextStyle},
    panel::Panel,
    style::{hex, viridis},
    svg::{Edge, Fill, Svg},
};

/// A surface seen from above and aside.
#[derive(Clone, Debug)]
pub struct Surface {
    /// Heading.
    pub title: String,
    /// Heights.
    pub field: Field,
    /// The values of the floor and of the ceiling.
    pub ends: [f64; 2],
    /// The quantities along x, along y and upwards.
    pub labels: [String; 3],
}

impl Surface {
    /// Position in `[x, y, width, height]` of a point of the box, whose coordinates go from 0 to 1,
    /// and its distance from the viewer.
    fn project([x, y, width, height]: [f64; 4], [u, v, w]: [f64; 3]) -> ([f64; 2], f64) {
        let (azimuth, elevation) = ((-52f64).to_radians(), 27f64.to_radians());
        let (u, v) = (u - 0.5, v - 0.5);
        let across = u * azimuth.cos() - v * azimuth.sin();
        let depth = u * azimuth.sin() + v * azimuth.cos();
        let scale = (width / 1.62).min(height / 1.42);
        let up = (w - 0.5) * 0.78 * elevation.cos() + depth * elevation.sin();
        ([x + width / 2.0 + across * scale, y + height / 2.0 - up * scale], depth)
    }
}

/// A piece of the surface: its distance from the viewer, its corners and its colour.
type Face = (f64, [[f64; 2]; 4], [u8; 3]);

impl Panel for Surface {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        heading(svg, [x + 10.0, y + 14.0], width - 20.0, &self.title);
        let area = [x + 26.0, y + 16.0, width - 36.0, height - 24.0];
        let at = |p: [f64; 3]| Self::project(area, p).0;
        if self.field.y.len() < 2 || self.field.x.len() < 2 {
            return;
        }
        // The lines of the floor and of the two back walls.
        for i in 0..=4 {
            let t = f64::from(i) / 4.0;
            let line = Stroke::new(MUTED, 0.5).opacity(0.4);
            svg.polyline(&[at([t, 0.0, 0.0]), at([t, 1.0, 0.0]), at([t, 1.0, 1.0])], line);
            svg.polyline(&[at([1.0, t, 0.0]), at([0.0, t, 0.0])], line);
            svg.polyline(&[at([0.0, t, 0.0]), at([0.0, t, 1.0])], line);
            svg.polyline(&[at([0.0, 0.0, t]), at([0.0, 1.0, t]), at([1.0, 1.0, t])], line);
        }
        for (_, points, colour) in &self.faces(area) {
            svg.polygon(points, Fill { edge: Edge::Thin, ..Fill::new(&hex(*colour)) });
        }
        for line in [
            [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
            [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]],
            [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        ] {
            svg.polyline(&line.map(at), Stroke::new(MUTED, 0.8));
        }
        self.draw_labels(svg, at);
    }
}

impl Surface {
    /// The pieces of the surface, the farthest first.
    fn faces(&self, area: [f64; 4]) -> Vec<Face> {
        let (rows, columns) = (self.field.y.len(), self.field.x.len());
        let (du, dv) = (1.0 / (columns - 1) as f64, 1.0 / (rows - 1) as f64);
        let mut faces = Vec::new();
        for r in 0..rows - 1 {
            for c in 0..columns - 1 {
                let corners = [(r, c), (r, c + 1), (r + 1, c + 1), (r + 1, c)];
                let heights =
                    corners.map(|(r, c)| part(self.field.at(r, c), self.ends).clamp(0.0, 1.0));
                let mean = heights.iter().sum::<f64>() / 4.0;
                if !mean.is_finite() {
                    continue;
                }
                let shade = shade(heights, [du, dv]);
                let colour = viridis(mean).map(|v| (f64::from(v) * shade).round() as u8);
                let mut points = [[0.0; 2]; 4];
                for ((point, (r, c)), height) in points.iter_mut().zip(corners).zip(heights) {
                    *point = Self::project(area, [c as f64 * du, r as f64 * dv, height]).0;
                }
                let middle = [(c as f64 + 0.5) * du, (r as f64 + 0.5) * dv, 0.0];
                faces.push((Self::project(area, middle).1, points, colour));
            }
        }
        faces.sort_by(|a, b| b.0.total_cmp(&a.0));
        faces
    }

    fn draw_labels(&self, svg: &mut Svg, at: impl Fn([f64; 3]) -> [f64; 2]) {
        let small = TextStyle::new(10.0).paint(MUTED);
        let ends = |values: &[f64]| {
            [values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0)]
        };
        let ticks = |ends: [f64; 2], wanted| Axis::linear("").ticks_within(ends, wanted);
        let (x_ends, y_ends) = (ends(&self.field.x), ends(&self.field.y));
        for (value, text) in ticks(x_ends, 4) {
            let [x, y] = at([part(value, x_ends), 0.0, 0.0]);
            svg.text([x - 3.0, y + 13.0], &text, small.anchor(Anchor::Middle));
        }
        for (value, text) in ticks(y_ends, 4) {
            let [x, y] = at([1.0, part(value, y_ends), 0.0]);
            svg.text([x + 6.0, y + 10.0], &text, small);
        }
        for (value, text) in ticks(self.ends, 4) {
            let [x, y] = at([0.0, 0.0, part(value, self.ends)]);
            svg.text([x - 6.0, y + 3.5], &text, small.anchor(Anchor::End));
        }
        let label = TextStyle::new(11.0).paint(INK);
        let [x, y] = at([0.5, 0.0, 0.0]);
        svg.text([x - 16.0, y + 32.0], &self.labels[0], label.anchor(Anchor::End));
        let [x, y] = at([1.0, 0.5, 0.0]);
        svg.text([x + 24.0, y + 22.0], &self.labels[1], label.anchor(Anchor::Start));
        let [x, y] = at([0.0, 0.0, 0.5]);
        svg.text([x - 30.0, y], &self.labels[2], label.anchor(Anchor::Middle).upright());
    }
}

/// Brightness of a piece with these heights at its corners, lit from the upper left in front.
fn shade(heights: [f64; 4], [du, dv]: [f64; 2]) -> f64 {
    let slope_u = (heights[1] + heights[2] - heights[0] - heights[3]) / (2.0 * du);
    let slope_v = (heights[2] + heights[3] - heights[0] - heights[1]) / (2.0 * dv);
    let length = (slope_u * slope_u + slope_v * slope_v + 1.0).sqrt();
    let light = (0.35 * slope_u + 0.25 * slope_v + 1.0) / (length * 1.1);
    0.72 + 0.28 * light.clamp(0.0, 1.0)
}
