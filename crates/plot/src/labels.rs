//! Finds places for texts inside a plot, where they cover neither a curve, nor an error bar, nor
//! another text.

use crate::{
    frame::TICK,
    paint::{Anchor, INK, MUTED, Paint, Stroke, TextStyle, Weight},
    svg::Svg,
    text::text_width,
};

/// `[left, top, right, bottom]` in pixels.
type Bounds = [f64; 4];

/// The areas of a plot that are already drawn on.
pub(crate) struct Occupied {
    /// Left, top, right and bottom of the plot.
    bounds: Bounds,
    segments: Vec<[[f64; 2]; 2]>,
    boxes: Vec<Bounds>,
}

/// Cost of a place where the text covers another text or a point.
const BOX_COST: f64 = 400.0;
/// Cost of a place for each piece of a line under the text.
const LINE_COST: f64 = 60.0;
/// Cost of a place where the text leaves the plot.
const OUTSIDE_COST: f64 = 2000.0;
/// Space between lines of text in pixels.
const LEADING: f64 = 13.0;

impl Occupied {
    /// An empty plot over `[x, y, width, height]`.
    pub(crate) fn new([x, y, width, height]: [f64; 4]) -> Self {
        let bounds = [x, y - 4.0, x + width + 6.0, y + height];
        Self { bounds, segments: Vec::new(), boxes: Vec::new() }
    }

    /// Records a line through `points`, with gaps where a point is not finite.
    pub(crate) fn line(&mut self, points: &[[f64; 2]]) {
        let whole = points.windows(2).filter(|pair| pair.iter().flatten().all(|v| v.is_finite()));
        self.segments.extend(whole.map(|pair| [pair[0], pair[1]]));
    }

    /// Records a marker at a point.
    pub(crate) fn marker(&mut self, [x, y]: [f64; 2]) {
        if x.is_finite() && y.is_finite() {
            self.boxes.push([x - 5.0, y - 5.0, x + 5.0, y + 5.0]);
        }
    }

    fn cost(&self, area: &Bounds) -> f64 {
        let [left, top, right, bottom] = self.bounds;
        let outside = area[0] < left || area[2] > right || area[1] < top || area[3] > bottom;
        let boxes = self.boxes.iter().filter(|other| overlap(area, other)).count() as f64;
        let lines = self.segments.iter().filter(|line| crosses(area, line)).count() as f64;
        BOX_COST * boxes + LINE_COST * lines + if outside { OUTSIDE_COST } else { 0.0 }
    }

    /// Takes the cheapest of `places`, each of which comes with the cost of its distance.
    fn take(&mut self, places: impl Iterator<Item = (f64, Bounds)>) -> Option<Bounds> {
        let costs = places.map(|(far, area)| (far + self.cost(&area), area));
        let (_, best) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
        self.boxes.push(best);
        Some(best)
    }
}

fn overlap(a: &Bounds, b: &Bounds) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Whether a line passes through an area (Liang and Barsky's clipping).
fn crosses(area: &Bounds, [[x1, y1], [x2, y2]]: &[[f64; 2]; 2]) -> bool {
    let (dx, dy) = (x2 - x1, y2 - y1);
    let (mut start, mut end) = (0f64, 1f64);
    for (p, q) in [(-dx, x1 - area[0]), (dx, area[2] - x1), (-dy, y1 - area[1]), (dy, area[3] - y1)]
    {
        if p == 0.0 {
            if q < 0.0 {
                return false;
            }
        } else if p < 0.0 {
            start = start.max(q / p);
        } else {
            end = end.min(q / p);
        }
    }
    start <= end
}

/// Writes `label` near the point `(x, y)`, with a thin line to the point where the text is not
/// beside it.
pub(crate) fn beside_point(svg: &mut Svg, occupied: &mut Occupied, [x, y]: [f64; 2], label: &str) {
    let wide = text_width(label, TICK, Weight::Regular);
    let places = (0..9).flat_map(|ring| {
        let shift = LEADING * f64::from(ring);
        let far = 8.0 * f64::from(ring);
        let beside = [(8.0, 0.0), (-8.0 - wide, 1.0), (-wide / 2.0, 3.0)];
        beside.into_iter().flat_map(move |(dx, extra)| {
            [-1.0, 1.0].map(|side| {
                let middle = y + side * shift;
                let cost = far + extra + if side > 0.0 { 0.5 } else { 0.0 };
                (cost, [x + dx, middle - 6.0, x + dx + wide, middle + 6.0])
            })
        })
    });
    let Some([left, top, right, bottom]) = occupied.take(places) else { return };
    if top > y + LEADING || bottom < y - LEADING {
        let end = [x.clamp(left, right), y.clamp(top, bottom)];
        svg.line([x, y], end, Stroke::new(MUTED, 0.7));
    }
    svg.text([left, top + 10.0], label, TextStyle::new(TICK).paint(INK).halo());
}

/// Writes `label` beside the vertical line at `x`, as far up as there is space.
pub(crate) fn beside_line(
    svg: &mut Svg,
    occupied: &mut Occupied,
    x: f64,
    label: &str,
    paint: Paint,
) {
    let wide = text_width(label, TICK, Weight::Bold);
    let [_, top, _, bottom] = occupied.bounds;
    let rows = ((bottom - top) / LEADING).max(1.0) as usize;
    let places = (0..rows).flat_map(|row| {
        let middle = top + 8.0 + LEADING * row as f64;
        let far = 3.0 * row as f64;
        [(0.0, x + 4.0), (1.0, x - 4.0 - wide)]
            .map(|(extra, left)| (far + extra, [left, middle - 5.5, left + wide, middle + 5.5]))
    });
    let Some(place) = occupied.take(places) else { return };
    let style = TextStyle::new(TICK).bold().paint(paint).halo();
    let right = place[0] >= x;
    let (at, anchor) = if right { (place[0], Anchor::Start) } else { (place[2], Anchor::End) };
    svg.text([at, place[1] + 9.5], label, style.anchor(anchor));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: [f64; 4] = [0.0, 0.0, 300.0, 200.0];

    /// Places of the texts that were drawn: `(x, y)`.
    fn texts(svg: &Svg) -> Vec<[f64; 2]> {
        let text = svg.finish().unwrap();
        let number = |part: &str, key: &str| -> f64 {
            part.split_once(key).unwrap().1.split('"').next().unwrap().parse().unwrap()
        };
        text.split("<text ").skip(1).map(|p| [number(p, "x=\""), number(p, "y=\"")]).collect()
    }

    #[test]
    fn a_line_through_an_area_is_noticed() {
        let area = [10.0, 10.0, 20.0, 20.0];
        for (line, expected) in [
            ([[0.0, 15.0], [30.0, 15.0]], true),
            ([[0.0, 0.0], [30.0, 30.0]], true),
            ([[12.0, 12.0], [13.0, 13.0]], true),
            ([[0.0, 0.0], [30.0, 5.0]], false),
            ([[0.0, 15.0], [9.0, 15.0]], false),
            ([[0.0, 25.0], [25.0, 0.0]], true),
            ([[0.0, 19.0], [19.0, 0.0]], false),
        ] {
            assert_eq!(crosses(&area, &line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_label_avoids_the_error_bars_of_its_point_and_the_labels_before() {
        let mut occupied = Occupied::new(PLOT);
        let at = [150.0, 100.0];
        occupied.marker(at);
        let bars = [[[110.0, 100.0], [190.0, 100.0]], [[150.0, 60.0], [150.0, 140.0]]];
        bars.iter().for_each(|bar| occupied.line(bar));
        let mut svg = Svg::new(300.0, 200.0, "");
        for _ in 0..4 {
            beside_point(&mut svg, &mut occupied, at, "a run");
        }
        let wide = text_width("a run", TICK, Weight::Regular);
        let boxes: Vec<Bounds> =
            texts(&svg).iter().map(|[x, y]| [*x, y - 10.0, x + wide, y + 2.0]).collect();
        assert_eq!(boxes.len(), 4);
        for (i, area) in boxes.iter().enumerate() {
            assert!(bars.iter().all(|bar| !crosses(area, bar)), "{area:?} lies on a bar");
            assert!(boxes[..i].iter().all(|other| !overlap(area, other)), "{boxes:?}");
        }
    }

    #[test]
    fn a_mark_is_named_below_the_curves_that_cross_its_top() {
        let mut occupied = Occupied::new(PLOT);
        occupied.line(&[[0.0, 5.0], [300.0, 5.0]]);
        occupied.line(&[[0.0, 22.0], [300.0, 22.0]]);
        let mut svg = Svg::new(300.0, 200.0, "");
        beside_line(&mut svg, &mut occupied, 290.0, "CO, step 7", MUTED);
        let [[x, y]] = texts(&svg)[..] else { panic!("one text") };
        assert!(x <= 286.0, "to the left: {x}");
        assert!(y > 30.0, "below both curves: {y}");
    }
}
