//! Diagnostics of training.

mod co;
mod epsilon;
mod examples;
mod landscape;
mod probe;

pub use co::{CoDetector, CoEvent};
pub use epsilon::{EpsilonRow, EpsilonSweep, epsilon_row};
pub use examples::{Example, examples};
pub use landscape::{Landscape, LandscapeConfig, landscape};
pub use probe::{Choice, Weights, evenly, load, weights};
