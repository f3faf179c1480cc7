//! Colours, strokes and text styles of a drawing.

/// Colour of text and axes.
pub const INK: Paint = Paint { colour: "#1f2328", class: "ink" };
/// Colour of secondary text.
pub const MUTED: Paint = Paint { colour: "#59636e", class: "muted" };
/// Colour of grid lines.
pub const GRID: Paint = Paint { colour: "#e3e6ea", class: "grid" };
/// Colour of the background.
pub const PAPER: Paint = Paint { colour: "#ffffff", class: "paper" };
/// Colour of a warning, such as the onset of catastrophic overfitting.
pub const ALARM: Paint = Paint { colour: "#c4320a", class: "alarm" };

/// A colour and the class that a style sheet may recolour it by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paint {
    /// `#rrggbb`.
    pub colour: &'static str,
    /// Class name, without the prefix that tells a stroke from a fill.
    pub class: &'static str,
}

/// Where a text's position lies on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    /// At its left end.
    Start,
    /// At its middle.
    Middle,
    /// At its right end.
    End,
}

/// How heavy letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// As in running text.
    Regular,
    /// Semi-bold.
    Bold,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Height of the letters (em), in pixels.
    pub size: f64,
    /// Weight of the letters.
    pub weight: Weight,
    /// Colour.
    pub paint: Paint,
    /// What the position is of.
    pub anchor: Anchor,
    /// Turned by 90 degrees to the left.
    pub upright: bool,
    /// Whether a rim of the paper's colour sets it off from what lies under it.
    pub halo: bool,
}

impl TextStyle {
    /// Plain text of this size, starting at its position.
    pub fn new(size: f64) -> Self {
        Self {
            size,
            weight: Weight::Regular,
            paint: INK,
            anchor: Anchor::Start,
            upright: false,
            halo: false,
        }
    }

    /// The same, semi-bold.
    pub fn bold(self) -> Self {
        Self { weight: Weight::Bold, ..self }
    }

    /// The same in another colour.
    pub fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }

    /// The same, anchored elsewhere.
    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same, turned to the left.
    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }

    /// The same with a rim.
    pub fn halo(self) -> Self {
        Self { halo: true, ..self }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    /// Colour.
    pub paint: Paint,
    /// Width in pixels.
    pub width: f64,
    /// Lengths of dashes and gaps in pixels, as in `stroke-dasharray`; empty for a solid line.
    pub dash: &'static str,
    /// From 0, unseen, to 1.
    pub opacity: f64,
}

impl Stroke {
    /// A solid line.
    pub fn new(paint: Paint, width: f64) -> Self {
        Self { paint, width, dash: "", opacity: 1.0 }
    }

    /// The same, dashed.
    pub fn dash(self, dash: &'static str) -> Self {
        Self { dash, ..self }
    }

    /// The same, fainter.
    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}
