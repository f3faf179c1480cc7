//! The communication between the processes of a data-parallel training.
//!
//! One process is the trivial case, [`Alone`]. An implementation over many machines averages the
//! gradients of all ranks before each update, so that every rank keeps the same weights, and lets
//! all ranks stop together.

use std::fmt::Debug;

use crate::error::Result;

/// The link between the processes of one training.
pub trait Communicator: Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Replaces `values` by their means over all ranks, the same bits on each.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a rank that cannot be reached.
    fn mean(&self, values: &mut [f32]) -> Result<()>;

    /// Whether `says` is true on any rank.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a rank that cannot be reached.
    fn any(&self, says: bool) -> Result<bool>;
}

/// A training in one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn mean(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn any(&self, says: bool) -> Result<bool> {
        Ok(says)
    }
}
