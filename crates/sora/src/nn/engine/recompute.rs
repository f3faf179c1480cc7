//! Recomputes the result of a batch norm that is the input of convolutions.
//!
//! A convolution needs its input again for its weight gradient. Where the input is the result of a
//! batch norm and ReLU, it is not kept but computed again from the batch norm's own input, which is
//! kept anyway. This costs one cheap pass over memory and saves almost half of all activations.
//! Convolutions that read the same result share the recomputed one, and add their gradients by it
//! when they store them.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use burn::backend::tensor::FloatTensor;

use super::batch_norm::{Norm, NormKernels};
use crate::profile::Stage;

/// Connects a map to the convolutions that read it, for one pass: a batch norm's result, which they
/// compute again, or another map, whose gradients alone they and the batch norm behind it share. Plans carry it for every
/// backend; its content is a [`State`] of the backend that records.
#[derive(Clone, Default)]
pub struct Recompute(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl fmt::Debug for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

struct State<B: NormKernels> {
    /// The batch norm's input and parameters, once it is recorded for a backward pass.
    normed: Option<(FloatTensor<B>, Norm<B>)>,
    /// Number of convolutions whose weight gradient is still to come.
    weight_readers: usize,
    /// The result, kept for the weight gradients that are still to come.
    map: Option<FloatTensor<B>>,
    /// Number of convolutions whose input gradient is still to come.
    readers: usize,
    /// Sum of the input gradients so far.
    gradient: Option<FloatTensor<B>>,
    /// Whether all convolutions that were announced have registered their sum with the map.
    settled: bool,
}

/// What the convolutions that read a map have done about its gradient.
pub(super) enum Readers<T> {
    /// There is none.
    Nobody,
    /// Some are still to come, and will add what is deposited; here is the sum so far.
    Awaited(Option<T>),
    /// Their sum is registered with the map.
    Registered,
}

impl Recompute {
    fn with<B: NormKernels, R>(&self, work: impl FnOnce(&mut State<B>) -> R) -> R {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = || State::<B> {
            normed: None,
            weight_readers: 0,
            map: None,
            readers: 0,
            gradient: None,
            settled: false,
        };
        match held.get_or_insert_with(|| Box::new(empty())).downcast_mut() {
            Some(state) => work(state),
            // A pass has one backend, so the state is of this type.
            None => work(&mut empty()),
        }
    }

    /// Stores the values from which the result is computed.
    pub(super) fn record<B: NormKernels>(&self, x: FloatTensor<B>, norm: Norm<B>) {
        self.with::<B, _>(|state| state.normed = Some((x, norm)));
    }

    /// Whether the result can be computed again.
    pub(super) fn is_recorded<B: NormKernels>(&self) -> bool {
        self.with::<B, _>(|state| state.normed.is_some())
    }

    /// Announces a convolution whose backward pass will need the result's gradient (`input`) or the
    /// result itself (`weight`). Every announced convolution must take part in the backward pass.
    pub(super) fn announce<B: NormKernels>(&self, input: bool, weight: bool) {
        self.with::<B, _>(|state| {
            state.readers += usize::from(input);
            state.weight_readers += usize::from(weight);
        });
    }

    /// The result, for a weight gradient; `None` before it was recorded.
    pub(super) fn result<B: NormKernels>(&self) -> Option<FloatTensor<B>> {
        self.with::<B, _>(|state| {
            state.weight_readers = state.weight_readers.saturating_sub(1);
            let map = match state.map.take() {
                Some(map) => map,
                None => {
                    let (x, norm) = state.normed.as_ref()?;
                    B::norm(norm, x, Stage::NormAgain)
                }
            };
            if state.weight_readers > 0 {
                state.map = Some(map.clone());
            }
            Some(map)
        })
    }

    /// Sum of the input gradients so far, to which the next gradient is added.
    pub(super) fn gradient<B: NormKernels>(&self) -> Option<FloatTensor<B>> {
        self.with::<B, _>(|state| state.gradient.take())
    }

    /// Leaves a gradient of another reader to the convolutions whose input gradient is still to
    /// come; returns it where there is none.
    pub(super) fn deposit<B: NormKernels>(
        &self,
        gradient: FloatTensor<B>,
    ) -> Option<FloatTensor<B>> {
        self.with::<B, _>(|state| {
            if state.readers == 0 || state.gradient.is_some() {
                return Some(gradient);
            }
            state.gradient = Some(gradient);
            None
        })
    }

    /// What the convolutions have done so far, for a reader that is none.
    pub(super) fn readers<B: NormKernels>(&self) -> Readers<FloatTensor<B>> {
        self.with::<B, _>(|state| match (state.readers, state.settled) {
            (0, false) => Readers::Nobody,
            (0, true) => Readers::Registered,
            _ => Readers::Awaited(state.gradient.take()),
        })
    }

    /// Stores the sum of the input gradients so far, and returns it when it is complete.
    pub(super) fn settle<B: NormKernels>(
        &self,
        gradient: FloatTensor<B>,
    ) -> Option<FloatTensor<B>> {
        self.with::<B, _>(|state| {
            state.readers = state.readers.saturating_sub(1);
            if state.readers == 0 {
                state.settled = true;
                return Some(gradient);
            }
            state.gradient = Some(gradient);
            None
        })
    }
}
