//! Diagnostics of training and of evaluations.

mod co;
mod collapse;
pub mod sanity;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
