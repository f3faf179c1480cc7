//! Weight averaging: an exponential moving average of parameters and running statistics, updated
//! after every update (Izmailov et al. 2018, arXiv 1803.05407, in the exponential form; for
//! adversarial training Rebuffi et al. 2021, arXiv 2103.01946).
//!
//! `average <- decay average + (1 - decay) value`, from the initial weights on. The average does
//! not influence the training.

use std::collections::BTreeMap;

use crate::{
    error::Result,
    model::Model,
    nn::{HostTensor, TensorSet},
    optim::{load_prefixed, prefixed},
};

/// The averaged weights.
#[derive(Clone, Debug)]
pub struct WeightAverage {
    decay: f32,
    params: TensorSet,
    buffers: TensorSet,
}

impl WeightAverage {
    /// Starts the average at the weights of `model`; `decay` lies in [0, 1].
    pub fn new(model: &Model, decay: f32) -> Self {
        Self { decay, params: model.params.clone(), buffers: model.buffers.clone() }
    }

    /// Adds the weights of `model` to the average.
    pub fn update(&mut self, model: &Model) {
        for (average, values) in
            [(&mut self.params, &model.params), (&mut self.buffers, &model.buffers)]
        {
            for (index, value) in values.values().iter().enumerate() {
                let old = average.take(index);
                average.set(index, old * self.decay + value.clone() * (1.0 - self.decay));
            }
        }
    }

    /// `model` with the averaged weights.
    pub fn applied(&self, model: &Model) -> Model {
        let mut averaged = model.clone();
        averaged.params = self.params.clone();
        averaged.buffers = self.buffers.clone();
        averaged
    }

    /// The state that a checkpoint keeps.
    ///
    /// # Errors
    /// [`Error`](crate::Error) when a device fails.
    pub fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = prefixed(&self.params, "ema.")?;
        state.extend(prefixed(&self.buffers, "ema.")?);
        Ok(state)
    }

    /// Restores the state that [`state`](Self::state) returned; `origin` names the file in errors.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a missing or misshaped tensor.
    pub fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        load_prefixed(&mut self.params, state, "ema.", origin)?;
        load_prefixed(&mut self.buffers, state, "ema.", origin)
    }
}
