//! Gradient clipping by the norm over all parameters, as PyTorch's `clip_grad_norm_`: `g <- g
//! min(1, max / (||g||_2 + 1e-6))`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{Optimizer, Rates, Velocity};
use crate::{
    error::Result,
    nn::{HostTensor, TensorSet},
};

/// An optimizer that receives clipped gradients.
#[derive(Debug)]
pub struct Clipped {
    inner: Box<dyn Optimizer>,
    max_norm: f32,
}

impl Clipped {
    /// Clips the gradients of `inner` to the norm `max_norm`.
    pub fn new(inner: Box<dyn Optimizer>, max_norm: f32) -> Self {
        Self { inner, max_norm }
    }
}

impl Optimizer for Clipped {
    fn step(&mut self, params: &mut TensorSet, mut gradients: Vec<Tensor<1>>, rates: Rates) {
        let norm = gradients
            .iter()
            .map(|g| g.clone().square().sum())
            .reduce(|a, b| a + b)
            .map(Tensor::sqrt);
        if let Some(norm) = norm {
            let scale = ((norm + 1e-6).recip() * self.max_norm).clamp_max(1.0);
            gradients = gradients.into_iter().map(|g| g * scale.clone()).collect();
        }
        self.inner.step(params, gradients, rates);
    }

    fn velocity(&self, rates: Rates) -> Option<Velocity<'_>> {
        self.inner.velocity(rates)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        self.inner.state()
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        self.inner.load_state(state, origin)
    }
}
