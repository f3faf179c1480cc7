//! Diagnostics of training.

mod co;
mod collapse;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
