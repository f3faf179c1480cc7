#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod axis;
mod chart;
mod error;
mod field;
mod figure;
mod format;
mod frame;
mod labels;
mod paint;
mod panel;
mod picture;
mod raster;
mod style;
mod svg;
mod text;
mod tile;

pub use axis::{Axis, Spacing};
pub use chart::{Chart, Mark, Point, Series};
pub use error::{Error, Result};
pub use field::{Contour, Field, HeatMap, Surface, range};
pub use figure::Figure;
pub use format::Format;
pub use paint::{ALARM, Anchor, GRID, INK, MUTED, PAPER, Paint, Stroke, TextStyle, Weight};
pub use panel::{Key, Panel};
pub use picture::{GENERATOR, Raster, Scaling};
pub use raster::{gif, png};
pub use style::{DASHES, MARKERS, Marker, PALETTE, Style, hex, viridis};
pub use svg::{Edge, Fill, Svg};
pub use text::{escape, shorten, text_width, wrap};
pub use tile::Tile;
