//! Images with labels.

mod hold_out;
mod identity;
mod list;
mod stats;

pub use identity::SplitIdentity;
pub use list::Split;

#[cfg(test)]
mod tests;
