//! A batch, and how it is made.

use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;
use sora_rng::{Key, Purpose};

use super::options::LoaderOptions;
use crate::augment::AugmentDraw;
use crate::error::Result;
use crate::split::Split;

/// A batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch of the batch.
    pub epoch: u64,
    /// The number of the batch within the epoch, from 0.
    pub index: usize,
    /// `[B, C, H, W]`.
    pub shape: [usize; 4],
    /// Pixels in \[0, 1\] (bytes divided by 255), row-major in `shape`.
    pub images: Vec<f32>,
    /// Class indices, `[B]`.
    pub labels: Vec<u32>,
    /// Sample ids, `[B]`; see [`Split::ids`].
    pub ids: Vec<u32>,
    /// The augmentation's draws, `[B]`.
    pub draws: Vec<AugmentDraw>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the batch has no images; a [`Loader`](crate::Loader) never returns such a batch.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Makes the batches of one epoch, one at a time.
#[derive(Clone)]
pub(super) struct Maker {
    pub split: Arc<Split>,
    pub options: LoaderOptions,
    pub workers: Option<Arc<ThreadPool>>,
    pub epoch: u64,
    /// Positions in the split in the order of the epoch.
    pub order: Vec<u32>,
}

impl Maker {
    pub(super) fn batch(&self, index: usize) -> Result<Batch> {
        match &self.workers {
            Some(pool) => pool.install(|| self.make(index)),
            None => self.make(index),
        }
    }

    fn make(&self, index: usize) -> Result<Batch> {
        let Self { split, options, .. } = self;
        let [channels, height, width] = split.shape();
        let first = index * options.batch;
        let positions = &self.order[first..(first + options.batch).min(self.order.len())];
        let key = Key::new(options.seed, Purpose::Augment).at_epoch(self.epoch);
        let at = |p: u32| p as usize;
        let ids: Vec<u32> = positions.iter().map(|&p| split.ids()[at(p)]).collect();
        let mut images = vec![0.0; positions.len() * channels * height * width];
        let draws = images
            .par_chunks_exact_mut(channels * height * width)
            .zip(positions.par_iter().zip(&ids))
            .map(|(out, (&p, &id))| {
                split.augmented(at(p), &options.augment, || key.stream(u64::from(id)), out)
            })
            // All images are decoded before the first error is returned, so that of several bad
            // images the first in order is named, whichever thread is quickest.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Batch {
            epoch: self.epoch,
            index,
            shape: [positions.len(), channels, height, width],
            images,
            labels: positions.iter().map(|&p| split.label(at(p))).collect(),
            ids,
            draws,
        })
    }
}
