//! The figures, one a file: each draws what run folders hold.

mod cost;
mod curves;
mod epsilon;
mod examples;
mod history;
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
