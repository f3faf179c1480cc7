//! Diagnostics of training and of evaluations.

mod co;
mod collapse;
mod epsilon;
mod examples;
mod landscape;
mod probe;
pub mod sanity;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
pub use epsilon::{EpsilonRow, EpsilonSweep, epsilon_row};
pub use examples::{Example, examples};
pub use landscape::{Landscape, LandscapeConfig, landscape};
pub use probe::{Choice, Weights, evenly, load, weights};
