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
    passes: Arc<AtomicU64>,
}

impl DropoutSource {
    /// The source of `step` of a run with `seed`.
    pub fn new(seed: u64, step: u64) -> Self {
        Self { seed, step, passes: Arc::default() }
    }

    /// The masks of the next pass.
    pub fn next_pass(&self) -> Dropout {
        Dropout {
            seed: self.seed,
            step: self.step,
            pass: self.passes.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// The masks of one pass.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    seed: u64,
    step: u64,
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
        let samples: Vec<u32> = (0..shape[0] as u32).collect();
        rng::fill_uniform(&mut mask, key, &samples);
        let kept = (1.0 - rate).recip();
        mask.iter_mut().for_each(|u| *u = if *u < rate { 0.0 } else { kept });
        Tensor::from_data(TensorData::new(mask, shape), device)
    }
}
