//! Figures and pages drawn from run folders.

pub mod compute;
pub mod figures;
mod page;
pub mod records;
mod write;

pub use page::{PageFigure, Warning, page, warnings};
pub use write::{ReportOptions, write};
