//! AAER: abnormal adversarial examples regularization (Lin et al. 2024, arXiv 2404.08154).
//!
//! `delta` is made as in N-FGSM. A sample is abnormal if its loss at `x + delta` is below its loss
//! at `x + eta`, which means that the step has passed a maximum. Loss: `L(x + delta) + lambda1
//! (n_ab / n) (lambda2 F_ab + lambda3 max(0, D_ab - D_no))`. F_ab is the mean fall of the loss over
//! the abnormal samples (a constant: it appears in the loss, not in the gradient). D is the mean
//! squared l2 change of the logits from x + eta (constant) to x + delta, over the abnormal and over
//! the normal samples (constant). A batch that lacks either kind has no regulariser.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch, boxed,
    options::ranges, registry::passes,
};
use crate::{error::Result, loss::cross_entropy_per_sample, nn::BnMode, noise::Draw, threat::Norm};

/// The row of `aaer`.
pub static INFO: MethodInfo = MethodInfo {
    name: "aaer",
    summary: "n-fgsm with a penalty on samples whose loss falls under the attack",
    source: "Lin et al. 2024, arXiv 2404.08154",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 3.0,
    options: Options::defaults::<Aaer>,
    build: Options::build::<Aaer>,
};

/// AAER training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aaer {
    /// Step size in epsilons.
    pub alpha: f64,
    /// Half-width of the noise in epsilons.
    pub noise: f64,
    /// Weight of the regulariser.
    pub lambda1: f64,
    /// Weight of the fall of the loss in it.
    pub lambda2: f64,
    /// Weight of the change of the logits in it.
    pub lambda3: f64,
}

impl Default for Aaer {
    fn default() -> Self {
        Self { alpha: 1.0, noise: 2.0, lambda1: 1.0, lambda2: 1.5, lambda3: 0.15 }
    }
}

impl Hyperparameters for Aaer {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("noise", self.noise, 0.0, 100.0),
            ("lambda1", self.lambda1, 0.0, 1e6),
            ("lambda2", self.lambda2, 0.0, 1e6),
            ("lambda3", self.lambda3, 0.0, 1e6),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Aaer {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let n = batch.x.dims()[0];
        let radius = self.noise as f32 * cx.threat.epsilon;
        let eta = boxed(batch, cx.noise.uniform(Draw::Eta, batch.x.dims(), -radius, radius));
        let attack = cx.input_gradient(batch.x.clone() + eta.clone(), &batch.labels);
        let alpha = self.alpha as f32 * cx.threat.epsilon;
        let delta = boxed(batch, eta + attack.grad.clone().sign() * alpha);
        let start = attack.logits;
        let before = cross_entropy_per_sample(start.clone(), batch.labels.clone());
        let out = cx.train_with(batch, delta, Some(attack.grad), |pass| {
            let logits = pass.at_point();
            let fall = before.clone()
                - cross_entropy_per_sample(logits.clone().inner(), batch.labels.clone());
            // Masks and counts stay on the device, because reading them back would wait for it.
            let abnormal = fall.clone().sign().clamp_min(0.0);
            let normal = abnormal.clone().neg() + 1.0;
            let (n_ab, n_no) = (abnormal.clone().sum(), normal.clone().sum());
            let both = n_ab.clone().sign() * n_no.clone().sign();
            let change = (logits.clone() - start.clone()).square().sum_dim(1).reshape([n]);
            let d_no = (change.clone().inner() * normal).sum() / n_no.clamp_min(1.0);
            let d_ab = (change * abnormal.clone()).sum() / n_ab.clone().clamp_min(1.0);
            let fall = (fall * abnormal).sum() / n_ab.clone().clamp_min(1.0);
            let excess = (d_ab - d_no).clamp_min(0.0);
            let share = n_ab * both / n as f64;
            let penalty = (excess * self.lambda3 + fall * self.lambda2) * share;
            Ok((pass.cross_entropy(logits.clone(), &batch.labels) + penalty * self.lambda1, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}
