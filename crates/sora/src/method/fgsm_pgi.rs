//! FGSM-PGI: FGSM with prior-guided initialization (Jia et al. 2022, "Prior-guided adversarial
//! initialization for fast adversarial training", ECCV, arXiv 2207.08859), in its best form,
//! FGSM-MEP: the prior is the momentum of an image's gradients over all epochs.
//!
//! The method keeps for each image a prior (initially eps times a random sign) and a momentum
//! (initially 0). `d0 = box(prior)`; `g = g(x + d0)`; `momentum <- decay momentum + g / ||g||_1`;
//! `delta = box(ball(d0 + eps sign g))`; `prior <- box(ball(d0 + eps sign momentum))`. Loss: `L(x +
//! delta) + lambda mean (f(x + delta) - f(x + d0))^2`, the mean over samples and classes, where
//! both logits are differentiated.
//!
//! The authors' repository (`official`) attacks and trains with labels that give 0.6 to the true
//! class and the rest to the others in equal parts. Priors and momenta start anew every 40 epochs,
//! ||g||_1 is that of the whole batch, and one pass at x + d0 serves the attack and the loss, so
//! the running statistics see that point once. In the form of the SORA reference (`reference`)
//! labels are hard, nothing starts anew, each image has its own ||g||_1, and the running statistics
//! see x + d0 twice.
//!
//! Deviation: prior and momentum are kept in the coordinates of the image before augmentation, so
//! crop and flip are the only augmentations that are allowed. Memory: two images of f32 for each
//! training image, twice that while a checkpoint is written.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    DataInfo, Hyperparameters, Method, MethodInfo, Options, Passes, StepContext, StepOutput,
    TrainBatch, Variant, options::ranges, store::SampleStore,
};
use crate::{
    error::Result,
    loss::smoothed_cross_entropy,
    nn::{BnMode, HostTensor},
    noise::Draw,
    perturbation::{Perturb, sum_per_sample},
    ranks,
    threat::Norm,
};

/// The row of `fgsm-pgi`.
pub static INFO: MethodInfo = MethodInfo {
    name: "fgsm-pgi",
    summary: "a start from each image's accumulated gradients, one step, and a penalty on the \
              change of the logits",
    source: "Jia et al. 2022, arXiv 2207.08859",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 2,
    passes: Passes { forward: 3, backward_input: 1, backward_full: 2 },
    bound: 1.0,
    options: Options::defaults::<FgsmPgi>,
    build: Options::build::<FgsmPgi>,
};

/// FGSM-PGI training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FgsmPgi {
    /// Step size in epsilons, 0 to 100.
    pub alpha: f64,
    /// Weight of the past in the momentum, 0 to 1.
    pub decay: f64,
    /// Weight of the change of the logits.
    pub lambda: f64,
    /// Epochs between fresh starts; 0: never.
    #[serde(default)]
    pub reset: u64,
    /// Share of the label on the true class, in the attack and in the loss, 0 to 1; 1: hard labels
    /// in the attack, the run's label smoothing in the loss.
    #[serde(default = "hard")]
    pub true_share: f64,
    /// Whose form.
    #[serde(default = "Variant::of_old_runs")]
    pub variant: Variant,
}

fn hard() -> f64 {
    1.0
}

impl Default for FgsmPgi {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            decay: 0.3,
            lambda: 10.0,
            reset: 40,
            true_share: 0.6,
            variant: Variant::Official,
        }
    }
}

impl Hyperparameters for FgsmPgi {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        ranges([
            ("alpha", self.alpha, 0.0, 100.0),
            ("decay", self.decay, 0.0, 1.0),
            ("lambda", self.lambda, 0.0, 1e6),
            ("true_share", self.true_share, 0.0, 1.0),
        ])
    }

    fn into_method(self) -> Box<dyn Method> {
        let (prior, momentum) = (SampleStore::default(), SampleStore::default());
        Box::new(Running { options: self, prior, momentum, resets: 0 })
    }

    fn reference() -> Option<Self> {
        let variant = Variant::Reference;
        Some(Self { reset: 0, true_share: 1.0, variant, ..Self::default() })
    }
}

impl FgsmPgi {
    /// The label smoothing that leaves `true_share` on the true one of `classes`; `None` for hard
    /// labels.
    fn smoothing(&self, classes: usize) -> Option<f32> {
        let others = classes.saturating_sub(1).max(1) as f64;
        (self.true_share < 1.0)
            .then_some(((1.0 - self.true_share) * classes as f64 / others) as f32)
    }

    fn loss(&self, logits: Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<1> {
        let smoothing = self.smoothing(logits.dims()[1]).unwrap_or(0.0);
        smoothed_cross_entropy(logits, labels.clone(), smoothing)
    }

    /// The gradient divided by its l1 norm, over the batch or over each sample.
    fn normalised(&self, grad: Tensor<4>) -> Tensor<4> {
        let sizes = sum_per_sample(grad.clone().abs());
        let size = match self.variant {
            Variant::Official => ranks::sum(sizes.sum()).reshape([1, 1, 1, 1]),
            Variant::Reference => sizes,
        };
        grad / size.clamp_min(1e-12)
    }
}

/// The state of FGSM-PGI between two steps.
#[derive(Clone, Debug)]
struct Running {
    options: FgsmPgi,
    prior: SampleStore,
    momentum: SampleStore,
    /// Number of fresh starts of prior and momentum so far.
    resets: u64,
}

impl Method for Running {
    fn memory(&self, data: &DataInfo) -> Result<u64> {
        SampleStore::memory("fgsm-pgi", data).map(|bytes| 2 * bytes)
    }

    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let options = self.options;
        let resets = cx.place.epoch.checked_div(options.reset).unwrap_or(0);
        if resets != self.resets {
            self.prior.clear();
            self.momentum.clear();
            self.resets = resets;
        }
        let alpha = options.alpha as f32 * cx.threat.epsilon;
        let prior = self
            .prior
            .gather(batch, || cx.noise.sign(Draw::Sign, batch.x.dims()) * cx.threat.epsilon)?;
        let momentum = self.momentum.gather(batch, || batch.x.zeros_like())?;
        let start = batch.clamp_to_box(cx.threat.project(prior));
        let point = batch.at(&start);
        let grad = cx
            .input_gradient_of(point.clone(), |logits| Ok(options.loss(logits, &batch.labels)))?
            .grad;
        let momentum = momentum * options.decay + options.normalised(grad.clone());
        let stepped = |direction: Tensor<4>| {
            batch.clamp_to_box(cx.threat.project(start.clone() + direction.sign() * alpha))
        };
        let (delta, prior) = (stepped(grad.clone()), stepped(momentum.clone()));
        self.prior.scatter(batch, &prior)?;
        self.momentum.scatter(batch, &momentum)?;
        let out = cx.train_with(batch, delta, Some(grad), |pass| {
            let start = match options.variant {
                Variant::Official => pass.forward_again(point.clone()),
                Variant::Reference => pass.forward(point.clone()),
            };
            let logits = pass.at_point();
            let change = (logits.clone() - start).square().mean();
            let loss = match options.smoothing(logits.dims()[1]) {
                Some(_) => options.loss(logits.clone(), &batch.labels),
                None => pass.cross_entropy(logits.clone(), &batch.labels),
            };
            Ok((loss + change * options.lambda, logits))
        })?;
        Ok(out.with_alpha(alpha))
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        let mut state = self.prior.state("prior");
        state.extend(self.momentum.state("momentum"));
        state.push(HostTensor {
            name: "resets".into(),
            shape: vec![1],
            data: vec![self.resets as f32],
        });
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.prior = SampleStore::load(state, "prior", "fgsm-pgi")?;
        self.momentum = SampleStore::load(state, "momentum", "fgsm-pgi")?;
        // Checkpoints of old runs, which never started anew, lack this tensor.
        let resets = state.get("resets").and_then(|tensor| tensor.data.first());
        self.resets = resets.copied().unwrap_or_default() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_class_keeps_its_share_of_the_label() {
        for classes in [2, 10, 100] {
            let smoothing = FgsmPgi::default().smoothing(classes).unwrap();
            let on_true = 1.0 - smoothing + smoothing / classes as f32;
            assert!((on_true - 0.6).abs() < 1e-6, "{classes}: {on_true}");
        }
        assert_eq!(FgsmPgi::reference().unwrap().smoothing(10), None);
    }
}
