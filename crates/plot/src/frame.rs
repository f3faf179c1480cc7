//! The frame of a plot: heading, axes, ticks.

use crate::{
    axis::Axis,
    paint::{Anchor, GRID, MUTED, Stroke, TextStyle},
    svg::Svg,
    text::shorten,
};

/// Height of the letters at ticks and labels in pixels.
pub(crate) const TICK: f64 = 11.0;

/// An axis with its ticks and its ends.
pub(crate) struct Ticked<'a> {
    pub(crate) axis: &'a Axis,
    pub(crate) ticks: Vec<(f64, String)>,
    pub(crate) ends: [f64; 2],
}

impl<'a> Ticked<'a> {
    /// The ticks of `axis`, about `wanted` of them, between `ends`.
    pub(crate) fn new(axis: &'a Axis, ends: [f64; 2], wanted: usize) -> Self {
        Self { axis, ticks: axis.ticks_within(ends, wanted), ends }
    }

    /// Position of `value` between the ends: 0 to 1 inside them.
    pub(crate) fn place(&self, value: f64) -> f64 {
        self.axis.place(value, self.ends)
    }
}

/// Whether lines cross the plot at the ticks of its vertical axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    Lines,
    None,
}

/// Draws the axes of a plot over `[x, y, width, height]` with their ticks and labels.
pub(crate) fn axes(
    svg: &mut Svg,
    [x, y, width, height]: [f64; 4],
    [across, up]: [&Ticked<'_>; 2],
    grid: Grid,
) {
    let text = TextStyle::new(TICK).paint(MUTED);
    for (value, label) in &up.ticks {
        let at = y + height * (1.0 - up.place(*value));
        if grid == Grid::Lines {
            svg.line([x, at], [x + width, at], Stroke::new(GRID, 1.0));
        }
        svg.text([x - 6.0, at + TICK * 0.36], label, text.anchor(Anchor::End));
    }
    for (value, label) in &across.ticks {
        let at = x + width * across.place(*value);
        svg.line([at, y + height], [at, y + height + 4.0], Stroke::new(MUTED, 1.0));
        svg.text([at, y + height + 16.0], label, text.anchor(Anchor::Middle));
    }
    svg.line([x, y + height], [x + width, y + height], Stroke::new(MUTED, 1.0));
    let name = TextStyle::new(12.0).anchor(Anchor::Middle);
    svg.text([x + width / 2.0, y + height + 33.0], &across.axis.label, name);
    svg.text([x - 40.0, y + height / 2.0], &up.axis.label, name.upright());
}

/// Draws the heading of a panel, at most `width` pixels wide.
pub(crate) fn heading(svg: &mut Svg, at: [f64; 2], width: f64, title: &str) {
    svg.text(at, &shorten(title, 13.0, width), TextStyle::new(13.0).bold());
}
