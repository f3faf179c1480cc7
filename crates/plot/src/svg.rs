//! A small SVG document: shapes, text and pictures, written in the order of painting.
//!
//! Colours are presentation attributes, and every element also has a class. A page that holds the
//! drawing may restyle it (for a dark theme) with its own style sheet, while the file by itself
//! looks the same everywhere.

use std::fmt::Write;

use base64::Engine;

use crate::{
    error::Result,
    paint::{Anchor, PAPER, Stroke, TextStyle, Weight},
    picture::{GENERATOR, Raster, Scaling},
    text::escape,
};

/// A picture of a drawing, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// `[x, y, width, height]` in pixels of the drawing.
    pub(crate) at: [f64; 4],
    pub(crate) scaling: Scaling,
    pub(crate) picture: Raster,
}

/// The fill of a polygon.
#[derive(Clone, Copy, Debug)]
pub struct Fill<'a> {
    /// `#rrggbb`.
    pub colour: &'a str,
    /// Opacity from 0 (invisible) to 1.
    pub opacity: f64,
    /// Class name by which a style sheet may recolour the polygon; empty for none.
    pub class: &'a str,
    /// Edge.
    pub edge: Edge,
}

/// The edge of a polygon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// No line.
    None,
    /// A thin line of the polygon's own colour, so that neighbours leave no seam.
    Thin,
}

impl<'a> Fill<'a> {
    /// An opaque colour without a class and without an edge.
    pub fn new(colour: &'a str) -> Self {
        Self { colour, opacity: 1.0, class: "", edge: Edge::None }
    }
}

/// A drawing under construction. Pictures lie under all other elements.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    description: String,
    pictures: Vec<Placed>,
    body: String,
}

impl Svg {
    /// An empty drawing of this size in pixels. A screen reader reads `title`.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let (title, description) = (escape(title), String::new());
        Self { width, height, title, description, pictures: Vec::new(), body: String::new() }
    }

    /// The same drawing with a longer text for screen readers.
    pub fn describe(self, text: &str) -> Self {
        Self { description: escape(text), ..self }
    }

    /// Draws a straight line.
    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], stroke: Stroke) {
        let (x1, y1, x2, y2) = (number(x1), number(y1), number(x2), number(y2));
        let _ = write!(self.body, r#"<path d="M{x1} {y1}L{x2} {y2}"{}/>"#, stroked(stroke));
    }

    /// Draws a line through `points`, with a gap wherever a point is not finite.
    pub fn polyline(&mut self, points: &[[f64; 2]], stroke: Stroke) {
        let path = path(points);
        if !path.is_empty() {
            let _ = write!(self.body, r#"<path d="{path}"{}/>"#, stroked(stroke));
        }
    }

    /// Draws a filled polygon, or nothing where a corner is not finite.
    pub fn polygon(&mut self, points: &[[f64; 2]], fill: Fill<'_>) {
        if points.iter().flatten().any(|v| !v.is_finite()) {
            return;
        }
        let Fill { colour, .. } = fill;
        let mut look = format!(r#"{} fill="{colour}""#, class(fill.class));
        if fill.opacity < 1.0 {
            let _ = write!(look, r#" fill-opacity="{}""#, number(fill.opacity));
        }
        if fill.edge == Edge::Thin {
            let _ = write!(look, r#" stroke="{colour}" stroke-width="0.6""#);
        }
        let _ = write!(self.body, r#"<path d="{}Z"{look}/>"#, path(points));
    }

    /// Draws a filled rectangle `[x, y, width, height]`.
    pub fn rect(&mut self, area: [f64; 4], fill: Fill<'_>) {
        let _ = write!(
            self.body,
            r#"<rect {}{} fill="{}"/>"#,
            sides(area),
            class(fill.class),
            fill.colour
        );
    }

    /// Draws the outline of a rectangle `[x, y, width, height]`.
    pub fn frame(&mut self, area: [f64; 4], stroke: Stroke) {
        let _ = write!(self.body, r#"<rect {}{}/>"#, sides(area), stroked(stroke));
    }

    /// Draws a line of text at `(x, y)`, which is the left, middle or right of its baseline.
    pub fn text(&mut self, [x, y]: [f64; 2], text: &str, style: TextStyle) {
        let (x, y) = (number(x), number(y));
        let mut look = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        }
        .to_owned();
        if style.weight == Weight::Bold {
            look.push_str(r#" font-weight="600""#);
        }
        if style.upright {
            let _ = write!(look, r#" transform="rotate(-90 {x} {y})""#);
        }
        let mut class = format!("f-{}", style.paint.class);
        if style.halo {
            class.push_str(" halo");
            let rim = r#"stroke-width="3" stroke-linejoin="round" paint-order="stroke""#;
            let _ = write!(look, r#" stroke="{}" {rim}"#, PAPER.colour);
        }
        let (size, colour) = (number(style.size), style.paint.colour);
        let _ = write!(
            self.body,
            r#"<text x="{x}" y="{y}" class="{class}" font-size="{size}" fill="{colour}"{look}>{}</text>"#,
            escape(text)
        );
    }

    /// Runs `draw` and cuts the elements that it draws to `area` (`[x, y, width, height]`).
    pub fn clipped(&mut self, area: [f64; 4], draw: impl FnOnce(&mut Self)) {
        // The id must differ from those of other drawings in the same page.
        let id = format!("c{:x}", fnv(&format!("{}{}{area:?}", self.title, self.body.len())));
        let _ = write!(
            self.body,
            r#"<clipPath id="{id}"><rect {}/></clipPath><g clip-path="url(#{id})">"#,
            sides(area)
        );
        draw(self);
        self.body.push_str("</g>");
    }

    /// Places a picture over `[x, y, width, height]`. A picture that is empty, or whose length does
    /// not fit its size, is left out.
    pub fn picture(&mut self, at: [f64; 4], picture: &Raster, scaling: Scaling) {
        if picture.is_whole() {
            self.pictures.push(Placed { at, scaling, picture: picture.clone() });
        }
    }

    /// The drawing with its pictures, as the text of an SVG file.
    ///
    /// # Errors
    /// [`Error::Draw`](crate::Error::Draw) when a picture cannot be compressed.
    pub fn finish(&self) -> Result<String> {
        let mut under = format!(
            r#"<rect class="f-paper" width="100%" height="100%" fill="{}"/>"#,
            PAPER.colour
        );
        for Placed { at, scaling, picture } in &self.pictures {
            let data = base64::engine::general_purpose::STANDARD.encode(picture.to_png()?);
            let rendering = match scaling {
                Scaling::Smooth => "",
                Scaling::Pixels => r#" style="image-rendering:pixelated""#,
            };
            let _ = write!(
                under,
                r#"<image {} preserveAspectRatio="none"{rendering} href="data:image/png;base64,{data}"/>"#,
                sides(*at)
            );
        }
        Ok(self.document(&under))
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [f64; 2] {
        [self.width, self.height]
    }

    /// The drawing without background and pictures, and the pictures.
    #[cfg(feature = "png")]
    pub(crate) fn layers(&self) -> (String, &[Placed]) {
        (self.document(""), &self.pictures)
    }

    fn document(&self, under: &str) -> String {
        let (w, h) = (number(self.width), number(self.height));
        let (title, body) = (&self.title, &self.body);
        let description = match self.description.as_str() {
            "" => String::new(),
            text => format!("<desc>{text}</desc>"),
        };
        let font = "Inter, 'Helvetica Neue', Arial, sans-serif";
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" data-generator="{GENERATOR}" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{title}" font-family="{font}"><title>{title}</title>{description}{under}{body}</svg>"#
        )
    }
}

fn sides([x, y, width, height]: [f64; 4]) -> String {
    let [x, y, w, h] = [x, y, width.max(0.0), height.max(0.0)].map(number);
    format!(r#"x="{x}" y="{y}" width="{w}" height="{h}""#)
}

fn class(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(r#" class="f-{name}""#) }
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

/// A coordinate with at most two decimals.
fn number(value: f64) -> String {
    trimmed(&format!("{value:.2}"))
}

/// A coordinate of a path with at most one decimal, because a path has many of them.
fn short(value: f64) -> String {
    trimmed(&format!("{value:.1}"))
}

fn trimmed(text: &str) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// The FNV-1a hash of `text`.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::INK;

    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        let mut svg = Svg::new(10.0, 10.0, "a<b").describe("c<d");
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
        assert!(text.contains("<title>a&lt;b</title><desc>c&lt;d</desc>"));
    }

    #[test]
    fn a_picture_of_the_wrong_length_is_left_out() {
        let mut svg = Svg::new(10.0, 10.0, "");
        let picture = |bytes| Raster { width: 2, height: 2, rgb: vec![0; bytes] };
        svg.picture([0.0, 0.0, 4.0, 4.0], &picture(11), Scaling::Pixels);
        assert!(!svg.finish().unwrap().contains("<image"));
        svg.picture([0.0, 0.0, 4.0, 4.0], &picture(12), Scaling::Pixels);
        assert!(svg.finish().unwrap().contains("data:image/png;base64,iVBOR"));
    }
}
