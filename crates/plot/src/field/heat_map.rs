//! Heat maps.

use super::{
    colour_bar::{MARGIN, colour_bar},
    values::{Field, part},
};
use crate::{
    frame::heading,
    paint::{Anchor, INK, MUTED, PAPER, Stroke, TextStyle, Weight},
    panel::Panel,
    style::{hex, viridis},
    svg::{Fill, Svg},
    text::text_width,
};

/// A map of cells in named rows and columns.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// Heading.
    pub title: String,
    /// The values of the cells; the places along x and y are not used.
    pub field: Field,
    /// The quantity that changes from column to column.
    pub x_label: String,
    /// Name of each column.
    pub columns: Vec<String>,
    /// The quantity that changes from row to row.
    pub y_label: String,
    /// Name of each row, from the bottom.
    pub rows: Vec<String>,
    /// The values of the darkest and of the lightest colour.
    pub ends: [f64; 2],
    /// The quantity that the values measure.
    pub label: String,
    /// A marked column, such as the epsilon of the training: its position, in columns from the
    /// left, and its text.
    pub mark: Option<(f64, String)>,
}

impl HeatMap {
    /// Width and height of a cell in a map of this size.
    fn cell(&self, width: f64, height: f64) -> [f64; 2] {
        [width / self.columns.len().max(1) as f64, height / self.rows.len().max(1) as f64]
    }

    fn draw_cells(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [wide, high] = self.cell(width, height);
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let value = self.field.at(row, column);
                if value.is_finite() {
                    let left = x + column as f64 * wide;
                    let top = y + height - (row + 1) as f64 * high;
                    let colour = hex(viridis(part(value, self.ends)));
                    svg.rect([left, top, wide + 0.3, high + 0.3], Fill::new(&colour));
                }
            }
        }
    }

    fn draw_names(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [wide, high] = self.cell(width, height);
        let text = TextStyle::new(11.0).paint(MUTED);
        // Where names would touch, only every second, third, ... name is written.
        let every = |step: f64, size: f64| (size / step.max(1e-9)).ceil().max(1.0) as usize;
        for (i, name) in self.columns.iter().enumerate().step_by(every(wide, 30.0)) {
            let at = [x + (i as f64 + 0.5) * wide, y + height + 15.0];
            svg.text(at, name, text.anchor(Anchor::Middle));
        }
        for (i, name) in self.rows.iter().enumerate().step_by(every(high, 15.0)) {
            let at = [x - 6.0, y + height - (i as f64 + 0.5) * high + 4.0];
            svg.text(at, name, text.anchor(Anchor::End));
        }
    }

    fn draw_mark(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let Some((place, label)) = &self.mark else { return };
        let at = x + (place + 0.5) * self.cell(width, height)[0];
        svg.line([at, y], [at, y + height], Stroke::new(PAPER, 3.0));
        svg.line([at, y - 3.0], [at, y + height], Stroke::new(INK, 1.4).dash("4 3"));
        let room = at + 5.0 + text_width(label, 11.0, Weight::Regular) <= x + width;
        let (dx, anchor) = if room { (5.0, Anchor::Start) } else { (-5.0, Anchor::End) };
        svg.text([at + dx, y + 13.0], label, TextStyle::new(11.0).anchor(anchor).halo());
    }
}

impl Panel for HeatMap {
    fn draw(&self, svg: &mut Svg, [x, y, width, height]: [f64; 4]) {
        let [left, top, right, bottom] = MARGIN;
        let area = [x + left, y + top, width - left - right, height - top - bottom];
        let [px, py, pw, ph] = area;
        heading(svg, [px, y + 14.0], pw + right - 8.0, &self.title);
        self.draw_cells(svg, area);
        self.draw_names(svg, area);
        self.draw_mark(svg, area);
        let name = TextStyle::new(12.0).anchor(Anchor::Middle);
        svg.text([px + pw / 2.0, py + ph + 33.0], &self.x_label, name);
        svg.text([x + 12.0, py + ph / 2.0], &self.y_label, name.upright());
        colour_bar(svg, [px + pw + 12.0, py, 12.0, ph], self.ends, &self.label);
    }
}
