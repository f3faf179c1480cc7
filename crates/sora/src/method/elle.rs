//! ELLE: efficient local linearity regularization (Abad Rocamora et al. 2024, arXiv 2401.11618),
//! and its adaptive form ELLE-A.
//!
//! `delta` as FGSM-RS with step eps. For each sample, `a = x + box(U(-eps, eps))`, b likewise, `c =
//! (1 - t) a + t b` with t ~ U(0,1); `R = mean (L(c) - (1 - t) L(a) - t L(b))^2`; loss `L(x +
//! delta) + lambda R`. The 3 N images go through the network as one batch.
//!
//! ELLE-A (`adaptive = true`): lambda starts at 0; where R exceeds the mean of all its past values
//! by `sensitivity` standard deviations (once there are 3), lambda becomes `lambda`, else it is
//! multiplied by `decay`; then R joins the past. Deviation: the perturbed image is clamped to [0,
//! 1], which the authors leave out.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed, options::range};
use crate::{
    error::{Error, Result},
    loss::cross_entropy_per_sample,
    nn::{HostTensor, to_vec},
    noise::Draw,
    perturbation::Perturb,
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ElleOptions {
    /// Switches lambda on where the error rises: ELLE-A.
    adaptive: bool,
    /// Step size in epsilons.
    alpha: f64,
    /// ELLE-A: factor of lambda in each step that does not switch it on.
    decay: f64,
    /// Weight of the regulariser; ELLE-A: its largest weight.
    lambda: f64,
    /// ELLE-A: standard deviations above the mean at which lambda is switched on.
    sensitivity: f64,
}

impl ElleOptions {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self {
            adaptive: false,
            alpha: 1.0,
            decay: 0.99,
            lambda: 1000.0,
            sensitivity: 2.0,
        })
    }
}

/// ELLE training.
#[derive(Clone, Debug)]
pub(super) struct Elle {
    options: ElleOptions,
    /// ELLE-A's current weight.
    lambda: f32,
    /// ELLE-A's past errors.
    past: Vec<f32>,
}

impl Elle {
    pub(super) fn new(options: ElleOptions) -> Result<Self> {
        range("lambda", options.lambda, 0.0, 1e9)?;
        range("decay", options.decay, 0.0, 1.0)?;
        Ok(Self { options, lambda: 0.0, past: Vec::new() })
    }

    /// ELLE-A's weight for an error.
    fn adapted(&self, error: f32) -> f32 {
        let count = self.past.len() as f64;
        let mean = self.past.iter().map(|&e| f64::from(e)).sum::<f64>() / count;
        let variance =
            self.past.iter().map(|&e| (f64::from(e) - mean).powi(2)).sum::<f64>() / count;
        let rises = self.past.len() >= 3
            && f64::from(error) > mean + self.options.sensitivity * variance.sqrt();
        if rises { self.options.lambda as f32 } else { self.lambda * self.options.decay as f32 }
    }
}

impl Method for Elle {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let shape = batch.x.dims();
        let (n, epsilon) = (shape[0], cx.threat.epsilon);
        let eta = boxed(batch, cx.threat.random_start(cx.noise, shape));
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let alpha = self.options.alpha as f32 * epsilon;
        let delta = boxed(batch, cx.threat.project(eta + cx.threat.ascent(grad.clone()) * alpha));

        let mut end = || {
            batch.x.clone() + boxed(batch, cx.noise.uniform(Draw::Elle, shape, -epsilon, epsilon))
        };
        let (a, b) = (end(), end());
        let t = cx.noise.uniform(Draw::T, [n], 0.0, 1.0);
        let mix = |a: Tensor<4>, b: Tensor<4>, t: Tensor<4>| a * (t.clone().neg() + 1.0) + b * t;
        let c = mix(a.clone(), b.clone(), t.clone().reshape([n, 1, 1, 1]));
        let images = Tensor::cat(vec![a, b, c], 0);
        let labels = Tensor::cat(vec![batch.labels.clone(); 3], 0);

        let mut seen = (0.0, 0.0);
        let out = cx.train_with(batch, delta, Some(grad), |pass| {
            let losses = cross_entropy_per_sample(pass.forward(images.clone()), labels.clone());
            let part = |k: usize| losses.clone().narrow(0, k * n, n);
            let gap = part(2) - part(0) * (t.clone().neg() + 1.0) - part(1) * t.clone();
            let error = gap.square().mean();
            let lambda = if self.options.adaptive {
                let value = to_vec(&error.clone().inner())?.first().copied().unwrap_or_default();
                seen = (value, self.adapted(value));
                seen.1
            } else {
                self.options.lambda as f32
            };
            let logits = pass.at_point();
            Ok((pass.cross_entropy(logits.clone(), &batch.labels) + error * lambda, logits))
        })?;
        if self.options.adaptive {
            self.past.push(seen.0);
            self.lambda = seen.1;
        }
        Ok(out.with_alpha(alpha))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(vec![
            HostTensor { name: "lambda".into(), shape: vec![1], data: vec![self.lambda] },
            HostTensor {
                name: "past".into(),
                shape: vec![self.past.len()],
                data: self.past.clone(),
            },
        ])
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        let data = |name: &str| state.get(name).map(|tensor| tensor.data.clone());
        match (data("lambda").as_deref(), data("past")) {
            (Some(&[lambda]), Some(past)) => {
                self.lambda = lambda;
                self.past = past;
                Ok(())
            }
            _ => Err(Error::input(
                "checkpoint: the state of method elle (lambda and past) is missing; was the run made with another method?",
            )),
        }
    }
}
