//! Line and scatter charts.

use crate::{
    axis::Axis,
    frame::{Grid, Ticked, axes, heading},
    labels::{Occupied, beside_line, beside_point},
    paint::{ALARM, Anchor, GRID, MUTED, Paint, Stroke, TextStyle},
    panel::{Key, Panel, marker},
    style::{Marker, Style},
    svg::{Fill, Svg},
};

/// A data point, with intervals of its values where there are any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Value on the horizontal axis.
    pub x: f64,
    /// Value on the vertical axis; a line has a gap where it is not finite.
    pub y: f64,
    /// Lowest and highest value of the interval of `y`.
    pub y_interval: Option<[f64; 2]>,
    /// Lowest and highest value of the interval of `x`.
    pub x_interval: Option<[f64; 2]>,
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, y_interval: None, x_interval: None }
    }
}

impl From<(f64, f64, [f64; 2])> for Point {
    fn from((x, y, interval): (f64, f64, [f64; 2])) -> Self {
        Self { x, y, y_interval: Some(interval), x_interval: None }
    }
}

/// Points that belong together, drawn as a line, as markers, or as both.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend; series of the same name and style share one entry. An empty name has no
    /// entry.
    pub name: String,
    /// The points, in the order of the line.
    pub points: Vec<Point>,
    /// Colour, dash, marker.
    pub style: Style,
    /// Text beside each point; empty for no texts.
    pub labels: Vec<String>,
}

impl Series {
    /// A series of `(x, y)` or `(x, y, [low, high])`. Intervals are drawn as a band along a line,
    /// and as bars around markers.
    pub fn new<P: Into<Point>>(
        name: impl Into<String>,
        style: Style,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().map(Into::into).collect(),
            style,
            labels: Vec::new(),
        }
    }

    /// The same series with a text beside each point.
    pub fn labels(self, labels: Vec<String>) -> Self {
        Self { labels, ..self }
    }
}

/// A vertical line that marks a place, such as the onset of catastrophic overfitting.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Value on the horizontal axis.
    pub x: f64,
    /// Text beside the line; empty for no text.
    pub label: String,
    /// Colour.
    pub paint: Paint,
}

impl Mark {
    /// A mark in the colour of warnings.
    pub fn alarm(x: f64, label: impl Into<String>) -> Self {
        Self { x, label: label.into(), paint: ALARM }
    }
}

/// A chart: series over two axes.
#[derive(Clone, Debug)]
pub struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
    marks: Vec<Mark>,
    empty: String,
}

impl Chart {
    /// An empty chart with this heading.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            series: Vec::new(),
            marks: Vec::new(),
            empty: "no data".into(),
        }
    }

    /// The same chart with one more series.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// The same chart with one more mark.
    pub fn mark(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }

    /// The same chart with the text that it shows when it has nothing to draw.
    pub fn empty(self, text: impl Into<String>) -> Self {
        Self { empty: text.into(), ..self }
    }

    fn values<'a>(
        &'a self,
        of: impl Fn(&Point) -> (f64, Option<[f64; 2]>) + 'a,
    ) -> impl Iterator<Item = f64> + 'a {
        self.series.iter().flat_map(|series| &series.points).flat_map(move |point| {
            let (value, interval) = of(point);
            let [low, high] = interval.unwrap_or([value; 2]);
            [value, low, high]
        })
    }
}

/// Space around the plot for ticks and labels: left, top, right, bottom.
const MARGIN: [f64; 4] = [54.0, 26.0, 12.0, 40.0];
/// Most markers of a line. Markers only tell lines apart, because the line itself shows the values.
const MARKERS_OF_A_LINE: usize = 24;

/// A chart's plot: its area and its axes.
struct Plot<'a> {
    area: [f64; 4],
    across: Ticked<'a>,
    up: Ticked<'a>,
}

impl Plot<'_> {
    /// Position of a value in pixels; not finite where the value has no place on an axis.
    fn place(&self, x: f64, y: f64) -> [f64; 2] {
        let [px, py, width, height] = self.area;
        if self.across.axis.takes(x) && self.up.axis.takes(y) {
            [px + width * self.across.place(x), py + height * (1.0 - self.up.place(y))]
        } else {
            [f64::NAN; 2]
        }
    }

    /// Position in pixels of a vertical line at `x`; not finite where `x` has no place on the axis.
    fn place_across(&self, x: f64) -> f64 {
        self.place(x, self.up.ends[0])[0]
    }

    fn points(&self, series: &Series) -> Vec<[f64; 2]> {
        series.points.iter().map(|p| self.place(p.x, p.y)).collect()
    }
}

impl Chart {
    /// The plot within `area`.
    fn plot(&self, area: [f64; 4]) -> Plot<'_> {
        let [_, _, width, height] = area;
        let marks = self.marks.iter().map(|mark| mark.x);
        let x_ends = self.x.ends(self.values(|p| (p.x, p.x_interval)).chain(marks));
        let y_ends = self.y.ends(self.values(|p| (p.y, p.y_interval)));
        let across = Ticked::new(&self.x, x_ends, (width / 60.0) as usize);
        Plot { area, across, up: Ticked::new(&self.y, y_ends, (height / 32.0) as usize) }
    }

    fn has_points(&self) -> bool {
        let mut points = self.series.iter().flat_map(|s| &s.points);
        points.any(|p| self.x.takes(p.x) && self.y.takes(p.y))
    }

    /// Writes the texts beside points and marks.
    fn label(&self, svg: &mut Svg, plot: &Plot<'_>) {
        let mut occupied = Occupied::new(plot.area);
        for series in &self.series {
            let points = plot.points(series);
            if series.style.dash.is_some() {
                occupied.line(&points);
            }
            if series.style.marker.is_some() {
                points.iter().for_each(|at| occupied.marker(*at));
            }
            if !is_band(series) {
                series.points.iter().flat_map(|p| bars(p, plot)).for_each(|b| occupied.line(&b));
            }
        }
        let [_, top, _, height] = plot.area;
        for mark in &self.marks {
            let at = plot.place_across(mark.x);
            occupied.line(&[[at, top], [at, top + height]]);
        }
        for mark in self.marks.iter().filter(|mark| !mark.label.is_empty()) {
            let at = plot.place_across(mark.x);
            if at.is_finite() {
                beside_line(svg, &mut occupied, at, &mark.label, mark.paint);
            }
        }
        for series in &self.series {
            for (at, label) in plot.points(series).into_iter().zip(&series.labels) {
                if at[0].is_finite() && !label.is_empty() {
                    beside_point(svg, &mut occupied, at, label);
                }
            }
        }
    }
}

impl Panel for Chart {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let top = if self.title.is_empty() { 12.0 } else { top };
        let area = [x + left, y + top, width - left - right, height - top - bottom];
        let [px, py, pw, ph] = area;
        heading(svg, [px, y + 14.0], pw, &self.title);
        if !self.has_points() {
            svg.frame(area, Stroke::new(GRID, 1.0));
            let style = TextStyle::new(12.0).paint(MUTED).anchor(Anchor::Middle);
            svg.text([px + pw / 2.0, py + ph / 2.0], &self.empty, style);
            return;
        }
        let plot = self.plot(area);
        axes(svg, area, [&plot.across, &plot.up], Grid::Lines);
        // The clip area is larger than the plot, so that markers at its rim are drawn whole.
        svg.clipped([px - 6.0, py - 6.0, pw + 12.0, ph + 12.0], |svg| {
            self.series.iter().for_each(|series| draw_intervals(svg, series, &plot));
            for mark in &self.marks {
                let at = plot.place_across(mark.x);
                if at.is_finite() {
                    let stroke = Stroke::new(mark.paint, 1.6).dash("4 3");
                    svg.line([at, py - 4.0], [at, py + ph], stroke);
                }
            }
            self.series.iter().for_each(|series| draw_series(svg, series, &plot));
        });
        self.label(svg, &plot);
    }

    fn keys(&self) -> Vec<Key> {
        let named = self
            .series
            .iter()
            .filter(|series| !series.name.is_empty() && !series.points.is_empty());
        named.map(|series| Key { name: series.name.clone(), style: series.style }).collect()
    }
}

/// The line and the markers of a series.
fn draw_series(svg: &mut Svg, series: &Series, plot: &Plot<'_>) {
    let style = series.style;
    let points = plot.points(series);
    if let Some(dash) = style.dash {
        let stroke = Stroke::new(style.paint, style.width).dash(dash).opacity(style.opacity);
        svg.polyline(&points, stroke);
    }
    match style.marker {
        Some(shape) => {
            let (radius, every) = match style.dash {
                Some(_) => (3.0, points.len().div_ceil(MARKERS_OF_A_LINE).max(1)),
                None => (4.2, 1),
            };
            for at in points.iter().step_by(every).filter(|at| at[0].is_finite()) {
                marker(svg, shape, *at, radius, &style);
            }
        }
        // A line of one point has no length, so a disc makes the point visible.
        None => {
            for at in lonely(&points) {
                marker(svg, Marker::Circle, at, style.width.max(1.0) + 1.0, &style);
            }
        }
    }
}

/// Points that have no neighbour to draw a line to.
fn lonely(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let known = |i: Option<usize>| {
        i.and_then(|i| points.get(i)).is_some_and(|p| p[0].is_finite() && p[1].is_finite())
    };
    let alone = |i: usize| known(Some(i)) && !known(i.checked_sub(1)) && !known(Some(i + 1));
    (0..points.len()).filter(|i| alone(*i)).map(|i| points[i]).collect()
}

/// Whether the intervals of a series are drawn as a band, rather than as bars.
fn is_band(series: &Series) -> bool {
    let known = series.points.iter().filter(|p| p.y_interval.is_some());
    series.style.dash.is_some() && known.count() > 1
}

/// Draws intervals as a band along a line, or as bars around markers that have no line.
fn draw_intervals(svg: &mut Svg, series: &Series, plot: &Plot<'_>) {
    let paint = series.style.paint;
    if is_band(series) {
        let ends = |p: &Point| {
            p.y_interval.map(|[low, high]| (plot.place(p.x, low), plot.place(p.x, high)))
        };
        let known: Vec<_> = series
            .points
            .iter()
            .filter_map(ends)
            .filter(|(a, b)| a[0].is_finite() && b[0].is_finite())
            .collect();
        let back = known.iter().rev().map(|(_, high)| *high);
        let outline: Vec<_> = known.iter().map(|(low, _)| *low).chain(back).collect();
        let fill = Fill { opacity: 0.14, class: paint.class, ..Fill::new(paint.colour) };
        svg.polygon(&outline, fill);
        return;
    }
    let stroke = Stroke::new(paint, 1.3);
    for bar in series.points.iter().flat_map(|p| bars(p, plot)) {
        svg.polyline(&bar, stroke);
        let upright = bar[0][0] == bar[1][0];
        for [x, y] in bar.into_iter().filter(|[x, _]| x.is_finite()) {
            let [dx, dy] = if upright { [3.5, 0.0] } else { [0.0, 3.5] };
            svg.line([x - dx, y - dy], [x + dx, y + dy], stroke);
        }
    }
}

/// The two ends of each error bar of a point.
fn bars(point: &Point, plot: &Plot<'_>) -> Vec<[[f64; 2]; 2]> {
    let Point { x, y, .. } = *point;
    let up = point.y_interval.map(|[low, high]| [plot.place(x, low), plot.place(x, high)]);
    let across = point.x_interval.map(|[low, high]| [plot.place(low, y), plot.place(high, y)]);
    up.into_iter().chain(across).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Figure;

    fn circles(points: &[(f64, f64)]) -> usize {
        let series = Series::new("a", Style::line(0), points.to_vec());
        let chart = Chart::new("", Axis::linear("x"), Axis::linear("y")).series(series);
        let svg = Figure::new("t").panel(chart).to_svg().unwrap();
        svg.matches(r#"class="f-c0""#).count()
    }

    #[test]
    fn a_point_without_neighbours_is_drawn_as_a_disc() {
        assert_eq!(circles(&[(1.0, 2.0)]), 1);
        assert_eq!(circles(&[(1.0, 2.0), (2.0, 3.0)]), 0);
        assert_eq!(circles(&[(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 1.0)]), 1);
    }
}
