//! Adam (Kingma and Ba 2015, arXiv 1412.6980) and AdamW (Loshchilov and Hutter 2019, arXiv
//! 1711.05101), with PyTorch's formulas and defaults (betas 0.9 and 0.999, epsilon 1e-8).

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{Optimizer, Rates, load_prefixed, prefixed, scalar};
use crate::{
    error::Result,
    nn::{HostTensor, TensorSet},
};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The place of the weight decay in the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDecay {
    /// Added to the gradient: Adam.
    Coupled,
    /// `p <- p - lr wd p` before the step: AdamW.
    Decoupled,
}

/// Adam or AdamW and its moments.
#[derive(Debug)]
pub struct Adam {
    weight_decay: f32,
    kind: WeightDecay,
    steps: i32,
    first: TensorSet,
    second: TensorSet,
}

impl Adam {
    /// Moments of zeros for `params`.
    pub fn new(params: &TensorSet, weight_decay: f32, kind: WeightDecay) -> Self {
        Self {
            weight_decay,
            kind,
            steps: 0,
            first: params.zeros_like(),
            second: params.zeros_like(),
        }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, params: &mut TensorSet, gradients: Vec<Tensor<1>>, rates: Rates) {
        let lr = rates.lr;
        self.steps += 1;
        let correction1 = 1.0 - BETA1.powi(self.steps);
        let correction2 = (1.0 - BETA2.powi(self.steps)).sqrt();
        let step_size = f64::from(lr) / correction1;
        for (index, gradient) in gradients.into_iter().enumerate() {
            let value = params.take(index);
            let (value, gradient) = match self.kind {
                WeightDecay::Coupled => (value.clone(), gradient + value * self.weight_decay),
                WeightDecay::Decoupled => (value * (1.0 - lr * self.weight_decay), gradient),
            };
            let first = self.first.take(index) * BETA1 + gradient.clone() * (1.0 - BETA1);
            let second = self.second.take(index) * BETA2 + gradient.square() * (1.0 - BETA2);
            let denominator = second.clone().sqrt() / correction2 + EPSILON;
            params.set(index, value - first.clone() / denominator * step_size);
            self.first.set(index, first);
            self.second.set(index, second);
        }
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = prefixed(&self.first, "first.")?;
        state.extend(prefixed(&self.second, "second.")?);
        // The number of steps is exact in f32 up to 16 million.
        state.push(HostTensor {
            name: "steps".into(),
            shape: vec![1],
            data: vec![self.steps as f32],
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        load_prefixed(&mut self.first, state, "first.", origin)?;
        load_prefixed(&mut self.second, state, "second.", origin)?;
        self.steps = scalar(state, "steps", origin)? as i32;
        Ok(())
    }
}
