//! Optimizers, with PyTorch's formulas, over the flat list of parameters; and the schedules of
//! learning rate and momentum.
//!
//! The crate has its own optimizers because they are part of the training step (one fused pass on
//! the CPU) and because a checkpoint must restore their state to the same bits.

mod accumulate;
mod adam;
mod clip;
mod schedule;
mod sgd;

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    str::FromStr,
};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use accumulate::Accumulated;
pub use adam::{Adam, WeightDecay};
pub use clip::Clipped;
pub use schedule::{CYCLIC_MOMENTUM_AT_PEAK, MILESTONES, RatePlan, Rates, Schedule};
pub use sgd::Sgd;

use crate::{
    error::{Error, Result},
    nn::{HostTensor, TensorSet},
};

/// The kind of optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// SGD with momentum.
    Sgd,
    /// Adam, with weight decay added to the gradient.
    Adam,
    /// Adam, with weight decay apart from the gradient.
    Adamw,
}

impl OptimizerKind {
    /// Every optimizer.
    pub const ALL: [Self; 3] = [Self::Sgd, Self::Adam, Self::Adamw];

    /// Name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
            Self::Adamw => "adamw",
        }
    }

    /// Makes a new optimizer for `params`.
    pub fn build(self, params: &TensorSet, weight_decay: f32) -> Box<dyn Optimizer> {
        match self {
            Self::Sgd => Box::new(Sgd::new(params, weight_decay)),
            Self::Adam => Box::new(Adam::new(params, weight_decay, WeightDecay::Coupled)),
            Self::Adamw => Box::new(Adam::new(params, weight_decay, WeightDecay::Decoupled)),
        }
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OptimizerKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::unknown("optimizer", text, Self::ALL.map(Self::name)))
    }
}

/// The momentum of stochastic gradient descent: an update moves each parameter along `-(gradient +
/// weight_decay value + momentum buffer)`.
#[derive(Clone, Copy, Debug)]
pub struct Velocity<'a> {
    /// One buffer for each parameter.
    pub buffers: &'a TensorSet,
    /// Factor of the buffers in the step.
    pub momentum: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

/// Updates parameters from their gradients.
pub trait Optimizer: Debug + Send {
    /// Updates `params` once with `gradients` (flat, in the same order) at the rates of the step.
    fn step(&mut self, params: &mut TensorSet, gradients: Vec<Tensor<1>>, rates: Rates);

    /// The momentum before a step at `rates`; `None` for an optimizer without such momentum.
    fn velocity(&self, _rates: Rates) -> Option<Velocity<'_>> {
        None
    }

    /// The state that a checkpoint keeps.
    ///
    /// # Errors
    /// [`Error`] when a device fails.
    fn state(&self) -> Result<Vec<HostTensor>>;

    /// Restores the state that [`state`](Self::state) returned; `origin` names the file in errors.
    ///
    /// # Errors
    /// [`Error`] for a missing or misshaped tensor.
    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()>;
}

/// Copies `set` to the host, with `prefix` before each name.
pub(crate) fn prefixed(set: &TensorSet, prefix: &str) -> Result<Vec<HostTensor>> {
    let mut tensors = set.to_host()?;
    tensors.iter_mut().for_each(|tensor| tensor.name = format!("{prefix}{}", tensor.name));
    Ok(tensors)
}

/// Loads into `set` the tensors whose name starts with `prefix`.
pub(crate) fn load_prefixed(
    set: &mut TensorSet,
    state: &BTreeMap<String, HostTensor>,
    prefix: &str,
    origin: &str,
) -> Result<()> {
    let stripped = state
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
        .collect();
    set.load(&stripped, origin)
}

/// Reads a single number of a state.
fn scalar(state: &BTreeMap<String, HostTensor>, name: &str, origin: &str) -> Result<f32> {
    match state.get(name).map(|tensor| tensor.data.as_slice()) {
        Some(&[value]) => Ok(value),
        _ => Err(Error::unfit(
            origin,
            format!("the number '{name}' is missing; was the run made with another optimizer?"),
        )),
    }
}
