//! Dropout (Srivastava et al. 2014), active in training-mode passes only, as in PyTorch.
//!
//! A mask is a function of (seed, step, pass of the step, layer, sample), so a resumed run draws
//! the same masks. Each pass of a step draws its own masks: as in PyTorch, the attack pass in
//! training mode sees another thinned network than the training pass.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::tensor::{Device, Tensor, TensorData};
use sora_rng::{self as rng, Key, Purpose};

/// The source of the masks of a run's step. Clones share the count of passes.
#[derive(Clone, Debug, Default)]
pub struct DropoutSource {
    seed: u64,
    step: u64,
    part: BatchPart,
    passes: Arc<AtomicU64>,
}

/// The part of a batch that one of several processes has: its images are the `rank`-th of `world`
/// runs of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Which part, from 0.
    pub rank: usize,
    /// How many parts there are.
    pub world: usize,
    /// Images of a part.
    pub images: usize,
}

impl Default for BatchPart {
    fn default() -> Self {
        Self { rank: 0, world: 1, images: 1 }
    }
}

impl BatchPart {
    /// The place in the whole batch of row `row` of a pass, which may go over several batches side
    /// by side.
    fn place(self, row: usize) -> u32 {
        let images = self.images.max(1);
        let (batch, image) = (row / images, row % images);
        ((batch * self.world + self.rank) * images + image) as u32
    }
}

impl DropoutSource {
    /// The source of `step` of a run with `seed`.
    pub fn new(seed: u64, step: u64) -> Self {
        Self { seed, step, ..Self::default() }
    }

    /// The same for a process that has a part of the batch.
    #[must_use]
    pub fn of_part(self, part: BatchPart) -> Self {
        Self { part, ..self }
    }

    /// The masks of the next pass.
    pub fn next_pass(&self) -> Dropout {
        Dropout {
            seed: self.seed,
            step: self.step,
            part: self.part,
            pass: self.passes.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// The masks of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    seed: u64,
    step: u64,
    part: BatchPart,
    pass: u64,
}

impl Dropout {
    /// `1 / (1 - rate)` where an element is kept and 0 where it is dropped; the first dimension is
    /// the sample.
    pub(super) fn mask<const D: usize>(
        self,
        layer: usize,
        rate: f32,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let key = Key {
            seed: self.seed,
            purpose: Purpose::Dropout,
            epoch: (self.pass << 20) | layer as u64,
            step: self.step,
        };
        let mut mask = vec![0.0; shape.iter().product()];
        let samples: Vec<u32> = (0..shape[0]).map(|row| self.part.place(row)).collect();
        rng::fill_uniform(&mut mask, key, &samples);
        let kept = (1.0 - rate).recip();
        mask.iter_mut().for_each(|u| *u = if *u < rate { 0.0 } else { kept });
        Tensor::from_data(TensorData::new(mask, shape), device)
    }
}
