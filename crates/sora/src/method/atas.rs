//! ATAS: adversarial training with adaptive step size (Huang et al. 2022, "Fast adversarial
//! training with adaptive step size", arXiv 2206.02417).
//!
//! A perturbation is kept for each image, and an average m of its squared gradient norm. Step: `g =
//! g(x + box(delta_i))` (eval mode, as the authors' code, unless `--attack-bn` says otherwise);
//! `m_i <- decay m_i + (1 - decay) ||g||_2^2`, from 0; `alpha_i = clamp(2 eps / (1 + sqrt(m_i) /
//! c), 0.5 eps, 1.75 eps)`; `delta = box(ball(delta_i + alpha_i sign g))`, trained on and kept. In
//! the first `warmup` epochs alpha = eps and m stays. Every `reset` epochs the perturbations start
//! anew at U(-eps, eps).
//!
//! Perturbations are kept in the coordinates of the image before augmentation, so they survive
//! another crop or flip; only those augmentations are allowed. Memory: one image of f32 for each
//! training image, twice that while a checkpoint is written.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{
    Batch, DataInfo, Method, Options, StepContext, StepOutput, boxed, options::range,
    store::SampleStore,
};
use crate::{
    error::{Error, Result},
    nn::{HostTensor, to_vec},
    noise::Draw,
    perturbation::{Perturb, sum_per_sample},
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AtasOptions {
    /// Gradient norm at which the step is half its largest value.
    c: f64,
    /// Weight of the past in the average.
    decay: f64,
    /// Largest step in epsilons.
    most: f64,
    /// Smallest step in epsilons.
    least: f64,
    /// Epochs between fresh starts; 0: never.
    reset: u64,
    /// Epochs with steps of epsilon.
    warmup: u64,
}

impl AtasOptions {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self { c: 0.01, decay: 0.5, most: 1.75, least: 0.5, reset: 10, warmup: 5 })
    }
}

/// ATAS training.
#[derive(Clone, Debug)]
pub(super) struct Atas {
    options: AtasOptions,
    delta: SampleStore,
    /// Average squared gradient norm by image.
    m: BTreeMap<u32, f32>,
    /// How often the perturbations have started anew.
    resets: u64,
}

impl Atas {
    pub(super) fn new(options: AtasOptions) -> Result<Self> {
        range("c", options.c, 1e-12, 1e12)?;
        range("decay", options.decay, 0.0, 1.0)?;
        range("most", options.most, 0.0, 100.0)?;
        range("least", options.least, 0.0, options.most)?;
        Ok(Self { options, delta: SampleStore::default(), m: BTreeMap::new(), resets: 0 })
    }

    /// Each image's step, in pixel units.
    fn steps(&mut self, cx: &StepContext<'_>, batch: &Batch, grad: &Tensor<4>) -> Result<Vec<f32>> {
        let epsilon = cx.threat.epsilon;
        if cx.place.epoch < self.options.warmup {
            return Ok(vec![epsilon; batch.ids.len()]);
        }
        let AtasOptions { c, decay, most, least, .. } = self.options;
        let squared = to_vec(&sum_per_sample(grad.clone().square()))?;
        let step = |(id, squared): (&u32, f32)| {
            let m = self.m.entry(*id).or_default();
            *m = decay as f32 * *m + (1.0 - decay as f32) * squared;
            (2.0 * epsilon / (1.0 + m.sqrt() / c as f32))
                .clamp(least as f32 * epsilon, most as f32 * epsilon)
        };
        Ok(batch.ids.iter().zip(squared).map(step).collect())
    }
}

impl Method for Atas {
    fn memory(&self, data: &DataInfo) -> Result<u64> {
        SampleStore::memory("atas", data)
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let resets = cx.place.epoch.checked_div(self.options.reset).unwrap_or(0);
        if resets != self.resets {
            self.delta.clear();
            self.resets = resets;
        }
        let epsilon = cx.threat.epsilon;
        let start = self
            .delta
            .gather(batch, || cx.noise.uniform(Draw::Delta, batch.x.dims(), -epsilon, epsilon))?;
        let start = boxed(batch, start);
        let grad = cx.input_gradient(batch.x.clone() + start.clone(), &batch.labels).grad;
        let steps = self.steps(cx, batch, &grad)?;
        let mean = steps.iter().sum::<f32>() / steps.len().max(1) as f32;
        let n = steps.len();
        let alpha = Tensor::<4>::from_data(TensorData::new(steps, [n, 1, 1, 1]), &batch.x.device());
        let delta = boxed(batch, cx.threat.project(start + grad.clone().sign() * alpha));
        self.delta.scatter(batch, &delta)?;
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(mean))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = self.delta.state("delta");
        let (ids, m): (Vec<_>, Vec<_>) =
            self.m.iter().map(|(&id, &m)| (f32::from_bits(id), m)).unzip();
        state.push(HostTensor { name: "m.ids".into(), shape: vec![ids.len()], data: ids });
        state.push(HostTensor { name: "m".into(), shape: vec![m.len()], data: m });
        state.push(HostTensor {
            name: "resets".into(),
            shape: vec![1],
            data: vec![self.resets as f32],
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.delta = SampleStore::load(state, "delta", "atas")?;
        let data = |name: &str| {
            state.get(name).map(|tensor| tensor.data.as_slice()).ok_or_else(|| {
                Error::input(format!("checkpoint: the state '{name}' of method atas is missing; was the run made with another method?"))
            })
        };
        self.m =
            data("m.ids")?.iter().map(|id| id.to_bits()).zip(data("m")?.iter().copied()).collect();
        self.resets = data("resets")?.first().copied().unwrap_or_default() as u64;
        Ok(())
    }
}
