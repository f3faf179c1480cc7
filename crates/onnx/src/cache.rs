//! Weights packed for the kernels, kept while they stay the same.

use std::sync::{Arc, Mutex, PoisonError};

use sora_kernels::{
    Isa,
    conv::{Conv2d, ConvGeometry, Direction, PackedWeights},
    linear::Linear,
};

use crate::{
    error::{Outcome, Problem},
    value::Array,
};

/// Most packed forms of one node's weights: two directions of a few image sizes.
const MOST: usize = 8;

/// The instruction set that the kernels use.
pub(crate) fn isa() -> Outcome<Isa> {
    Isa::current().map_err(|e| Problem::new(e.to_string()))
}

/// Packed forms of a node's weights.
#[derive(Debug, Default)]
pub(crate) struct Packed(Mutex<Vec<Entry>>);

/// A packed form and the weights it was made of. Holding the weights keeps their address from being
/// reused.
#[derive(Clone, Debug)]
struct Entry {
    weights: Array<f32>,
    /// `None` for a matrix product, which has one geometry.
    geometry: Option<ConvGeometry>,
    direction: Direction,
    packed: Arc<PackedWeights>,
}

impl Packed {
    /// The packed form for a convolution.
    pub fn conv(
        &self,
        conv: &Conv2d<f32>,
        weights: &Array<f32>,
        direction: Direction,
        ordered: impl FnOnce() -> Array<f32>,
    ) -> Outcome<Arc<PackedWeights>> {
        let pack = |data: &[f32]| conv.pack(data, direction);
        self.find(Some(*conv.geometry()), weights, direction, ordered, pack)
    }

    /// The packed form for a fully connected layer.
    pub fn linear(
        &self,
        linear: &Linear<f32>,
        weights: &Array<f32>,
        direction: Direction,
        ordered: impl FnOnce() -> Array<f32>,
    ) -> Outcome<Arc<PackedWeights>> {
        self.find(None, weights, direction, ordered, |data| linear.pack(data, direction))
    }

    fn find(
        &self,
        geometry: Option<ConvGeometry>,
        weights: &Array<f32>,
        direction: Direction,
        ordered: impl FnOnce() -> Array<f32>,
        pack: impl FnOnce(&[f32]) -> Result<PackedWeights, sora_kernels::ShapeError>,
    ) -> Outcome<Arc<PackedWeights>> {
        let of_these = |entry: &Entry| {
            entry.weights.as_ptr() == weights.as_ptr()
                && entry.weights.strides() == weights.strides()
        };
        let same = |entry: &&Entry| {
            entry.geometry == geometry && entry.direction == direction && of_these(entry)
        };
        let found = |entries: &[Entry]| entries.iter().find(same).map(|e| e.packed.clone());
        if let Some(packed) = found(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(packed);
        }
        // The lock is not held while packing, so threads that need a form at the same time may each
        // make it once.
        let packed = Arc::new(pack(&crate::value::to_vec(&ordered()))?);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Training has replaced the weights, or they are computed anew in each pass.
        entries.retain(of_these);
        if entries.len() >= MOST {
            entries.remove(0);
        }
        entries.push(Entry {
            weights: weights.clone(),
            geometry,
            direction,
            packed: packed.clone(),
        });
        Ok(packed)
    }
}
