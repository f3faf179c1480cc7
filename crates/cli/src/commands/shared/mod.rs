//! Arguments and steps that several commands share.

mod child;
mod compute;
mod entry;
mod judged;
mod planned;
mod record;
mod runs;
mod served;
mod subject;

pub use child::{Output, sora};
pub use compute::{ComputeArgs, Machine, start_threads};
pub use entry::{Describe, Entry, Listing, norms};
pub use judged::Judged;
pub use planned::{Overrides, evaluate, evaluated, is_done, state, summary, train};
pub use record::state_options;
pub use runs::passing_over;
pub use served::ServedArgs;
pub use subject::{ForeignArgs, SubjectArgs, Target};
