//! The colour bar: a strip that shows which colour stands for which value.

use super::values::part;
use crate::{
    axis::Axis,
    paint::{MUTED, Stroke, TextStyle},
    style::{hex, viridis},
    svg::{Fill, Svg},
};

/// Space around a map: left, top, right (with the colour bar), bottom.
pub(crate) const MARGIN: [f64; 4] = [54.0, 26.0, 62.0, 40.0];

/// Draws a strip that shows which colour stands for which value.
pub(crate) fn colour_bar(
    svg: &mut Svg,
    [x, y, width, height]: [f64; 4],
    ends: [f64; 2],
    label: &str,
) {
    const STEPS: usize = 40;
    for i in 0..STEPS {
        let t = i as f64 / (STEPS - 1) as f64;
        let h = height / STEPS as f64;
        svg.rect(
            [x, y + height - (i + 1) as f64 * h - 0.3, width, h + 0.6],
            Fill::new(&hex(viridis(t))),
        );
    }
    let axis = Axis::linear("");
    for (value, text) in axis.ticks_within(ends, (height / 36.0) as usize) {
        let at = y + height * (1.0 - part(value, ends));
        svg.line([x + width, at], [x + width + 3.0, at], Stroke::new(MUTED, 1.0));
        svg.text([x + width + 6.0, at + 4.0], &text, TextStyle::new(10.5).paint(MUTED));
    }
    // Below, since above it a long title may reach over the strip.
    svg.text([x, y + height + 16.0], label, TextStyle::new(10.5).paint(MUTED));
}
