//! Figures and pages drawn from run folders.
//!
//! [`Runs::load`] reads run folders and tolerates damage, [`figures`] draws the data that they
//! hold, [`compute`] computes further data, and [`write()`] makes a page of them all.

pub mod caption;
pub mod compute;
mod csv;
pub mod figures;
mod images;
mod load;
mod measured;
mod page;
mod privacy;
mod record;
mod run;
mod seeds;
mod strength;
mod write;

pub use csv::csv;
pub use load::{Runs, Skipped};
pub use measured::{Comparison, Measured, MeasuredOn};
pub use page::{PageContent, PageFigure, Warning, page, warnings};
pub use privacy::{dataset_name, without_paths};
pub use record::{Of, Record, RecordImages};
pub use run::{Run, reason};
pub use seeds::{Group, groups};
pub use strength::strength;
pub use write::{FileKind, Formats, ReportOptions, outputs, write};
