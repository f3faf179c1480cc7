//! Options of a loader.

use crate::augment::Augment;

/// Options of a [`Loader`](crate::Loader).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images per batch.
    pub batch: usize,
    /// The run's seed, which decides order and augmentation.
    pub seed: u64,
    /// Whether every epoch has a new random order; otherwise the order is the split's.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// Augmentation; [`Augment::NONE`] for evaluation.
    pub augment: Augment,
    /// Number of batches that a background thread prepares ahead; 0 prepares each batch on request.
    /// The number is reduced, to one at least, where that many would take more than 256 MiB.
    pub prefetch: usize,
    /// Number of threads of its own that decode and augment; 0 uses rayon's global pool (without
    /// prefetch, the calling thread's pool).
    pub workers: usize,
    /// The part of each batch that is made.
    pub share: Share,
}

/// Which part of every batch is made, where several processes share it: the `rank`-th of `world`
/// runs of equal length. A batch that `world` does not divide loses its last images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which part, from 0.
    pub rank: usize,
    /// How many parts there are, at least 1.
    pub world: usize,
}

impl Share {
    /// The whole batch.
    pub const ALL: Self = Self { rank: 0, world: 1 };
}

impl Default for Share {
    fn default() -> Self {
        Self::ALL
    }
}

impl LoaderOptions {
    /// Options for training: shuffled, full batches only, 4 prepared ahead.
    pub fn train(batch: usize, seed: u64, augment: Augment) -> Self {
        Self {
            batch,
            seed,
            shuffle: true,
            drop_last: true,
            augment,
            prefetch: 4,
            workers: 0,
            share: Share::ALL,
        }
    }

    /// Options for evaluation: every image once, in order, unchanged.
    pub fn eval(batch: usize) -> Self {
        Self {
            batch,
            seed: 0,
            shuffle: false,
            drop_last: false,
            augment: Augment::NONE,
            prefetch: 2,
            workers: 0,
            share: Share::ALL,
        }
    }
}
