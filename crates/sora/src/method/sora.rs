//! SORA: free second-order attacks in fast adversarial training (ICML 2026, arXiv 2606.00738).
//!
//! The step size follows an estimate of the loss's curvature along the step that costs nothing: the
//! training backward also yields the gradient `g'` at the perturbed point, and the slopes `<p, g>`
//! at the start and `<p, g'>` at the end of a step along p = sign(g) give a secant of the Hessian.
//! With v the running ratio of the two slopes, a linear model of the slope vanishes at `alpha_0 /
//! (1 - v)`: the Newton step. A flat loss (v near 1) gets long steps, a distorted one short steps.
//!
//! Step t: `alpha* = min(alpha_max, alpha_0 / (1 - v))`; `eta = box(U(-eps, eps))`; `g = grad L(x +
//! eta)`; `delta = box(eta + alpha* r sign g)` with `r ~ U(0,1)` for each pixel and channel, no
//! projection; train on `x + delta`; `v <- (1 - beta) v + beta v_batch`. In l2, eta is a uniform
//! direction of length U(0, eps), the step `alpha* r g / ||g||_2`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Batch, Method, Options, StepContext, StepOutput, boxed};
use crate::{
    error::{Error, Result},
    nn::HostTensor,
    noise::Draw,
    perturbation::{Bound, Perturb},
};

/// How the step factor r is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StepFactor {
    /// U(0,1) for each pixel and channel: the method.
    Pixel,
    /// U(0,1), one for each sample (ablation).
    Sample,
    /// r = 1 (ablation).
    One,
}

/// SORA's hyperparameters: one set for every data set and network. The switches are the paper's
/// ablations.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SoraOptions {
    /// Largest step in epsilons.
    alpha_max: f64,
    /// Step at v = 0, as a fraction of alpha_max.
    alpha_0: f64,
    /// Weight of the newest batch in the running linearity.
    beta: f64,
    /// Linearity before the first batch.
    v0: f64,
    /// A fixed step in epsilons instead of the adaptive one; negative: adaptive.
    fixed_alpha: f64,
    /// How r is drawn: "pixel", "sample" or "one".
    r: StepFactor,
    /// Whether the attack starts from random noise.
    eta: bool,
}

impl SoraOptions {
    pub(super) fn options() -> Result<Options> {
        Options::of(&Self {
            alpha_max: 2.0,
            alpha_0: 0.02,
            beta: 0.05,
            v0: 0.99,
            fixed_alpha: -1.0,
            r: StepFactor::Pixel,
            eta: true,
        })
    }
}

/// SORA training.
#[derive(Clone, Debug)]
pub(super) struct Sora {
    options: SoraOptions,
    /// Running linearity.
    v: f32,
}

impl Sora {
    pub(super) fn new(options: SoraOptions) -> Result<Self> {
        let SoraOptions { alpha_max, alpha_0, beta, v0, .. } = options;
        for (name, value, range) in [
            ("alpha_max", alpha_max, 0.0..=100.0),
            ("alpha_0", alpha_0, 0.0..=1.0),
            ("beta", beta, 0.0..=1.0),
            ("v0", v0, -1.0..=1.0),
        ] {
            if !range.contains(&value) {
                return Err(Error::input(format!(
                    "option '{name}' = {value}: expected {} to {}",
                    range.start(),
                    range.end()
                )));
            }
        }
        Ok(Self { v: v0 as f32, options })
    }

    /// `alpha*`, in pixel units.
    fn alpha(&self, epsilon: f32) -> f32 {
        if self.options.fixed_alpha >= 0.0 {
            return self.options.fixed_alpha as f32 * epsilon;
        }
        let alpha_max = self.options.alpha_max as f32 * epsilon;
        if self.v < 1.0 {
            alpha_max.min(self.options.alpha_0 as f32 * alpha_max / (1.0 - self.v))
        } else {
            alpha_max
        }
    }
}

impl Method for Sora {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        let shape = batch.x.dims();
        let alpha = self.alpha(cx.threat.epsilon);
        let eta = if self.options.eta {
            boxed(batch, cx.threat.random_start(cx.noise, shape))
        } else {
            batch.x.zeros_like()
        };
        let grad = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels).grad;
        let r = match self.options.r {
            StepFactor::Pixel => Some(cx.noise.uniform(Draw::R, shape, 0.0, 1.0)),
            StepFactor::Sample => {
                Some(cx.noise.uniform(Draw::RSample, [shape[0], 1, 1, 1], 0.0, 1.0))
            }
            StepFactor::One => None,
        };
        let delta = cx.threat.step(&batch.x, Some(eta), grad.clone(), alpha, r, Bound::Box);
        let out = cx.train(batch, delta, Some(grad))?.with_alpha(alpha);
        let beta = self.options.beta as f32;
        self.v = (1.0 - beta) * self.v + beta * out.metrics.linearity;
        Ok(out)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(vec![HostTensor { name: "v".into(), shape: vec![1], data: vec![self.v] }])
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        match state.get("v").map(|tensor| tensor.data.as_slice()) {
            Some(&[v]) => {
                self.v = v;
                Ok(())
            }
            _ => Err(Error::input(
                "checkpoint: the state of method sora (one number, v) is missing; was the run made with another method?",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(v: f32) -> f32 {
        let options: SoraOptions = SoraOptions::options().unwrap().parse("sora").unwrap();
        let mut sora = Sora::new(options).unwrap();
        sora.v = v;
        sora.alpha(1.0)
    }

    #[test]
    fn step_size_is_the_newton_step_up_to_alpha_max() {
        assert_eq!(at(0.99), 2.0, "alpha_0 / (1 - 0.99) = 4, cut at alpha_max = 2");
        assert!((at(0.9) - 0.4).abs() < 1e-6, "0.04 / 0.1");
        assert!((at(0.0) - 0.04).abs() < 1e-7);
        assert!((at(-1.0) - 0.02).abs() < 1e-7);
        assert_eq!(at(1.0), 2.0);
    }
}
