//! Diagnostics of training and of evaluations.

mod co;
pub mod sanity;

pub use co::{CoDetector, CoEvent};
