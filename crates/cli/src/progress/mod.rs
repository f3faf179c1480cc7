//! The library's observers as bars.

mod evaluation;
mod plan;
mod training;

pub use evaluation::EvaluationBar;
pub use plan::{Plan, Speed};
pub use training::TrainingBar;
