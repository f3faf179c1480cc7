//! A figure: a heading, a legend, panels in a grid, and a caption.

use crate::{
    error::Result,
    format::Format,
    paint::{INK, MUTED, Stroke, TextStyle, Weight},
    panel::{Key, Panel, marker},
    raster::png,
    svg::Svg,
    text::{text_width, wrap},
};

/// A figure.
#[derive(Debug)]
pub struct Figure {
    title: String,
    caption: String,
    columns: usize,
    panel: [f64; 2],
    heights: Vec<f64>,
    panels: Vec<Box<dyn Panel>>,
}

/// Space in pixels at the rim.
const RIM: f64 = 14.0;
const TITLE: f64 = 16.0;
const CAPTION: f64 = 11.5;
const LEGEND: f64 = 12.0;
const SWATCH: f64 = 30.0;
/// Heights of a line of each text.
const TITLE_LINE: f64 = 21.0;
const LEGEND_LINE: f64 = 19.0;
const CAPTION_LINE: f64 = 15.5;

impl Figure {
    /// A figure without panels. Panels go side by side and have 380 by 260 pixels each, unless the
    /// other methods change that.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            caption: String::new(),
            columns: 2,
            panel: [380.0, 260.0],
            heights: Vec::new(),
            panels: Vec::new(),
        }
    }

    /// The same figure with a caption below it.
    pub fn caption(self, caption: impl Into<String>) -> Self {
        Self { caption: caption.into(), ..self }
    }

    /// The same figure with this many panels in a row.
    pub fn columns(self, columns: usize) -> Self {
        Self { columns: columns.max(1), ..self }
    }

    /// The same figure with panels of this size in pixels.
    pub fn panel_size(self, width: f64, height: f64) -> Self {
        Self { panel: [width, height], ..self }
    }

    /// The same figure with rows of these heights in pixels; further rows have the panels' height.
    pub fn heights(self, heights: Vec<f64>) -> Self {
        Self { heights, ..self }
    }

    /// The same figure with one more panel.
    pub fn panel(mut self, panel: impl Panel + 'static) -> Self {
        self.panels.push(Box::new(panel));
        self
    }

    /// The heading.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The caption below the figure.
    pub fn caption_text(&self) -> &str {
        &self.caption
    }

    /// Draws the figure.
    pub fn draw(&self) -> Svg {
        let columns = self.columns.min(self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let inner = (columns as f64 * self.panel[0]).max(360.0);
        let titles = wrap(&self.title, TITLE * 1.04, inner);
        let captions = wrap(&self.caption, CAPTION, inner);
        let legend = self.legend(inner);
        let legend_top = RIM + titles.len() as f64 * TITLE_LINE;
        let top = legend_top + legend.len() as f64 * LEGEND_LINE + 8.0;
        let row_height = |row: usize| self.heights.get(row).copied().unwrap_or(self.panel[1]);
        let row_top = |row: usize| top + (0..row).map(row_height).sum::<f64>();
        let below = row_top(rows);
        let text = if captions.is_empty() { 0.0 } else { 6.0 };
        let height = below + text + captions.len() as f64 * CAPTION_LINE + RIM;
        let mut svg = Svg::new(inner + 2.0 * RIM, height, &self.title).describe(&self.caption);
        for (i, line) in titles.iter().enumerate() {
            let at = [RIM, RIM + TITLE + i as f64 * TITLE_LINE - 2.0];
            svg.text(at, line, TextStyle::new(TITLE).bold());
        }
        for (i, row) in legend.iter().enumerate() {
            let y = legend_top + i as f64 * LEGEND_LINE + 12.0;
            row.iter().for_each(|(x, key)| swatch(&mut svg, RIM + x, y, key));
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let (left, row) = ((i % columns) as f64 * self.panel[0], i / columns);
            panel.draw(&mut svg, [RIM + left, row_top(row), self.panel[0], row_height(row)]);
        }
        for (i, line) in captions.iter().enumerate() {
            let at = [RIM, below + 6.0 + CAPTION + i as f64 * CAPTION_LINE];
            svg.text(at, line, TextStyle::new(CAPTION).paint(MUTED));
        }
        svg
    }

    /// Rows of the legend, each entry with its horizontal position. Each distinct name and style
    /// has one entry.
    fn legend(&self, width: f64) -> Vec<Vec<(f64, Key)>> {
        let mut keys: Vec<Key> = Vec::new();
        for key in self.panels.iter().flat_map(|panel| panel.keys()) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut rows: Vec<Vec<(f64, Key)>> = Vec::new();
        let mut x = f64::INFINITY;
        for key in keys {
            let wide = SWATCH + 6.0 + text_width(&key.name, LEGEND, Weight::Regular) + 18.0;
            if x + wide > width + 18.0 {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((x, key));
            }
            x += wide;
        }
        rows
    }

    /// The figure as an SVG file.
    ///
    /// # Errors
    /// [`Error::Draw`](crate::Error::Draw) when a picture cannot be compressed.
    pub fn to_svg(&self) -> Result<String> {
        self.draw().finish()
    }

    /// The figure as a PNG file, with `scale` pixels for each pixel of the SVG.
    ///
    /// # Errors
    /// A size outside the limits of a picture, or a build without the feature `png`.
    pub fn to_png(&self, scale: f32) -> Result<Vec<u8>> {
        png(&self.draw(), scale)
    }

    /// The figure as a file of `format`: SVG or, at twice the size, PNG.
    ///
    /// # Errors
    /// Those of [`to_svg`](Self::to_svg) and [`to_png`](Self::to_png).
    pub fn encode(&self, format: Format) -> Result<Vec<u8>> {
        match format {
            Format::Svg => Ok(self.to_svg()?.into_bytes()),
            Format::Png => self.to_png(2.0),
        }
    }
}

fn swatch(svg: &mut Svg, x: f64, y: f64, key: &Key) {
    let style = key.style;
    if let Some(dash) = style.dash {
        svg.line(
            [x, y - 4.0],
            [x + SWATCH, y - 4.0],
            Stroke::new(style.paint, style.width.max(1.6)).dash(dash).opacity(style.opacity),
        );
    }
    if let Some(shape) = style.marker {
        marker(
            svg,
            shape,
            [x + SWATCH / 2.0, y - 4.0],
            if style.dash.is_some() { 3.2 } else { 4.2 },
            &style,
        );
    }
    svg.text([x + SWATCH + 6.0, y], &key.name, TextStyle::new(LEGEND).paint(INK));
}
