//! Diagnostics of training: detection of catastrophic overfitting while it happens.

mod co;
mod collapse;
mod reference_rule;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
pub use reference_rule::ReferenceRule;
