//! Stochastic gradient descent with momentum and weight decay by PyTorch's formula (dampening 0, no
//! Nesterov): `g <- g + wd p`, `b <- mu b + g`, `p <- p - lr b`, where b starts at 0, and lr and mu
//! are those of the step.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use sora_kernels::sgd::Sgd as Rule;

use super::{Optimizer, Rates, Velocity, load_prefixed, prefixed};
use crate::{
    compute,
    error::Result,
    nn::{HostTensor, TensorSet},
};

/// SGD and its momentum buffers.
#[derive(Debug)]
pub struct Sgd {
    weight_decay: f32,
    buffers: TensorSet,
}

impl Sgd {
    /// Buffers of zeros for `params`.
    pub fn new(params: &TensorSet, weight_decay: f32) -> Self {
        Self { weight_decay, buffers: params.zeros_like() }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &mut TensorSet, gradients: Vec<Tensor<1>>, rates: Rates) {
        let rule = Rule {
            learning_rate: rates.lr,
            momentum: rates.momentum,
            weight_decay: self.weight_decay,
            nesterov: false,
        };
        if let Some(value) = params.values().first() {
            compute::of(&value.device()).sgd_update(&rule, params, &mut self.buffers, gradients);
        }
    }

    fn velocity(&self, Rates { momentum, .. }: Rates) -> Option<Velocity<'_>> {
        let Self { weight_decay, ref buffers } = *self;
        Some(Velocity { buffers, momentum, weight_decay })
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        prefixed(&self.buffers, "momentum.")
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        load_prefixed(&mut self.buffers, state, "momentum.", origin)
    }
}
