//! How batches are made.

use crate::augment::Augment;

/// How a [`Loader`](crate::Loader) makes batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images per batch.
    pub batch: usize,
    /// The run's seed: decides order and augmentation.
    pub seed: u64,
    /// A new random order every epoch; otherwise the split's order.
    pub shuffle: bool,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    /// Augmentation; [`Augment::NONE`] for evaluation.
    pub augment: Augment,
    /// Batches prepared ahead by a background thread; 0 prepares each when asked for. Fewer are
    /// kept when they would take more than 256 MiB, but always one.
    pub prefetch: usize,
    /// Threads of its own that decode and augment; 0: rayon's global pool (without prefetch, the
    /// calling thread's pool).
    pub workers: usize,
}

impl LoaderOptions {
    /// For training: shuffled, full batches only, 4 prepared ahead.
    pub fn train(batch: usize, seed: u64, augment: Augment) -> Self {
        Self { batch, seed, shuffle: true, drop_last: true, augment, prefetch: 4, workers: 0 }
    }

    /// For evaluation: every image once, in order, unchanged.
    pub fn eval(batch: usize) -> Self {
        Self {
            batch,
            seed: 0,
            shuffle: false,
            drop_last: false,
            augment: Augment::NONE,
            prefetch: 2,
            workers: 0,
        }
    }
}
