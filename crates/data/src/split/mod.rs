//! Images with labels.

mod hold_out;
mod list;
mod stats;

pub use list::Split;

#[cfg(test)]
mod tests;
