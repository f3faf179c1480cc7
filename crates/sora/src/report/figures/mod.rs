//! The figures, one per file; each draws data of run folders.

mod cost;
mod curves;
mod epsilon;
mod examples;
mod history;
mod labels;
mod landscape;
mod lines;
mod pertalign;
mod styles;
mod tradeoff;

pub use cost::cost;
pub use curves::curves;
pub use epsilon::epsilon;
pub use examples::examples;
pub use history::history;
pub use landscape::{LossScale, landscape, landscape_frames, landscape_strip};
pub use pertalign::pertalign;
pub use styles::run_styles;
pub use tradeoff::tradeoff;
