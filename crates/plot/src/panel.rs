//! The common parts of a figure's panels.

use std::fmt::Debug;

use crate::{
    paint::{PAPER, Stroke},
    style::{Marker, Style},
    svg::{Fill, Svg},
};

/// An entry of the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The text of the entry.
    pub name: String,
    /// The style that the entry explains.
    pub style: Style,
}

/// A part of a figure, such as a [`Chart`](crate::Chart).
pub trait Panel: Debug {
    /// Draws the panel over `[x, y, width, height]`, in pixels.
    fn draw(&self, svg: &mut Svg, area: [f64; 4]);

    /// The entries of the panel's legend.
    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

/// Draws a marker.
pub(crate) fn marker(svg: &mut Svg, marker: Marker, [x, y]: [f64; 2], radius: f64, style: &Style) {
    let Style { paint, opacity, .. } = *style;
    let outline = marker.outline(x, y, radius);
    svg.polygon(&outline, Fill { opacity, class: paint.class, ..Fill::new(paint.colour) });
    let mut closed = outline;
    closed.extend(closed.first().copied());
    svg.polyline(&closed, Stroke::new(PAPER, 0.8));
}
