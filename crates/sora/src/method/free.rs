//! Free adversarial training (Shafahi et al. 2019, "Adversarial training for free!", arXiv
//! 1904.12843).
//!
//! Each batch is used for `replays` updates in a row. One pass at `x + delta` serves the weights
//! and the perturbation: after the update, `delta <- box(ball(delta + eps ascent(g')))`. delta
//! starts at U(-eps, eps) and continues from batch to batch, by the sample's place in the batch.
//!
//! A step here is one update, and an epoch goes over the images once, with `replays` updates on
//! each batch. The paper divides the number of epochs by `replays`, so that the cost is that of
//! standard training; a run without a given number of epochs does the same. PertAlign and linearity
//! compare g' with the g' of the replay before (the first replay compares it with itself).

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges,
    registry::{BOTH, passes},
};
use crate::{
    error::Result,
    nn::{BnMode, HostTensor, to_vec},
    perturbation::Perturb,
    ranks::share,
};

/// The row of `free`.
pub static INFO: MethodInfo = MethodInfo {
    name: "free",
    summary: "8 updates on each batch, each of which also moves the perturbation; count epochs accordingly",
    source: "Shafahi et al. 2019, arXiv 1904.12843",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(0),
    bound: 1.0,
    options: Options::defaults::<Free>,
    build: Options::build::<Free>,
};

/// Free training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Free {
    /// Step size in epsilons, 0 to 100.
    pub alpha: f64,
    /// Updates on each batch, 1 to 1000.
    pub replays: u32,
}

impl Default for Free {
    fn default() -> Self {
        Self { alpha: 1.0, replays: 8 }
    }
}

impl Hyperparameters for Free {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("replays", f64::from(self.replays), 1.0, 1000.0),
            ("alpha", self.alpha, 0.0, 100.0),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(Running { options: self, replay: 0, delta: None, grad: None })
    }
}

/// The state of free training between two steps.
#[derive(Clone, Debug)]
struct Running {
    options: Free,
    /// Number of replays of the batch so far.
    replay: u32,
    /// Perturbation and gradient of the last step.
    delta: Option<Saved>,
    grad: Option<Saved>,
}

/// A tensor that stays on the host until a batch shows on which device it is needed.
#[derive(Clone, Debug)]
enum Saved {
    Device(Tensor<4>),
    Host(HostTensor),
}

impl Saved {
    /// The tensor, if it has the batch's shape.
    fn take(self, batch: &TrainBatch) -> Option<Tensor<4>> {
        let tensor = match self {
            Self::Device(tensor) => tensor,
            Self::Host(host) if host.shape == batch.x.dims() => {
                Tensor::from_data(TensorData::new(host.data, batch.x.dims()), &batch.x.device())
            }
            Self::Host(_) => return None,
        };
        (tensor.dims() == batch.x.dims()).then_some(tensor)
    }

    fn host(&self, name: &str) -> Result<HostTensor> {
        match self {
            Self::Device(tensor) => Ok(HostTensor {
                name: name.into(),
                shape: tensor.dims().to_vec(),
                data: to_vec(tensor)?,
            }),
            Self::Host(host) => Ok(host.clone()),
        }
    }
}

impl Method for Running {
    fn updates_per_batch(&self) -> u32 {
        self.options.replays
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let kept = self.delta.take().and_then(|saved| saved.take(batch));
        let delta = kept.unwrap_or_else(|| cx.threat.random_start(cx.noise, batch.x.dims()));
        // The images under a kept perturbation have changed, or epsilon has, so it is projected
        // again.
        let delta = batch.clamp_to_box(cx.threat.project(delta));
        let before =
            self.grad.take().and_then(|saved| saved.take(batch)).filter(|_| self.replay > 0);
        let alpha = self.options.alpha as f32 * cx.threat.epsilon;
        let out = cx.train(batch, delta.clone(), before)?.with_alpha(alpha);
        let next = cx.threat.project(delta + cx.threat.ascent(out.input_gradient.clone()) * alpha);
        self.delta = Some(Saved::Device(batch.clamp_to_box(next)));
        self.replay = (self.replay + 1) % self.options.replays;
        self.grad = (self.replay > 0).then(|| Saved::Device(out.input_gradient.clone()));
        Ok(out)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = vec![HostTensor {
            name: "replay".into(),
            shape: vec![1],
            data: vec![self.replay as f32],
        }];
        for (name, saved) in [("delta", &self.delta), ("grad", &self.grad)] {
            let part = saved.as_ref().map(|saved| saved.host(name)).transpose()?;
            state.extend(part.map(share::whole_batch));
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        let Some(&[replay]) = state.get("replay").map(|tensor| tensor.data.as_slice()) else {
            return Err(super::no_state("free", "replay"));
        };
        self.replay = replay as u32 % self.options.replays;
        self.delta = state.get("delta").map(|whole| Saved::Host(share::part_of_batch(whole)));
        self.grad = state.get("grad").map(|whole| Saved::Host(share::part_of_batch(whole)));
        Ok(())
    }
}
