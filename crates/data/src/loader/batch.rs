//! A batch, and how it is made.

use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;
use sora_rng::{Key, Purpose};

use super::extra::{Extra, Place, Set};
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
    /// Sample ids, `[B]`; see [`Split::ids`]. Those of extra images begin behind those of the
    /// loader's own split.
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
    pub extra: Option<Extra>,
    pub options: LoaderOptions,
    pub workers: Option<Arc<ThreadPool>>,
    pub epoch: u64,
    /// The images of the epoch in order.
    pub order: Vec<Place>,
}

impl Maker {
    pub(super) fn batch(&self, index: usize) -> Result<Batch> {
        match &self.workers {
            Some(pool) => pool.install(|| self.make(index)),
            None => self.make(index),
        }
    }

    fn split_of(&self, place: &Place) -> &Split {
        match (place.set, &self.extra) {
            (Set::Extra, Some(extra)) => &extra.split,
            _ => &self.split,
        }
    }

    fn make(&self, index: usize) -> Result<Batch> {
        let Self { split, options, .. } = self;
        let [channels, height, width] = split.shape();
        let first = index * options.batch;
        let whole = &self.order[first..(first + options.batch).min(self.order.len())];
        let part = whole.len() / options.share.world;
        let places = &whole[options.share.rank * part..][..part];
        let key = Key::new(options.seed, Purpose::Augment);
        let ids: Vec<u32> = places
            .iter()
            .map(|place| {
                let first = if place.set == Set::Own { 0 } else { split.end_of_ids() as u32 };
                first + self.split_of(place).ids()[place.position as usize]
            })
            .collect();
        let mut images = vec![0.0; places.len() * channels * height * width];
        let draws = images
            .par_chunks_exact_mut(channels * height * width)
            .zip(places.par_iter().zip(&ids))
            .map(|(out, (place, &id))| {
                // An extra image can come several times in an epoch, each time in another pass.
                let key = key.at_epoch(place.pass);
                let rng = || key.stream(u64::from(id));
                let at = place.position as usize;
                self.split_of(place).augmented(at, &options.augment, rng, out)
            })
            // All images are decoded before the first error is returned, so that of several bad
            // images the first in order is named, whichever thread is quickest.
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Batch {
            epoch: self.epoch,
            index,
            shape: [places.len(), channels, height, width],
            images,
            labels: places
                .iter()
                .map(|place| self.split_of(place).label(place.position as usize))
                .collect(),
            ids,
            draws,
        })
    }
}
