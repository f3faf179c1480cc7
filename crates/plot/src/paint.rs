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

/// A colour, and the class by which a style sheet may recolour it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paint {
    /// `#rrggbb`.
    pub colour: &'static str,
    /// Class name, without the prefix that separates strokes from fills.
    pub class: &'static str,
}

/// The place of a text's position on the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchor {
    /// The position is the text's left end.
    Start,
    /// The position is the text's middle.
    Middle,
    /// The position is the text's right end.
    End,
}

/// The weight of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The weight of running text.
    Regular,
    /// Semi-bold.
    Bold,
}

/// The style of a text.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Height of the letters (em), in pixels.
    pub size: f64,
    /// Weight of the letters.
    pub weight: Weight,
    /// Colour.
    pub paint: Paint,
    /// The place of the text's position on the text.
    pub anchor: Anchor,
    /// Whether the text is turned by 90 degrees to the left.
    pub upright: bool,
    /// Whether a rim in the paper's colour separates the text from what lies under it.
    pub halo: bool,
}

impl TextStyle {
    /// Regular text of this size in pixels, which starts at its position.
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

    /// The same style with semi-bold letters.
    pub fn bold(self) -> Self {
        Self { weight: Weight::Bold, ..self }
    }

    /// The same style in another colour.
    pub fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }

    /// The same style with another anchor.
    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same style turned to the left.
    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }

    /// The same style with a rim.
    pub fn halo(self) -> Self {
        Self { halo: true, ..self }
    }
}

/// The style of a line.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    /// Colour.
    pub paint: Paint,
    /// Width in pixels.
    pub width: f64,
    /// Lengths of dashes and gaps in pixels, as in `stroke-dasharray`; empty for a solid line.
    pub dash: &'static str,
    /// Opacity from 0 (invisible) to 1.
    pub opacity: f64,
}

impl Stroke {
    /// A solid line.
    pub fn new(paint: Paint, width: f64) -> Self {
        Self { paint, width, dash: "", opacity: 1.0 }
    }

    /// The same stroke, dashed.
    pub fn dash(self, dash: &'static str) -> Self {
        Self { dash, ..self }
    }

    /// The same stroke with another opacity.
    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}
