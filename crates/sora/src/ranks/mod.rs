//! Training on several processes at once: each has the whole network and a part of every batch.
//!
//! A process is a *rank* of a *world*, as MPI has it. Order, augmentation and draws are keyed by
//! sample, so that a rank makes its part of a batch alone; what depends on the whole batch is
//! summed over the ranks: the statistics of batch norm, forward and backward, the gradients of the
//! weights, the figures of a step. Every rank then makes the same update.
//!
//! [`Communicator`] is the link, with [`Alone`] for one process, [`Threads`] for threads of one
//! process and, with the feature `mpi`, `Mpi`. Sums are taken in the order of the ranks, so that
//! their bits are a function of the world's size alone: not of the MPI library, its algorithms or
//! the hosts.
//!
//! Operations of the engine are functions without a handle: a step [`enters`](Ranks::enter)
//! its ranks, and what it calls on its thread asks that scope for them.

mod beside;
mod communicator;
#[cfg(feature = "mpi")]
mod mpi;
pub(crate) mod scope;
pub(crate) mod share;
mod threads;
mod traffic;

#[cfg(feature = "mpi")]
pub use self::mpi::{Joined, Mpi};
pub use self::{
    beside::bucket,
    communicator::{Alone, Communicator, SMALL_SUM},
    scope::{BatchNormScope, Ranks, sum, world},
    threads::Threads,
    traffic::{Counted, Traffic},
};
