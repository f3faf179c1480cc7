//! Observers of the library that show progress bars.

mod evaluation;
mod plan;
mod training;

pub use evaluation::EvaluationBar;
pub use plan::{Plan, Speed};
pub use training::TrainingBar;
