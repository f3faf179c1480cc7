//! Diagnostics of training.

mod co;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
