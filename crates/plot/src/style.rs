//! Colours, dashes and markers that tell lines apart, in colour and in black and white.

use crate::paint::Paint;

/// Okabe and Ito's palette for colour-blind readers (Wong 2011, Nature Methods 8:441), without
/// black and without the yellow, which is invisible on white paper.
pub const PALETTE: [Paint; 7] = [
    Paint { colour: "#0072b2", class: "c0" },
    Paint { colour: "#d55e00", class: "c1" },
    Paint { colour: "#009e73", class: "c2" },
    Paint { colour: "#cc79a7", class: "c3" },
    Paint { colour: "#e69f00", class: "c4" },
    Paint { colour: "#56b4e9", class: "c5" },
    Paint { colour: "#6e6e6e", class: "c6" },
];

/// Dash patterns in pixels; the first is a solid line.
pub const DASHES: [&str; 5] = ["", "7 3", "2 2.5", "8 3 2 3", "12 3"];

/// Shape of a data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle, point up.
    Triangle,
    /// A square on its corner.
    Diamond,
    /// A triangle, point down.
    Down,
    /// A saltire.
    Cross,
    /// A five-pointed star.
    Star,
}

/// Markers in the order in which series take them.
pub const MARKERS: [Marker; 6] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Down,
    Marker::Cross,
];

/// The style of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Colour.
    pub paint: Paint,
    /// Dash pattern; `None` draws no line.
    pub dash: Option<&'static str>,
    /// Marker at each point; `None` draws none.
    pub marker: Option<Marker>,
    /// Width of the line in pixels.
    pub width: f64,
    /// Opacity from 0 (invisible) to 1.
    pub opacity: f64,
}

impl Style {
    /// A line with its own colour and dash for each `index`: neighbours differ in both.
    pub fn line(index: usize) -> Self {
        Self {
            paint: PALETTE[index % PALETTE.len()],
            dash: Some(DASHES[index % DASHES.len()]),
            marker: None,
            width: 1.8,
            opacity: 1.0,
        }
    }

    /// The style of [`line`](Self::line) with a marker at each point.
    pub fn marked(index: usize) -> Self {
        Self { marker: Some(MARKERS[index % MARKERS.len()]), ..Self::line(index) }
    }

    /// Markers without a line.
    pub fn points(index: usize) -> Self {
        Self { dash: None, ..Self::marked(index) }
    }

    /// The same style with another colour.
    pub fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }

    /// The same style with another dash pattern.
    pub fn dash(self, dash: &'static str) -> Self {
        Self { dash: Some(dash), ..self }
    }

    /// The same style with another marker.
    pub fn marker(self, marker: Marker) -> Self {
        Self { marker: Some(marker), ..self }
    }

    /// The same style with another line width in pixels.
    pub fn width(self, width: f64) -> Self {
        Self { width, ..self }
    }

    /// The same style with another opacity.
    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

impl Marker {
    /// The outline of the marker around `(x, y)` with a radius of `radius` pixels.
    pub(super) fn outline(self, x: f64, y: f64, radius: f64) -> Vec<[f64; 2]> {
        let around = |n: usize, start: f64, radius: &dyn Fn(usize) -> f64| -> Vec<[f64; 2]> {
            (0..n)
                .map(|i| {
                    let angle = (start + 360.0 * i as f64 / n as f64).to_radians();
                    [x + radius(i) * angle.cos(), y + radius(i) * angle.sin()]
                })
                .collect()
        };
        match self {
            Self::Circle => around(16, 0.0, &|_| radius),
            Self::Square => around(4, 45.0, &|_| radius * 1.2),
            Self::Triangle => around(3, -90.0, &|_| radius * 1.3),
            Self::Down => around(3, 90.0, &|_| radius * 1.3),
            Self::Diamond => around(4, 0.0, &|_| radius * 1.25),
            Self::Star => {
                around(10, -90.0, &|i| if i % 2 == 0 { radius * 1.9 } else { radius * 0.8 })
            }
            Self::Cross => {
                let (a, b) = (radius * 1.15, radius * 0.35);
                [
                    [-a, -a + b],
                    [-a + b, -a],
                    [0.0, -b],
                    [a - b, -a],
                    [a, -a + b],
                    [b, 0.0],
                    [a, a - b],
                    [a - b, a],
                    [0.0, b],
                    [-a + b, a],
                    [-a, a - b],
                    [-b, 0.0],
                ]
                .map(|[dx, dy]| [x + dx, y + dy])
                .to_vec()
            }
        }
    }
}

/// A colour of the map "viridis" (van der Walt and Smith 2015, public domain) for `t` from 0 (dark)
/// to 1 (light). The map is readable without colour, because its lightness rises all the way.
pub fn viridis(t: f64) -> [u8; 3] {
    const ANCHORS: [[u8; 3]; 11] = [
        [68, 1, 84],
        [72, 36, 117],
        [65, 68, 135],
        [53, 95, 141],
        [42, 120, 142],
        [33, 145, 140],
        [34, 168, 132],
        [68, 191, 112],
        [122, 209, 81],
        [189, 223, 38],
        [253, 231, 37],
    ];
    let t = if t.is_finite() { t.clamp(0.0, 1.0) } else { 0.0 } * (ANCHORS.len() - 1) as f64;
    let low = (t as usize).min(ANCHORS.len() - 2);
    let part = t - low as f64;
    std::array::from_fn(|c| {
        (f64::from(ANCHORS[low][c]) * (1.0 - part) + f64::from(ANCHORS[low + 1][c]) * part).round()
            as u8
    })
}

/// `#rrggbb`.
pub fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_gets_lighter_all_the_way() {
        let lightness = |t: f64| {
            viridis(t)
                .iter()
                .zip([0.2126, 0.7152, 0.0722])
                .map(|(&c, w)| f64::from(c) * w)
                .sum::<f64>()
        };
        for i in 0..100 {
            assert!(lightness(f64::from(i + 1) / 100.0) > lightness(f64::from(i) / 100.0), "{i}");
        }
        assert_eq!(viridis(f64::NAN), [68, 1, 84]);
    }

    #[test]
    fn neighbouring_lines_differ_without_colour() {
        for i in 0..20 {
            assert_ne!(Style::marked(i).dash, Style::marked(i + 1).dash);
            assert_ne!(Style::marked(i).marker, Style::marked(i + 1).marker);
        }
    }
}
