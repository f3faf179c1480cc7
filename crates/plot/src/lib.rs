//! Charts as SVG and PNG.
//!
//! A [`Figure`] holds panels in a grid, a shared legend and a caption; a [`Chart`] is a panel of
//! lines or points over two axes. Colours are safe for colour-blind readers, and dashes and markers
//! tell series apart without colour.
//!
//! ```
//! use sora_plot::{Axis, Chart, Figure, Series, Style};
//!
//! let fgsm = [(1.0, 0.9, [0.88, 0.92]), (2.0, 0.7, [0.67, 0.73])];
//! let chart = Chart::new("fgsm", Axis::linear("epsilon (1/255)").whole(), Axis::linear("accuracy").range(0.0, 1.0))
//!     .series(Series::new("seed 0", Style::marked(0), fgsm));
//! let svg = Figure::new("Accuracy over epsilon").caption("n = 1,000, bands: 95 % intervals").panel(chart).to_svg()?;
//! assert!(svg.starts_with("<svg"));
//! # Ok::<(), sora_plot::Error>(())
//! ```

mod chart;
mod error;
mod field;
mod figure;
mod raster;
mod scale;
mod style;
mod svg;

pub use chart::{Chart, Mark, Point, Series};
pub use error::{Error, Result};
pub use field::{Contour, Field, HeatMap, Surface, Tile, range};
pub use figure::{Figure, Format, Key, Panel};
pub use raster::{gif, pixmap};
pub use scale::{Axis, Spacing};
pub use style::{DASHES, MARKERS, Marker, PALETTE, Style, hex, viridis};
pub use svg::{
    ALARM, Anchor, GRID, INK, MUTED, PAPER, Paint, Picture, Stroke, Svg, TextStyle, escape,
    shorten, text_width, wrap,
};
