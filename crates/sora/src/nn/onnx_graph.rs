//! The graph of an ONNX file as a layer: its weights among those of a network.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use sora_onnx::{Role, Trainable, Values};

use super::{
    Flat, Init, Pass, SpecBuilder, Weights,
    engine::{OnnxPlan, onnx},
    params::to_vec,
};
use crate::error::{Error, Result};

/// The place of a tensor of the graph.
#[derive(Clone, Copy, Debug)]
enum Place {
    Param(usize),
    Buffer(usize),
}

/// A graph whose trained tensors are parameters and whose statistics are buffers, under the file's
/// names.
#[derive(Debug)]
pub(crate) struct OnnxLayer {
    graph: Arc<Trainable>,
    /// Of each tensor of the graph, in order.
    places: Vec<Place>,
    /// The values of the last pass, with the version of their content.
    values: Mutex<Vec<Option<(u64, Values)>>>,
}

impl OnnxLayer {
    /// Registers the tensors of `graph`. All get their values from elsewhere, except a new head.
    pub fn new(specs: &mut SpecBuilder, graph: Trainable) -> Self {
        let place = |weight: &sora_onnx::Weight| match weight.role {
            Role::Trained => {
                let init = weight.head.map_or(Init::Constant(0.0), Init::Uniform);
                Place::Param(specs.param(weight.name.clone(), &weight.shape, init).0)
            }
            Role::Statistic => {
                Place::Buffer(specs.buffer(weight.name.clone(), &weight.shape, 0.0).0)
            }
        };
        let places: Vec<_> = graph.weights().iter().map(place).collect();
        Self { values: Mutex::new(vec![None; places.len()]), places, graph: Arc::new(graph) }
    }

    /// As [`Trainable::least_bytes`].
    pub fn least_bytes(&self, images: usize) -> u64 {
        self.graph.least_bytes(images)
    }

    /// The logits of `x` `[N, C, H, W]`.
    pub fn forward(&self, weights: &Weights, x: Tensor<4>, pass: &Pass) -> Flat {
        // Without values the pass fails, and its logits are not finite.
        let values = self.values(weights, &pass.buffers);
        let values = values.inspect_err(|e| tracing::error!("{e}")).unwrap_or_default();
        let plan = OnnxPlan { graph: self.graph.clone(), values };
        Flat { values: onnx(x, weights.joined(), plan), tangent: None }
    }

    /// The values in the graph's form. Those whose content is that of the last pass are shared with
    /// it, and so are the forms that the kernels have made of them.
    fn values(&self, params: &Weights, buffers: &Weights) -> Result<Vec<Values>> {
        let mut kept = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(self.places.len());
        for (index, (place, kept)) in self.places.iter().zip(kept.iter_mut()).enumerate() {
            let (version, value) = match place {
                Place::Param(at) => params.at(*at),
                Place::Buffer(at) => buffers.at(*at),
            };
            let known = kept.as_ref().filter(|(known, _)| *known == version);
            let values = match known {
                Some((_, values)) => values.clone(),
                None => {
                    let data = to_vec(&value.clone().inner())?;
                    let fresh = self.graph.values(index, data);
                    fresh.map_err(|e| Error::defect(e.to_string()))?
                }
            };
            *kept = Some((version, values.clone()));
            all.push(values);
        }
        Ok(all)
    }
}
