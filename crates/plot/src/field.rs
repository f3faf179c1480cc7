//! Values over a plane: a heat map of cells, a contour map, and a surface in perspective.

use std::collections::{HashMap, VecDeque};

use crate::{
    chart::{frame, heading},
    figure::Panel,
    scale::Axis,
    style::{Marker, hex, viridis},
    svg::{Anchor, INK, MUTED, PAPER, Paint, Picture, Stroke, Svg, TextStyle},
};

/// Values on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Places of the columns, rising.
    pub x: Vec<f64>,
    /// Places of the rows, rising.
    pub y: Vec<f64>,
    /// `[rows, columns]`.
    pub values: Vec<f64>,
}

impl Field {
    /// The value of a row and a column; NaN outside.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        if column < self.x.len() {
            self.values.get(row * self.x.len() + column).copied().unwrap_or(f64::NAN)
        } else {
            f64::NAN
        }
    }

    /// Smallest and largest finite value; `[0, 1]` if there is none, and never equal.
    pub fn range(&self) -> [f64; 2] {
        range(std::iter::once(self))
    }

    /// Bilinear value at a fraction of the grid.
    fn between(&self, row: f64, column: f64) -> f64 {
        let (r, c) = (
            (row.floor() as usize).min(self.y.len().saturating_sub(2)),
            (column.floor() as usize).min(self.x.len().saturating_sub(2)),
        );
        let (u, v) = (row - r as f64, column - c as f64);
        let low = self.at(r, c) * (1.0 - v) + self.at(r, c + 1) * v;
        let high = self.at(r + 1, c) * (1.0 - v) + self.at(r + 1, c + 1) * v;
        low * (1.0 - u) + high * u
    }
}

/// Smallest and largest finite value of several fields, never equal.
pub fn range<'a>(fields: impl Iterator<Item = &'a Field>) -> [f64; 2] {
    let values = fields.flat_map(|f| &f.values).copied().filter(|v| v.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    match (low <= high, low < high) {
        (false, _) => [0.0, 1.0],
        (true, false) => [low, low + 1.0],
        _ => [low, high],
    }
}

fn part(value: f64, [low, high]: [f64; 2]) -> f64 {
    (value - low) / (high - low)
}

/// Space around a map: left, top, right (with the colour bar), bottom.
const MARGIN: [f64; 4] = [54.0, 26.0, 62.0, 40.0];

/// A strip that says which colour is which value.
fn colour_bar(svg: &mut Svg, [x, y, width, height]: [f64; 4], ends: [f64; 2], label: &str) {
    const STEPS: usize = 40;
    for i in 0..STEPS {
        let t = i as f64 / (STEPS - 1) as f64;
        let h = height / STEPS as f64;
        svg.rect([x, y + height - (i + 1) as f64 * h - 0.3, width, h + 0.6], &hex(viridis(t)), "");
    }
    let axis = Axis::linear("");
    for (value, text) in axis.ticks_within(ends, (height / 36.0) as usize) {
        let at = y + height * (1.0 - part(value, ends));
        svg.line([x + width, at], [x + width + 3.0, at], Stroke::new(MUTED, 1.0));
        svg.text([x + width + 6.0, at + 4.0], &text, TextStyle::new(10.5).paint(MUTED));
    }
    svg.text([x + width, y - 7.0], label, TextStyle::new(10.5).paint(MUTED).anchor(Anchor::Middle));
}

/// Cells in rows and columns with a name each.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// Heading.
    pub title: String,
    /// Values; the places along x and y are not used.
    pub field: Field,
    /// What the columns are.
    pub x_label: String,
    /// Name of each column.
    pub columns: Vec<String>,
    /// What the rows are.
    pub y_label: String,
    /// Name of each row, from below.
    pub rows: Vec<String>,
    /// Values of the darkest and the lightest colour.
    pub ends: [f64; 2],
    /// What the values are.
    pub label: String,
    /// A column to mark, such as the epsilon of the training: its place, in columns from the left,
    /// and what is there.
    pub mark: Option<(f64, String)>,
}

impl Panel for HeatMap {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let (px, py, pw, ph) = (x + left, y + top, width - left - right, height - top - bottom);
        heading(svg, px, y + 14.0, pw, &self.title);
        let (columns, rows) = (self.columns.len().max(1), self.rows.len().max(1));
        let (cw, ch) = (pw / columns as f64, ph / rows as f64);
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let value = self.field.at(row, column);
                if value.is_finite() {
                    let colour = hex(viridis(part(value, self.ends)));
                    svg.rect(
                        [
                            px + column as f64 * cw,
                            py + ph - (row + 1) as f64 * ch,
                            cw + 0.3,
                            ch + 0.3,
                        ],
                        &colour,
                        "",
                    );
                }
            }
        }
        let text = TextStyle::new(11.0).paint(MUTED);
        let every = |count: usize, room: f64, size: f64| {
            (count as f64 * size / room.max(1.0)).ceil().max(1.0) as usize
        };
        for (i, name) in self.columns.iter().enumerate().step_by(every(columns, pw, 30.0)) {
            svg.text(
                [px + (i as f64 + 0.5) * cw, py + ph + 15.0],
                name,
                text.anchor(Anchor::Middle),
            );
        }
        for (i, name) in self.rows.iter().enumerate().step_by(every(rows, ph, 15.0)) {
            svg.text(
                [px - 6.0, py + ph - (i as f64 + 0.5) * ch + 4.0],
                name,
                text.anchor(Anchor::End),
            );
        }
        if let Some((place, label)) = &self.mark {
            let at = px + (place + 0.5) * cw;
            svg.line([at, py], [at, py + ph], Stroke::new(PAPER, 3.0));
            svg.line([at, py - 3.0], [at, py + ph], Stroke::new(INK, 1.4).dash("4 3"));
            svg.text([at + 5.0, py + 13.0], label, TextStyle::new(11.0).halo());
        }
        svg.text(
            [px + pw / 2.0, py + ph + 33.0],
            &self.x_label,
            TextStyle::new(12.0).anchor(Anchor::Middle),
        );
        svg.text(
            [x + 12.0, py + ph / 2.0],
            &self.y_label,
            TextStyle::new(12.0).anchor(Anchor::Middle).upright(),
        );
        colour_bar(svg, [px + pw + 12.0, py, 12.0, ph], self.ends, &self.label);
    }
}

/// A map with lines of equal value.
#[derive(Clone, Debug)]
pub struct Contour {
    /// Heading.
    pub title: String,
    /// Values.
    pub field: Field,
    /// Another field whose zero is drawn as a strong line, such as the boundary between right and
    /// wrong answers.
    pub boundary: Option<Field>,
    /// Axes; their ends are the field's.
    pub axes: [Axis; 2],
    /// Values of the darkest and the lightest colour.
    pub ends: [f64; 2],
    /// What the values are.
    pub label: String,
    /// Places to mark, with what is there.
    pub points: Vec<([f64; 2], String)>,
}

/// Colours of a contour map.
const LEVELS: usize = 14;

impl Panel for Contour {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let (px, py) = (x + left, y + top);
        let side = (width - left - right).min(height - top - bottom);
        let area = [px, py, side, side];
        heading(svg, px, y + 14.0, width - left, &self.title);
        let (rows, columns) = (self.field.y.len(), self.field.x.len());
        let ([Some(x0), Some(x1)], [Some(y0), Some(y1)]) = (
            [self.field.x.first(), self.field.x.last()],
            [self.field.y.first(), self.field.y.last()],
        ) else {
            return;
        };
        if rows < 2 || columns < 2 {
            return;
        }
        svg.picture(area, &self.picture(200), true);
        let place = |c: f64, r: f64| {
            [px + side * c / (columns - 1) as f64, py + side * (1.0 - r / (rows - 1) as f64)]
        };
        for level in 1..LEVELS {
            let value = self.ends[0] + (self.ends[1] - self.ends[0]) * level as f64 / LEVELS as f64;
            svg.polyline(
                &isoline(&self.field, value, place),
                Stroke::new(PAPER, 0.6).opacity(0.55),
            );
        }
        if let Some(boundary) = &self.boundary {
            let line = isoline(boundary, 0.0, place);
            svg.polyline(&line, Stroke::new(PAPER, 3.6));
            svg.polyline(&line, Stroke::new(BOUNDARY, 1.8));
        }
        let [x_axis, y_axis] = &self.axes;
        let (x_ends, y_ends) = ([*x0, *x1], [*y0, *y1]);
        let (x_ticks, y_ticks) = (x_axis.ticks_within(x_ends, 4), y_axis.ticks_within(y_ends, 4));
        frame(svg, area, [(x_axis, &x_ticks, x_ends), (y_axis, &y_ticks, y_ends)], false);
        for (i, ([fx, fy], label)) in self.points.iter().enumerate() {
            let at = [px + side * part(*fx, x_ends), py + side * (1.0 - part(*fy, y_ends))];
            let disc = Marker::Circle.outline(at[0], at[1], 3.6);
            svg.polygon(&disc, "#ffffff", 1.0, "", false);
            let closed: Vec<_> = disc.iter().chain(disc.first()).copied().collect();
            svg.polyline(&closed, Stroke::new(BOUNDARY, 1.4));
            let inside = at[0] + 70.0 < px + side;
            let (dx, anchor) = if inside { (7.0, Anchor::Start) } else { (-7.0, Anchor::End) };
            // Above and below in turn, so that neighbours do not meet.
            let dy = if i % 2 == 0 { -6.0 } else { 15.0 };
            svg.text(
                [at[0] + dx, at[1] + dy],
                label,
                TextStyle::new(10.5).paint(BOUNDARY).anchor(anchor).halo(),
            );
        }
        colour_bar(svg, [px + side + 12.0, py, 12.0, side], self.ends, &self.label);
    }
}

/// Black on any theme: it lies on the map's own colours.
const BOUNDARY: Paint = Paint { colour: "#111111", class: "fixed" };

impl Contour {
    /// The map's colours, `size` pixels a side, each level one colour.
    fn picture(&self, size: u32) -> Picture {
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
        Picture { width: size, height: size, rgb }
    }
}

/// An edge of the grid between two corners, the smaller first, and where a line crosses it.
type Crossing = ([(usize, usize); 2], [f64; 2]);

/// The line where `field` has `value`, as pieces with gaps between (marching squares).
fn isoline(field: &Field, value: f64, place: impl Fn(f64, f64) -> [f64; 2]) -> Vec<[f64; 2]> {
    let mut segments: Vec<[Crossing; 2]> = Vec::new();
    for row in 0..field.y.len().saturating_sub(1) {
        for column in 0..field.x.len().saturating_sub(1) {
            let corners =
                [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)];
            let values = corners.map(|(r, c)| field.at(r, c) - value);
            if values.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let mut crossings = Vec::with_capacity(4);
            for i in 0..4 {
                let j = (i + 1) % 4;
                if (values[i] < 0.0) != (values[j] < 0.0) {
                    let t = values[i] / (values[i] - values[j]);
                    let mix = |a: usize, b: usize| a as f64 + (b as f64 - a as f64) * t;
                    let mut edge = [corners[i], corners[j]];
                    edge.sort_unstable();
                    crossings.push((
                        edge,
                        place(mix(corners[i].1, corners[j].1), mix(corners[i].0, corners[j].0)),
                    ));
                }
            }
            // At a saddle two lines cross the cell; which corners they cut off follows the value in
            // its middle.
            if crossings.len() == 4 && (values.iter().sum::<f64>() < 0.0) != (values[0] < 0.0) {
                crossings.rotate_left(1);
            }
            let (pairs, _) = crossings.as_chunks::<2>();
            segments.extend(pairs);
        }
    }
    joined(&segments)
}

/// Segments that meet at an edge of the grid, put together: joins look right and the file is short.
fn joined(segments: &[[Crossing; 2]]) -> Vec<[f64; 2]> {
    let mut ends: HashMap<[(usize, usize); 2], Vec<usize>> = HashMap::new();
    for (i, segment) in segments.iter().enumerate() {
        segment.iter().for_each(|(edge, _)| ends.entry(*edge).or_default().push(i));
    }
    let mut used = vec![false; segments.len()];
    let mut lines = Vec::new();
    for (start, [first, last]) in segments.iter().enumerate() {
        if std::mem::replace(&mut used[start], true) {
            continue;
        }
        let mut line = VecDeque::from([first.1, last.1]);
        for (forward, mut tip) in [(true, last.0), (false, first.0)] {
            while let Some(next) =
                ends.get(&tip).and_then(|list| list.iter().copied().find(|i| !used[*i]))
            {
                used[next] = true;
                let [a, b] = segments[next];
                let far = if a.0 == tip { b } else { a };
                tip = far.0;
                if forward { line.push_back(far.1) } else { line.push_front(far.1) }
            }
        }
        lines.extend(line);
        lines.push([f64::NAN; 2]);
    }
    lines
}

/// A surface seen from above and aside.
#[derive(Clone, Debug)]
pub struct Surface {
    /// Heading.
    pub title: String,
    /// Heights.
    pub field: Field,
    /// Heights of the floor and the ceiling.
    pub ends: [f64; 2],
    /// What lies along x, y and upwards.
    pub labels: [String; 3],
}

impl Surface {
    /// Where a point of the box, each coordinate from 0 to 1, lies in `[x, y, width, height]`, and
    /// how far away it is.
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

impl Panel for Surface {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        heading(svg, x + 10.0, y + 14.0, width - 20.0, &self.title);
        let area = [x + 26.0, y + 16.0, width - 36.0, height - 24.0];
        let at = |p: [f64; 3]| Self::project(area, p).0;
        let (rows, columns) = (self.field.y.len(), self.field.x.len());
        if rows < 2 || columns < 2 {
            return;
        }
        let edge = Stroke::new(MUTED, 0.8);
        // Floor and the two back walls.
        for i in 0..=4 {
            let t = f64::from(i) / 4.0;
            let line = Stroke::new(MUTED, 0.5).opacity(0.4);
            svg.polyline(&[at([t, 0.0, 0.0]), at([t, 1.0, 0.0]), at([t, 1.0, 1.0])], line);
            svg.polyline(&[at([1.0, t, 0.0]), at([0.0, t, 0.0])], line);
            svg.polyline(&[at([0.0, t, 0.0]), at([0.0, t, 1.0])], line);
            svg.polyline(&[at([0.0, 0.0, t]), at([0.0, 1.0, t]), at([1.0, 1.0, t])], line);
        }
        let height_at = |r: usize, c: usize| part(self.field.at(r, c), self.ends).clamp(0.0, 1.0);
        let (du, dv) = (1.0 / (columns - 1) as f64, 1.0 / (rows - 1) as f64);
        let mut faces = Vec::new();
        for r in 0..rows - 1 {
            for c in 0..columns - 1 {
                let corners = [(r, c), (r, c + 1), (r + 1, c + 1), (r + 1, c)];
                let heights = corners.map(|(r, c)| height_at(r, c));
                let mean = heights.iter().sum::<f64>() / 4.0;
                if !mean.is_finite() {
                    continue;
                }
                // Light from the upper left, ahead of the surface.
                let slope_u = (heights[1] + heights[2] - heights[0] - heights[3]) / (2.0 * du);
                let slope_v = (heights[2] + heights[3] - heights[0] - heights[1]) / (2.0 * dv);
                let length = (slope_u * slope_u + slope_v * slope_v + 1.0).sqrt();
                let light = (0.35 * slope_u + 0.25 * slope_v + 1.0) / (length * 1.1);
                let shade = 0.72 + 0.28 * light.clamp(0.0, 1.0);
                let points = corners.map(|(r, c)| {
                    Self::project(area, [c as f64 * du, r as f64 * dv, height_at(r, c)])
                });
                let depth =
                    Self::project(area, [(c as f64 + 0.5) * du, (r as f64 + 0.5) * dv, 0.0]).1;
                let colour = viridis(mean).map(|v| (f64::from(v) * shade).round() as u8);
                faces.push((depth, points.map(|(point, _)| point), colour));
            }
        }
        faces.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, points, colour) in &faces {
            svg.polygon(points, &hex(*colour), 1.0, "", true);
        }
        for line in [
            [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
            [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]],
            [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        ] {
            svg.polyline(&line.map(at), edge);
        }
        self.draw_labels(svg, at);
    }
}

impl Surface {
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

/// A picture with lines of text under it.
#[derive(Clone, Debug)]
pub struct Tile {
    /// The picture.
    pub picture: Picture,
    /// Lines below, each with whether it is stressed.
    pub lines: Vec<(String, bool)>,
}

impl Panel for Tile {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let room = (height - 8.0 - self.lines.len() as f64 * 14.0).max(8.0);
        let ratio = f64::from(self.picture.width.max(1)) / f64::from(self.picture.height.max(1));
        let wide = (width - 12.0).min(room * ratio);
        let high = wide / ratio;
        svg.picture([x + (width - wide) / 2.0, y, wide, high], &self.picture, false);
        for (i, (line, strong)) in self.lines.iter().enumerate() {
            let style = TextStyle::new(11.0).anchor(Anchor::Middle);
            let style = if *strong { style.bold() } else { style.paint(MUTED) };
            let text = crate::svg::shorten(line, 11.0, width - 2.0);
            svg.text([x + width / 2.0, y + high + 14.0 + i as f64 * 14.0], &text, style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cone(size: usize) -> Field {
        let places: Vec<f64> =
            (0..size).map(|i| i as f64 / (size - 1) as f64 * 2.0 - 1.0).collect();
        let values = places
            .iter()
            .flat_map(|y| places.iter().map(move |x| (x * x + y * y).sqrt()))
            .collect();
        Field { x: places.clone(), y: places, values }
    }

    #[test]
    fn the_isoline_of_a_cone_is_one_closed_circle() {
        let line = isoline(&cone(41), 0.5, |c, r| [c / 20.0 - 1.0, r / 20.0 - 1.0]);
        let gaps = line.iter().filter(|p| p[0].is_nan()).count();
        assert_eq!(gaps, 1, "one line");
        let points: Vec<_> = line.iter().filter(|p| p[0].is_finite()).collect();
        assert!(points.len() > 60);
        for [x, y] in points {
            assert!(((x * x + y * y).sqrt() - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn bilinear_values_agree_on_the_grid_and_between() {
        let field =
            Field { x: vec![0.0, 1.0], y: vec![0.0, 1.0], values: vec![0.0, 1.0, 2.0, 3.0] };
        for (row, column, value) in
            [(0.0, 0.0, 0.0), (1.0, 1.0, 3.0), (0.5, 0.5, 1.5), (0.25, 1.0, 1.5)]
        {
            assert!((field.between(row, column) - value).abs() < 1e-12);
        }
        assert_eq!(Field { values: vec![f64::NAN; 4], ..field }.range(), [0.0, 1.0]);
    }
}
