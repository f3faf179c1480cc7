//! Arguments and steps that several commands share.

mod compute;
mod entry;
mod runs;
mod subject;

pub use compute::{ComputeArgs, Machine, start_threads};
pub use entry::{Describe, Entry, Listing, norms};
pub use runs::{load_runs, passing_over};
pub use subject::{SubjectArgs, Target, attacks};
