//! Pictures as panels of a figure.

use crate::{
    paint::{Anchor, MUTED, TextStyle, Weight},
    panel::Panel,
    picture::{Raster, Scaling},
    svg::Svg,
    text::shorten,
};

/// A picture with lines of text under it.
#[derive(Clone, Debug)]
pub struct Tile {
    /// The picture.
    pub picture: Raster,
    /// Lines below, each with the weight of its letters.
    pub lines: Vec<(String, Weight)>,
}

impl Panel for Tile {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let room = (height - 8.0 - self.lines.len() as f64 * 14.0).max(8.0);
        let ratio = f64::from(self.picture.width.max(1)) / f64::from(self.picture.height.max(1));
        let wide = (width - 12.0).min(room * ratio);
        let high = wide / ratio;
        svg.picture([x + (width - wide) / 2.0, y, wide, high], &self.picture, Scaling::Pixels);
        for (i, (line, weight)) in self.lines.iter().enumerate() {
            let style = TextStyle::new(11.0).anchor(Anchor::Middle);
            let style = if *weight == Weight::Bold { style.bold() } else { style.paint(MUTED) };
            let text = shorten(line, 11.0, width - 2.0);
            svg.text([x + width / 2.0, y + high + 14.0 + i as f64 * 14.0], &text, style);
        }
    }
}
