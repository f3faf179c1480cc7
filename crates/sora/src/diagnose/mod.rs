//! Diagnostics of training: catastrophic overfitting, found while it happens.

mod co;
mod collapse;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
