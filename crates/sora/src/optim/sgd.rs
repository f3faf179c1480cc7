//! Stochastic gradient descent with momentum and weight decay, PyTorch's formula (dampening 0, no
//! Nesterov): `g <- g + wd p`, `b <- mu b + g`, `p <- p - lr b`, with b starting at 0.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use sora_kernels::sgd::Sgd as Fused;

use super::{Optimizer, load_prefixed, prefixed};
use crate::{
    error::Result,
    nn::{HostTensor, TensorSet, sgd_step},
};

/// SGD and its momentum buffers.
#[derive(Debug)]
pub struct Sgd {
    momentum: f32,
    weight_decay: f32,
    buffers: TensorSet,
}

impl Sgd {
    /// Buffers of zeros for `params`.
    pub fn new(params: &TensorSet, momentum: f32, weight_decay: f32) -> Self {
        Self { momentum, weight_decay, buffers: params.zeros_like() }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &mut TensorSet, gradients: Vec<Tensor<1>>, lr: f32) {
        for (index, gradient) in gradients.into_iter().enumerate() {
            let (value, buffer) = (params.take(index), self.buffers.take(index));
            let [value, buffer] = if value.device() == Device::flex() {
                let fused = Fused {
                    learning_rate: lr,
                    momentum: self.momentum,
                    weight_decay: self.weight_decay,
                    nesterov: false,
                };
                sgd_step(&fused, value, buffer, gradient)
            } else {
                let buffer =
                    buffer * self.momentum + (gradient + value.clone() * self.weight_decay);
                [value - buffer.clone() * lr, buffer]
            };
            params.set(index, value);
            self.buffers.set(index, buffer);
        }
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        prefixed(&self.buffers, "momentum.")
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        load_prefixed(&mut self.buffers, state, "momentum.", origin)
    }
}
