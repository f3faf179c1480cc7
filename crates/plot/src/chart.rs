//! Line and scatter charts.

use crate::{
    figure::{Key, Panel},
    scale::Axis,
    style::{Marker, Style},
    svg::{
        ALARM, Anchor, GRID, INK, MUTED, PAPER, Paint, Stroke, Svg, TextStyle, shorten, text_width,
    },
};

/// A data point, with the interval of its value if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up; a line has a gap where it is not finite.
    pub y: f64,
    /// Interval of `y`.
    pub y_interval: Option<[f64; 2]>,
    /// Interval of `x`.
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

/// Points that belong together: a line, or markers, or both.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend; series of the same name and style share an entry. Empty: none.
    pub name: String,
    /// The points, in the order of the line.
    pub points: Vec<Point>,
    /// Colour, dash, marker.
    pub style: Style,
    /// Text beside the points, one each; empty: none.
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

    /// The same with a text beside each point.
    pub fn labels(self, labels: Vec<String>) -> Self {
        Self { labels, ..self }
    }
}

/// A vertical line that marks a place, such as the onset of catastrophic overfitting.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// What is there; empty: nothing to say.
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

    /// The same with one series more.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// The same with one mark more.
    pub fn mark(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }

    /// What to say when there is nothing to draw.
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
const TICK: f64 = 11.0;

/// An axis with its ticks and its ends.
pub(super) type Ticked<'a> = (&'a Axis, &'a [(f64, String)], [f64; 2]);

/// Draws the axes of a plot over `[x, y, width, height]` with their ticks and labels.
pub(super) fn frame(
    svg: &mut Svg,
    [x, y, width, height]: [f64; 4],
    axes: [Ticked<'_>; 2],
    grid: bool,
) {
    let [(x_axis, x_ticks, x_ends), (y_axis, y_ticks, y_ends)] = axes;
    let text = TextStyle::new(TICK).paint(MUTED);
    for (value, label) in y_ticks {
        let at = y + height * (1.0 - y_axis.place(*value, y_ends));
        if grid {
            svg.line([x, at], [x + width, at], Stroke::new(GRID, 1.0));
        }
        svg.text([x - 6.0, at + TICK * 0.36], label, text.anchor(Anchor::End));
    }
    for (value, label) in x_ticks {
        let at = x + width * x_axis.place(*value, x_ends);
        svg.line([at, y + height], [at, y + height + 4.0], Stroke::new(MUTED, 1.0));
        svg.text([at, y + height + 16.0], label, text.anchor(Anchor::Middle));
    }
    svg.line([x, y + height], [x + width, y + height], Stroke::new(MUTED, 1.0));
    svg.text(
        [x + width / 2.0, y + height + 33.0],
        &x_axis.label,
        TextStyle::new(12.0).anchor(Anchor::Middle),
    );
    svg.text(
        [x - 40.0, y + height / 2.0],
        &y_axis.label,
        TextStyle::new(12.0).anchor(Anchor::Middle).upright(),
    );
}

/// Heading of a panel at the left of `x`.
pub(super) fn heading(svg: &mut Svg, x: f64, y: f64, width: f64, title: &str) {
    svg.text([x, y], &shorten(title, 13.0, width), TextStyle::new(13.0).bold());
}

/// Draws a marker.
pub(super) fn marker(svg: &mut Svg, marker: Marker, [x, y]: [f64; 2], radius: f64, style: &Style) {
    let outline = marker.outline(x, y, radius);
    svg.polygon(&outline, style.paint.colour, style.opacity, style.paint.class, false);
    let mut closed = outline;
    closed.extend(closed.first().copied());
    svg.polyline(&closed, Stroke::new(PAPER, 0.8));
}

impl Panel for Chart {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let top = if self.title.is_empty() { 12.0 } else { top };
        let area = [x + left, y + top, width - left - right, height - top - bottom];
        let [px, py, pw, ph] = area;
        heading(svg, px, y + 14.0, pw, &self.title);
        let drawn = self
            .series
            .iter()
            .flat_map(|s| &s.points)
            .any(|p| self.x.takes(p.x) && self.y.takes(p.y));
        if !drawn {
            svg.frame(area, Stroke::new(GRID, 1.0));
            svg.text(
                [px + pw / 2.0, py + ph / 2.0],
                &self.empty,
                TextStyle::new(12.0).paint(MUTED).anchor(Anchor::Middle),
            );
            return;
        }
        let x_ends = self
            .x
            .ends(self.values(|p| (p.x, p.x_interval)).chain(self.marks.iter().map(|mark| mark.x)));
        let y_ends = self.y.ends(self.values(|p| (p.y, p.y_interval)));
        let x_ticks = self.x.ticks_within(x_ends, (pw / 60.0) as usize);
        let y_ticks = self.y.ticks_within(y_ends, (ph / 32.0) as usize);
        frame(svg, area, [(&self.x, &x_ticks, x_ends), (&self.y, &y_ticks, y_ends)], true);
        let place = |x: f64, y: f64| {
            if self.x.takes(x) && self.y.takes(y) {
                [px + pw * self.x.place(x, x_ends), py + ph * (1.0 - self.y.place(y, y_ends))]
            } else {
                [f64::NAN; 2]
            }
        };
        // Markers at the rim are drawn whole.
        svg.clipped([px - 6.0, py - 6.0, pw + 12.0, ph + 12.0], |svg| {
            for series in &self.series {
                intervals(svg, series, place);
            }
            for mark in &self.marks {
                let [at, _] = place(mark.x, y_ends[0]);
                if at.is_finite() {
                    svg.line(
                        [at, py - 4.0],
                        [at, py + ph],
                        Stroke::new(mark.paint, 1.6).dash("4 3"),
                    );
                }
            }
            for series in &self.series {
                let points: Vec<_> = series.points.iter().map(|p| place(p.x, p.y)).collect();
                if let Some(dash) = series.style.dash {
                    let stroke = Stroke::new(series.style.paint, series.style.width)
                        .dash(dash)
                        .opacity(series.style.opacity);
                    svg.polyline(&points, stroke);
                }
                if let Some(shape) = series.style.marker {
                    let radius = if series.style.dash.is_some() { 3.0 } else { 4.2 };
                    // Of many points only some get a marker: it tells lines apart, the line gives
                    // the values.
                    let every = if series.style.dash.is_some() {
                        points.len().div_ceil(24).max(1)
                    } else {
                        1
                    };
                    for at in points.iter().step_by(every).filter(|at| at[0].is_finite()) {
                        marker(svg, shape, *at, radius, &series.style);
                    }
                }
            }
        });
        point_labels(svg, area, &self.series, place);
        mark_labels(svg, area, &self.marks, |mark| place(mark.x, y_ends[0])[0]);
    }

    fn keys(&self) -> Vec<Key> {
        let named = self
            .series
            .iter()
            .filter(|series| !series.name.is_empty() && !series.points.is_empty());
        named.map(|series| Key { name: series.name.clone(), style: series.style }).collect()
    }
}

/// Intervals: a band along a line, bars around markers alone.
fn intervals(svg: &mut Svg, series: &Series, place: impl Fn(f64, f64) -> [f64; 2]) {
    let Style { paint, .. } = series.style;
    if series.style.dash.is_some() {
        let ends = |p: &Point| p.y_interval.map(|[low, high]| (place(p.x, low), place(p.x, high)));
        let known: Vec<_> = series
            .points
            .iter()
            .filter_map(ends)
            .filter(|(a, b)| a[0].is_finite() && b[0].is_finite())
            .collect();
        if known.len() > 1 {
            let outline: Vec<_> = known
                .iter()
                .map(|(low, _)| *low)
                .chain(known.iter().rev().map(|(_, high)| *high))
                .collect();
            svg.polygon(&outline, paint.colour, 0.14, paint.class, false);
            return;
        }
    }
    let stroke = Stroke::new(paint, 1.3);
    for point in &series.points {
        if let Some([low, high]) = point.y_interval {
            let ends = [place(point.x, low), place(point.x, high)];
            svg.polyline(&ends, stroke);
            for [x, y] in ends.into_iter().filter(|[x, _]| x.is_finite()) {
                svg.line([x - 3.5, y], [x + 3.5, y], stroke);
            }
        }
        if let Some([low, high]) = point.x_interval {
            let ends = [place(low, point.y), place(high, point.y)];
            svg.polyline(&ends, stroke);
            for [x, y] in ends.into_iter().filter(|[x, _]| x.is_finite()) {
                svg.line([x, y - 3.5], [x, y + 3.5], stroke);
            }
        }
    }
}

/// Texts beside points, moved up or down until they cover neither another text nor a point.
fn point_labels(
    svg: &mut Svg,
    [x, y, width, height]: [f64; 4],
    series: &[Series],
    place: impl Fn(f64, f64) -> [f64; 2],
) {
    let points = series.iter().flat_map(|s| &s.points).map(|p| place(p.x, p.y));
    let mut taken: Vec<[f64; 4]> =
        points.map(|[x, y]| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
    for series in series {
        for (point, label) in series.points.iter().zip(&series.labels) {
            let [px, py] = place(point.x, point.y);
            if !px.is_finite() || label.is_empty() {
                continue;
            }
            let wide = text_width(label, TICK, false);
            let boxes = (0..12).flat_map(|i| {
                let shift = 13.0 * f64::from((i + 1) / 2) * if i % 2 == 0 { 1.0 } else { -1.0 };
                [px + 9.0, px - 9.0 - wide]
                    .map(|left| [left, py + shift - 6.0, left + wide, py + shift + 6.0])
            });
            let inside = |b: &[f64; 4]| {
                b[0] >= x && b[2] <= x + width + 6.0 && b[1] >= y - 4.0 && b[3] <= y + height
            };
            let free = |b: &[f64; 4]| {
                taken.iter().all(|t| b[2] < t[0] || b[0] > t[2] || b[3] < t[1] || b[1] > t[3])
            };
            let mut boxes: Vec<_> = boxes.filter(inside).collect();
            boxes.sort_by_key(|b| usize::from(!free(b)));
            let chosen =
                boxes.first().copied().unwrap_or([px + 9.0, py - 6.0, px + 9.0 + wide, py + 6.0]);
            svg.text([chosen[0], chosen[1] + 10.0], label, TextStyle::new(TICK).paint(INK).halo());
            taken.push(chosen);
        }
    }
}

/// Texts at the tops of marks, on the side where there is more room, one under the other where they
/// are close.
fn mark_labels(
    svg: &mut Svg,
    [x, y, width, _]: [f64; 4],
    marks: &[Mark],
    place: impl Fn(&Mark) -> f64,
) {
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for mark in marks.iter().filter(|mark| !mark.label.is_empty()) {
        let at = place(mark);
        if !at.is_finite() {
            continue;
        }
        let wide = text_width(&mark.label, TICK, true);
        let right = at + 5.0 + wide <= x + width;
        let (start, end) =
            if right { (at + 5.0, at + 5.0 + wide) } else { (at - 5.0 - wide, at - 5.0) };
        let mut line = y + 8.0;
        while taken
            .iter()
            .any(|(a, b, other)| start < *b && end > *a && (line - other).abs() < 12.0)
        {
            line += 13.0;
        }
        taken.push((start, end, line));
        let anchor = if right { Anchor::Start } else { Anchor::End };
        let position = if right { start } else { end };
        svg.text(
            [position, line],
            &mark.label,
            TextStyle::new(TICK).bold().paint(mark.paint).anchor(anchor).halo(),
        );
    }
}
