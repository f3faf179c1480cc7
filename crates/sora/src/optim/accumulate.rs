//! Gradient accumulation: one update with the mean gradient of several batches. Batch norm uses the
//! statistics of each batch alone.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{Optimizer, Rates, Velocity, load_prefixed, prefixed, scalar};
use crate::{
    error::Result,
    nn::{HostTensor, TensorSet},
};

/// An optimizer that updates once in `every` steps.
#[derive(Debug)]
pub struct Accumulated {
    inner: Box<dyn Optimizer>,
    every: u32,
    count: u32,
    sum: TensorSet,
}

impl Accumulated {
    /// Passes the mean gradient of every `every` steps to `inner`.
    pub fn new(inner: Box<dyn Optimizer>, params: &TensorSet, every: u32) -> Self {
        Self { inner, every: every.max(1), count: 0, sum: params.zeros_like() }
    }
}

impl Optimizer for Accumulated {
    fn step(&mut self, params: &mut TensorSet, gradients: Vec<Tensor<1>>, rates: Rates) {
        for (index, gradient) in gradients.into_iter().enumerate() {
            let sum = self.sum.take(index);
            self.sum.set(index, sum + gradient * (1.0 / self.every as f32));
        }
        self.count += 1;
        if self.count == self.every {
            let zeros = self.sum.zeros_like();
            let mean = std::mem::replace(&mut self.sum, zeros);
            self.inner.step(params, mean.values().to_vec(), rates);
            self.count = 0;
        }
    }

    fn velocity(&self, rates: Rates) -> Option<Velocity<'_>> {
        self.inner.velocity(rates)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = self.inner.state()?;
        state.extend(prefixed(&self.sum, "accumulated.")?);
        state.push(HostTensor {
            name: "accumulated_steps".into(),
            shape: vec![1],
            data: vec![self.count as f32],
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        self.inner.load_state(state, origin)?;
        self.count = scalar(state, "accumulated_steps", origin)? as u32;
        load_prefixed(&mut self.sum, state, "accumulated.", origin)
    }
}
