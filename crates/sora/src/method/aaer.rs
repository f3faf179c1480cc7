//! AAER: abnormal adversarial examples regularization (Lin et al. 2024, arXiv 2404.08154).
//!
//! `delta` is made as in N-FGSM (`base = n-fgsm`), FGSM-RS (`fgsm-rs`) or FGSM (`fgsm`). A sample
//! is abnormal if its loss at `x + delta` is below its loss at `x + eta`, which means that the step
//! has passed a maximum. Loss: `L(x + delta) + lambda1 (n_ab / n) (lambda2 F_ab + lambda3 max(0,
//! D_ab - D_no))`. F_ab is the mean fall of the loss over the abnormal samples (a constant: it
//! appears in the loss, not in the gradient). D is the mean squared l2 change of the logits from
//! x + eta (constant) to x + delta, over the abnormal and over the normal samples (constant). A
//! batch that lacks either kind has no regulariser.
//!
//! The authors' repository (`official`) has its own weights for each radius (8, 12, 16 and 32 of
//! 255) and for each of the bases n-fgsm and fgsm-rs. Between two radii this code takes the nearer
//! one's, and for fgsm, which the authors do not have, those of fgsm-rs. The SORA reference
//! (`reference`) has the authors' weights of n-fgsm at 8/255 everywhere. A warm-up of the
//! regulariser over 20 epochs, which a comment in the authors' code names for long schedules, is
//! not offered.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch, Variant,
    elle::Base, options::ranges, registry::passes,
};
use crate::{
    error::Result,
    loss::cross_entropy_per_sample,
    nn::BnMode,
    noise::Draw,
    perturbation::{Bound, Perturb},
    ranks,
    threat::Norm,
};

/// The row of `aaer`.
pub static INFO: MethodInfo = MethodInfo {
    name: "aaer",
    summary: "n-fgsm (or another base) with a penalty on samples whose loss falls under the attack",
    source: "Lin et al. 2024, arXiv 2404.08154",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 3.0,
    options: Options::defaults::<Aaer>,
    build: Options::build::<Aaer>,
};

/// The authors' weights: radius in 1/255, then lambda2 and lambda3 with n-fgsm and with fgsm-rs.
const AUTHORS: [(f64, [f64; 2], [f64; 2]); 4] = [
    (8.0, [1.5, 0.15], [2.5, 1.5]),
    (12.0, [5.0, 0.55], [5.0, 2.75]),
    (16.0, [8.5, 1.5], [7.0, 3.25]),
    (32.0, [2.75, 0.75], [5.75, 1.5]),
];

/// AAER training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aaer {
    /// Step size in epsilons; negative: the authors' for the base, 1.25 with fgsm-rs and 1 else.
    pub alpha: f64,
    /// How the examples are made.
    pub base: Base,
    /// Half-width of the noise in epsilons, with n-fgsm.
    pub noise: f64,
    /// Weight of the regulariser.
    pub lambda1: f64,
    /// Weight of the fall of the loss in it; negative: the authors' for base and epsilon.
    pub lambda2: f64,
    /// Weight of the change of the logits in it; negative: the authors' for base and epsilon.
    pub lambda3: f64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

impl Default for Aaer {
    fn default() -> Self {
        Self {
            alpha: -1.0,
            base: Base::NFgsm,
            noise: 2.0,
            lambda1: 1.0,
            lambda2: -1.0,
            lambda3: -1.0,
            variant: Variant::Official,
        }
    }
}

impl Hyperparameters for Aaer {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, -1.0, 100.0),
            ("noise", self.noise, 0.0, 100.0),
            ("lambda1", self.lambda1, 0.0, 1e6),
            ("lambda2", self.lambda2, -1.0, 1e6),
            ("lambda3", self.lambda3, -1.0, 1e6),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }

    fn reference() -> Option<Self> {
        Some(Self { lambda2: 1.5, lambda3: 0.15, variant: Variant::Reference, ..Self::default() })
    }
}

impl Aaer {
    /// Weights of the fall and of the change at `epsilon`.
    fn weights(&self, epsilon: f32) -> [f64; 2] {
        let distance = |radius: f64| (radius - 255.0 * f64::from(epsilon)).abs();
        let nearest = AUTHORS.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        let authors = match (nearest, self.base) {
            (Some((_, weights, _)), Base::NFgsm) | (Some((_, _, weights)), _) => *weights,
            (None, _) => [0.0; 2],
        };
        let chosen = |own: f64, authors: f64| if own < 0.0 { authors } else { own };
        [chosen(self.lambda2, authors[0]), chosen(self.lambda3, authors[1])]
    }

    /// Step size in epsilons.
    fn step_size(&self) -> f64 {
        match self.base {
            _ if self.alpha >= 0.0 => self.alpha,
            Base::FgsmRs => 1.25,
            Base::Fgsm | Base::NFgsm => 1.0,
        }
    }
}

impl Method for Aaer {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let (shape, epsilon) = (batch.x.dims(), cx.threat.epsilon);
        let n = shape[0];
        let all = (n * ranks::world()) as f64;
        let wide = self.noise as f32 * epsilon;
        let eta = match self.base {
            Base::Fgsm => None,
            Base::FgsmRs => Some(batch.clamp_to_box(cx.threat.random_start(cx.noise, shape))),
            Base::NFgsm => {
                Some(batch.clamp_to_box(cx.noise.uniform(Draw::Eta, shape, -wide, wide)))
            }
        };
        let point = eta.as_ref().map_or_else(|| batch.x.clone(), |eta| batch.at(eta));
        let attack = cx.input_gradient(point, &batch.labels);
        let alpha = self.step_size() as f32 * epsilon;
        let bound = if self.base == Base::FgsmRs { Bound::Ball } else { Bound::Box };
        let delta = cx.threat.step(&batch.x, eta, attack.grad.clone(), alpha, None, bound);
        let [of_fall, of_change] = self.weights(epsilon);
        let start = attack.logits;
        let before = cross_entropy_per_sample(start.clone(), batch.labels.clone());
        let out = cx.train_with(batch, delta, Some(attack.grad), |pass| {
            let logits = pass.at_point();
            let fall = before.clone()
                - cross_entropy_per_sample(logits.clone().inner(), batch.labels.clone());
            // Masks and counts stay on the device, because reading them back would wait for it.
            let abnormal = fall.clone().sign().clamp_min(0.0);
            let normal = abnormal.clone().neg() + 1.0;
            let (n_ab, n_no) =
                (ranks::sum(abnormal.clone().sum()), ranks::sum(normal.clone().sum()));
            let both = n_ab.clone().sign() * n_no.clone().sign();
            let change = (logits.clone() - start.clone()).square().sum_dim(1).reshape([n]);
            let d_no = ranks::sum((change.clone().inner() * normal).sum()) / n_no.clamp_min(1.0);
            let d_ab = ranks::sum((change * abnormal.clone()).sum()) / n_ab.clone().clamp_min(1.0);
            let fall = ranks::sum((fall * abnormal).sum()) / n_ab.clone().clamp_min(1.0);
            let excess = (d_ab - d_no).clamp_min(0.0);
            let share = n_ab * both / all;
            let penalty = (excess * of_change + fall * of_fall) * share;
            Ok((pass.cross_entropy(logits.clone(), &batch.labels) + penalty * self.lambda1, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_authors_for_radius_and_base_unless_given() {
        let aaer = |base| Aaer { base, ..Aaer::default() };
        let at = |options: Aaer, radius: f32| options.weights(radius / 255.0);
        assert_eq!([8.0, 10.4].map(|r| at(aaer(Base::NFgsm), r)), [[1.5, 0.15], [5.0, 0.55]]);
        assert_eq!([4.0, 60.0].map(|r| at(aaer(Base::FgsmRs), r)), [[2.5, 1.5], [5.75, 1.5]]);
        assert_eq!(at(aaer(Base::Fgsm), 16.0), [7.0, 3.25]);
        assert_eq!(at(Aaer { lambda3: 0.0, ..aaer(Base::NFgsm) }, 16.0), [8.5, 0.0]);
        assert_eq!(at(Aaer::reference().unwrap(), 16.0), [1.5, 0.15]);
        assert_eq!([aaer(Base::FgsmRs), aaer(Base::NFgsm)].map(|o| o.step_size()), [1.25, 1.0]);
    }
}
