//! Extra training images: a fixed share of every batch comes from a second set.

use std::sync::Arc;

use rand::seq::SliceRandom;
use sora_rng::{Purpose, stream};

use super::options::LoaderOptions;
use crate::error::{DataError, Result};
use crate::split::Split;

/// A second set of images, and the share of each batch that comes from it.
///
/// An epoch is a pass over the loader's own split. The extra images go round on their own: each
/// pass over them has a new random order and leaves out at most what does not fill a batch's share,
/// and it goes on where the epoch before stopped. Which images a batch has is a function of
/// (splits, seed, epoch, batch number) alone, as without extra images.
#[derive(Clone, Debug)]
pub struct Extra {
    /// The images; of the same shape and classes as the loader's own.
    pub split: Arc<Split>,
    /// Share of the images of a batch, rounded to whole images; above 0 and below 1.
    pub fraction: f64,
}

/// The set that an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Own,
    Extra,
}

/// An image of an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub set: Set,
    /// Position in the split of the set.
    pub position: u32,
    /// The number of the pass over the set, from 0; of the own one it is the epoch.
    pub pass: u64,
}

impl Extra {
    /// Number of extra images in a batch of `batch` images.
    ///
    /// # Errors
    /// [`DataError::Value`] for a share that leaves a batch without images of one of the two sets.
    pub fn in_batch(&self, batch: usize) -> Result<usize> {
        let extra = (batch as f64 * self.fraction).round();
        if extra >= 1.0 && extra < batch as f64 {
            return Ok(extra as usize);
        }
        let expected =
            format!("above 0 and below 1, so that each batch of {batch} has images of both sets");
        Err(DataError::value("share of extra images", self.fraction, expected))
    }

    /// Checks that the images can stand in batches of `own`, and says how many do in each.
    pub(super) fn check(&self, own: &Split, batch: usize) -> Result<usize> {
        let in_batch = self.in_batch(batch)?;
        let size = |[c, h, w]: [usize; 3]| format!("{c}x{h}x{w}");
        if self.split.shape() != own.shape() {
            let expected = format!("{}, as the other images", size(own.shape()));
            return Err(DataError::value("extra images", size(self.split.shape()), expected));
        }
        if self.split.num_classes() != own.num_classes()
            || self.split.class_names() != own.class_names()
        {
            let expected = format!("the {} classes of the other images", own.num_classes());
            return Err(DataError::value("classes of the extra images", "others", expected));
        }
        if self.split.len() < in_batch {
            let expected = format!("at least the {in_batch} of a batch");
            return Err(DataError::value("number of extra images", self.split.len(), expected));
        }
        if own.end_of_ids() + self.split.end_of_ids() > u32::MAX as usize {
            let expected = "at most 4294967295 with the other images";
            return Err(DataError::value("number of extra images", self.split.len(), expected));
        }
        Ok(in_batch)
    }
}

/// The images of an epoch of `own`, batch by batch, with those of `extra` spread evenly over each
/// batch; a full one has `own_full` of the former.
pub(super) fn mixed(
    own: &[u32],
    extra: &Extra,
    options: &LoaderOptions,
    own_full: usize,
    epoch: u64,
) -> Vec<Place> {
    let extra_full = options.batch - own_full;
    let per_pass = (extra.split.len() / extra_full).max(1) as u64;
    let first = epoch * batches(own.len(), own_full, options.drop_last) as u64;
    let mut order = Order { options, images: extra.split.len(), pass: None, order: Vec::new() };
    let mut places = Vec::with_capacity(own.len() / own_full * options.batch + options.batch);
    for (batch, own) in own.chunks(own_full).enumerate() {
        let turn = first + batch as u64;
        let (pass, at) = (turn / per_pass, (turn % per_pass) as usize * extra_full);
        // A last, smaller batch has a share of the same size.
        let count = (own.len() * extra_full + own_full / 2) / own_full;
        let more = &order.of(pass)[at..at + count];
        let (mut own, mut more) = (own.iter(), more.iter());
        let all = own.len() + more.len();
        for i in 0..all {
            let is_extra = (i + 1) * count / all > i * count / all;
            let (set, next, pass) = match is_extra {
                true => (Set::Extra, more.next(), pass),
                false => (Set::Own, own.next(), epoch),
            };
            places.extend(next.map(|&position| Place { set, position, pass }));
        }
    }
    places
}

/// Number of batches that have `share` of `images` each.
pub(super) fn batches(images: usize, share: usize, drop_last: bool) -> usize {
    if drop_last { images / share } else { images.div_ceil(share) }
}

/// The order of the extra images in the pass that was asked for last.
struct Order<'a> {
    options: &'a LoaderOptions,
    images: usize,
    pass: Option<u64>,
    order: Vec<u32>,
}

impl Order<'_> {
    fn of(&mut self, pass: u64) -> &[u32] {
        if self.pass != Some(pass) {
            self.order = (0..self.images as u32).collect();
            if self.options.shuffle {
                self.order.shuffle(&mut stream(self.options.seed, Purpose::Extra, pass, 0, 0));
            }
            self.pass = Some(pass);
        }
        &self.order
    }
}
