//! The batch norm that a convolution's input comes from.
//!
//! A convolution needs its input again for its weight gradient. Where that is the result of a batch
//! norm and ReLU, it is computed again from the batch norm's own input, which is kept anyway,
//! instead of being kept too: one cheap pass over memory for almost half of all activations.
//! Convolutions that read the same result share that, and add their gradients for it in the
//! convolution's own store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_flex::FlexTensor;

use super::flex::Norm;
use crate::profile::Stage;

/// Shared by a batch norm and the convolutions that read its result, for one pass.
#[derive(Debug, Default)]
pub struct Recompute(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The batch norm's input and parameters, once it is recorded for a backward pass.
    normed: Option<(FlexTensor, Norm)>,
    /// Convolutions whose weight gradient is still to come.
    weight_readers: usize,
    /// The result, for the weight gradients that are still to come.
    map: Option<FlexTensor>,
    /// Convolutions whose input gradient is still to come.
    readers: usize,
    /// Sum of the input gradients so far.
    gradient: Option<FlexTensor>,
}

impl Recompute {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the result is computed from.
    pub(super) fn record(&self, x: FlexTensor, norm: Norm) {
        self.state().normed = Some((x, norm));
    }

    /// Whether the result can be computed again.
    pub(super) fn is_recorded(&self) -> bool {
        self.state().normed.is_some()
    }

    /// Announces a convolution whose backward pass will want the result's gradient (`input`) or the
    /// result itself (`weight`). Every one that is announced must take part in the backward pass.
    pub(super) fn announce(&self, input: bool, weight: bool) {
        let mut state = self.state();
        state.readers += usize::from(input);
        state.weight_readers += usize::from(weight);
    }

    /// The result, for a weight gradient; `None` before it was recorded.
    pub(super) fn result(&self) -> Option<FlexTensor> {
        let mut state = self.state();
        state.weight_readers = state.weight_readers.saturating_sub(1);
        let last = state.weight_readers == 0;
        let map = match state.map.take() {
            Some(map) => map,
            None => {
                let (x, norm) = state.normed.as_ref()?;
                norm.forward(x, Stage::NormAgain)
            }
        };
        if !last {
            state.map = Some(map.clone());
        }
        Some(map)
    }

    /// Sum of the input gradients so far, to add the next one to.
    pub(super) fn gradient(&self) -> Option<FlexTensor> {
        self.state().gradient.take()
    }

    /// Takes the sum of the input gradients so far, and returns it when it is complete.
    pub(super) fn settle(&self, gradient: FlexTensor) -> Option<FlexTensor> {
        let mut state = self.state();
        state.readers = state.readers.saturating_sub(1);
        if state.readers == 0 {
            return Some(gradient);
        }
        state.gradient = Some(gradient);
        None
    }
}
