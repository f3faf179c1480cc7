//! Values over a plane: a heat map of cells, a contour map, and a surface in perspective.

mod colour_bar;
mod contour;
mod heat_map;
mod isoline;
mod surface;
mod values;

pub use contour::Contour;
pub use heat_map::HeatMap;
pub use surface::Surface;
pub use values::{Field, range};
