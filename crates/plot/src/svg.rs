//! A small SVG document: shapes, text and pictures, written in the order of painting.
//!
//! Colours are presentation attributes, and every element also has a class: a page that holds the
//! drawing may restyle it (a dark theme) with its own style sheet, while the file by itself looks
//! the same everywhere.

use std::fmt::Write;

use base64::Engine;
use resvg::tiny_skia::Pixmap;

use crate::error::{Error, Result};

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

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Height of the letters (em), in pixels.
    pub size: f64,
    /// Whether semi-bold.
    pub bold: bool,
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
        Self { size, bold: false, paint: INK, anchor: Anchor::Start, upright: false, halo: false }
    }

    /// The same, semi-bold.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
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

/// A picture: rows of RGB pixels from the top.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The picture as a pixmap; `None` when it is empty or its length does not fit.
    fn pixmap(&self) -> Option<Pixmap> {
        let mut pixmap = Pixmap::new(self.width, self.height)?;
        let (pixels, rest) = self.rgb.as_chunks::<3>();
        if !rest.is_empty() || pixels.len() != pixmap.pixels().len() {
            return None;
        }
        for (to, [r, g, b]) in pixmap.pixels_mut().iter_mut().zip(pixels) {
            *to = resvg::tiny_skia::ColorU8::from_rgba(*r, *g, *b, 255).premultiply();
        }
        Some(pixmap)
    }
}

#[derive(Clone, Debug)]
struct Placed {
    at: [f64; 4],
    smooth: bool,
    pixmap: Pixmap,
}

/// A drawing under construction. Pictures lie under everything else.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    pictures: Vec<Placed>,
    body: String,
}

impl Svg {
    /// An empty drawing of this size in pixels; `title` is what a screen reader says.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width, height, title: escape(title), pictures: Vec::new(), body: String::new() }
    }

    /// A straight line.
    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], stroke: Stroke) {
        let (x1, y1, x2, y2) = (number(x1), number(y1), number(x2), number(y2));
        let _ = write!(self.body, r#"<path d="M{x1} {y1}L{x2} {y2}"{}/>"#, stroked(stroke));
    }

    /// A line through `points`; a gap wherever one is not finite.
    pub fn polyline(&mut self, points: &[[f64; 2]], stroke: Stroke) {
        let path = path(points);
        if !path.is_empty() {
            let _ = write!(self.body, r#"<path d="{path}"{}/>"#, stroked(stroke));
        }
    }

    /// A filled polygon, with a thin edge of its own colour if `edge` (so that neighbours leave no
    /// seam).
    pub fn polygon(
        &mut self,
        points: &[[f64; 2]],
        fill: &str,
        opacity: f64,
        class: &str,
        edge: bool,
    ) {
        if points.iter().flatten().any(|v| !v.is_finite()) {
            return;
        }
        let class = if class.is_empty() { String::new() } else { format!(r#" class="f-{class}""#) };
        let opacity = if opacity < 1.0 {
            format!(r#" fill-opacity="{}""#, number(opacity))
        } else {
            String::new()
        };
        let edge =
            if edge { format!(r#" stroke="{fill}" stroke-width="0.6""#) } else { String::new() };
        let _ = write!(
            self.body,
            r#"<path d="{}Z"{class} fill="{fill}"{opacity}{edge}/>"#,
            path(points)
        );
    }

    /// A filled rectangle.
    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str, class: &str) {
        let class = if class.is_empty() { String::new() } else { format!(r#" class="f-{class}""#) };
        let _ = write!(
            self.body,
            r#"<rect x="{}" y="{}" width="{}" height="{}"{class} fill="{fill}"/>"#,
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0))
        );
    }

    /// A rectangle's outline.
    pub fn frame(&mut self, [x, y, width, height]: [f64; 4], stroke: Stroke) {
        let (w, h) = (number(width.max(0.0)), number(height.max(0.0)));
        let _ = write!(
            self.body,
            r#"<rect x="{}" y="{}" width="{w}" height="{h}"{}/>"#,
            number(x),
            number(y),
            stroked(stroke)
        );
    }

    /// A line of text at `(x, y)`, the left, middle or right of its baseline.
    pub fn text(&mut self, [x, y]: [f64; 2], text: &str, style: TextStyle) {
        let anchor = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y) = (number(x), number(y));
        let turned = if style.upright {
            format!(r#" transform="rotate(-90 {x} {y})""#)
        } else {
            String::new()
        };
        let weight = if style.bold { r#" font-weight="600""# } else { "" };
        let halo = if style.halo {
            format!(
                r#" stroke="{}" stroke-width="3" stroke-linejoin="round" paint-order="stroke""#,
                PAPER.colour
            )
        } else {
            String::new()
        };
        let class = if style.halo {
            format!("f-{} halo", style.paint.class)
        } else {
            format!("f-{}", style.paint.class)
        };
        let _ = write!(
            self.body,
            r#"<text x="{x}" y="{y}" class="{class}" font-size="{}" fill="{}"{anchor}{weight}{turned}{halo}>{}</text>"#,
            number(style.size),
            style.paint.colour,
            escape(text)
        );
    }

    /// Elements whose bounds are cut to `[x, y, width, height]`, drawn by `draw`.
    pub fn clipped(&mut self, [x, y, width, height]: [f64; 4], draw: impl FnOnce(&mut Self)) {
        // The id must differ from those of other drawings in the same page.
        let id = format!(
            "c{:x}",
            fnv(&format!("{}{}{x}{y}{width}{height}", self.title, self.body.len()))
        );
        let (w, h) = (number(width.max(0.0)), number(height.max(0.0)));
        let _ = write!(
            self.body,
            r#"<clipPath id="{id}"><rect x="{}" y="{}" width="{w}" height="{h}"/></clipPath><g clip-path="url(#{id})">"#,
            number(x),
            number(y)
        );
        draw(self);
        self.body.push_str("</g>");
    }

    /// A picture over `[x, y, width, height]`, with square pixels or smooth. One that is empty is
    /// left out.
    pub fn picture(&mut self, at: [f64; 4], picture: &Picture, smooth: bool) {
        if let Some(pixmap) = picture.pixmap() {
            self.pictures.push(Placed { at, smooth, pixmap });
        }
    }

    /// The drawing with its pictures.
    ///
    /// # Errors
    /// A picture that cannot be compressed.
    pub fn finish(&self) -> Result<String> {
        let mut pictures = String::new();
        for Placed { at: [x, y, w, h], smooth, pixmap } in &self.pictures {
            let png = pixmap.encode_png().map_err(|e| Error::Draw(e.to_string()))?;
            let data = base64::engine::general_purpose::STANDARD.encode(png);
            let (x, y, w, h) = (number(*x), number(*y), number(*w), number(*h));
            let rendering = if *smooth { "" } else { r#" style="image-rendering:pixelated""# };
            let _ = write!(
                pictures,
                r#"<image x="{x}" y="{y}" width="{w}" height="{h}" preserveAspectRatio="none"{rendering} href="data:image/png;base64,{data}"/>"#
            );
        }
        let paper = format!(
            r#"<rect class="f-paper" width="100%" height="100%" fill="{}"/>"#,
            PAPER.colour
        );
        Ok(self.document(&(paper + &pictures)))
    }

    /// Size in pixels.
    pub fn size(&self) -> [f64; 2] {
        [self.width, self.height]
    }

    /// The drawing without paper and pictures, and the pictures: `([x, y, width, height], smooth,
    /// pixels)`.
    pub(super) fn layers(&self) -> (String, impl Iterator<Item = ([f64; 4], bool, &Pixmap)>) {
        (
            self.document(""),
            self.pictures.iter().map(|placed| (placed.at, placed.smooth, &placed.pixmap)),
        )
    }

    fn document(&self, under: &str) -> String {
        let (w, h) = (number(self.width), number(self.height));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{}" font-family="Inter, 'Helvetica Neue', Arial, sans-serif"><title>{}</title>{under}{}</svg>"#,
            self.title, self.title, self.body
        )
    }
}

fn stroked(stroke: Stroke) -> String {
    let mut text = format!(
        r#" class="s-{}" fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round""#,
        stroke.paint.class,
        stroke.paint.colour,
        number(stroke.width)
    );
    if !stroke.dash.is_empty() {
        let _ = write!(text, r#" stroke-dasharray="{}""#, stroke.dash);
    }
    if stroke.opacity < 1.0 {
        let _ = write!(text, r#" stroke-opacity="{}""#, number(stroke.opacity));
    }
    text
}

fn path(points: &[[f64; 2]]) -> String {
    let (mut text, mut pen) = (String::new(), false);
    for [x, y] in points {
        if x.is_finite() && y.is_finite() {
            let _ = write!(text, "{}{} {}", if pen { 'L' } else { 'M' }, short(*x), short(*y));
            pen = true;
        } else {
            pen = false;
        }
    }
    text
}

/// A coordinate: at most two decimals.
fn number(value: f64) -> String {
    trimmed(&format!("{value:.2}"))
}

/// A coordinate of a path, of which there are many: at most one decimal.
fn short(value: f64) -> String {
    trimmed(&format!("{value:.1}"))
}

fn trimmed(text: &str) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Text as it stands in XML; characters that XML forbids become a replacement character.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Width of a line of text in pixels at a font size: exact for ASCII in the font that PNG files
/// use, an estimate elsewhere.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    // Advance widths of U+0020 to U+007E in thousandths of the font size.
    #[rustfmt::skip]
    const WIDTHS: [u16; 95] = [
        281, 278, 403, 631, 638, 812, 639, 222, 362, 362, 500, 659, 280, 460, 276, 357, 625, 464, 605, 636, 642, 608, 624, 571, 616, 624, 276, 280, 659, 659, 659, 507,
        936, 676, 651, 727, 719, 598, 587, 743, 740, 264, 543, 652, 562, 889, 753, 761, 635, 761, 639, 638, 642, 741, 676, 949, 642, 665, 625, 362, 357, 362, 469, 452,
        497, 564, 621, 558, 621, 582, 361, 609, 591, 237, 237, 544, 237, 869, 585, 597, 609, 609, 372, 523, 364, 581, 557, 812, 540, 557, 541, 362, 327, 362, 659,
    ];
    let thousandths: u64 = text
        .chars()
        .map(|c| {
            (c as usize)
                .checked_sub(32)
                .and_then(|i| WIDTHS.get(i))
                .map_or(if c > '\u{2e80}' { 1000 } else { 640 }, |w| u64::from(*w))
        })
        .sum();
    thousandths as f64 * size / 1000.0 * if bold { 1.03 } else { 1.0 }
}

/// Breaks `text` into lines no wider than `width` pixels; a longer word stays whole.
pub fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if !line.is_empty() && text_width(&longer, size, false) > width {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            } else {
                line = longer;
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// `text` cut to `width` pixels, with an ellipsis where something is missing.
pub fn shorten(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size, false) <= width {
        return text.to_owned();
    }
    let mut short: Vec<char> = text.chars().collect();
    while !short.is_empty()
        && text_width(&(short.iter().collect::<String>() + "..."), size, false) > width
    {
        short.pop();
    }
    short.into_iter().collect::<String>().trim_end().to_owned() + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        let mut svg = Svg::new(10.0, 10.0, "a<b");
        svg.text([1.0, 2.345_678], "<script>&\"'\u{0}", TextStyle::new(12.0));
        svg.polyline(
            &[[0.0, 0.0], [1.0, f64::NAN], [2.0, 1.0], [3.0, -0.001]],
            Stroke::new(INK, 1.0),
        );
        let text = svg.finish().unwrap();
        assert!(
            !text.contains("<script>") && text.contains("&lt;script&gt;&amp;&quot;&#39;\u{fffd}"),
            "{text}"
        );
        assert!(text.contains(r#"y="2.35""#) && text.contains(r#"d="M0 0M2 1L3 0""#), "{text}");
        assert!(text.contains("<title>a&lt;b</title>"));
    }

    #[test]
    fn lines_are_broken_at_the_width() {
        let lines = wrap("one two three\nfour", 10.0, text_width("one two", 10.0, false) + 0.1);
        assert_eq!(lines, ["one two", "three", "four"]);
        assert!(text_width(&shorten("a long label of a run", 10.0, 50.0), 10.0, false) <= 50.0);
    }

    #[test]
    fn a_picture_of_the_wrong_length_is_left_out() {
        let mut svg = Svg::new(10.0, 10.0, "");
        svg.picture(
            [0.0, 0.0, 4.0, 4.0],
            &Picture { width: 2, height: 2, rgb: vec![0; 11] },
            false,
        );
        assert!(!svg.finish().unwrap().contains("<image"));
        svg.picture(
            [0.0, 0.0, 4.0, 4.0],
            &Picture { width: 2, height: 2, rgb: vec![0; 12] },
            false,
        );
        assert!(svg.finish().unwrap().contains("data:image/png;base64,iVBOR"));
    }
}
