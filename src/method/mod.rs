//! Training methods: how a batch becomes a perturbation, a loss and a gradient.
//!
//! A method is one file with one row in [`METHODS`]. It crafts a perturbation with [`StepContext::input_gradient`] and trains with
//! [`StepContext::train`]; the loop applies the gradient.

mod fgm;
mod fgsm;
mod fgsm_rs;
mod n_fgsm;
mod none;
mod options;
mod pgd;
mod sora;

use std::{collections::BTreeMap, fmt::Debug};

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

pub use options::Options;

use crate::{
    error::{Error, Result},
    gradient::{self, InputGradient},
    loss,
    model::Model,
    nn::{BnMode, HostTensor, to_vec},
    noise::Noise,
    threat::{Norm, Threat, clamp_to_box, l2_norm, sum_per_sample},
};

/// Images and labels on the device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Pixels in [0, 1], `[N, C, H, W]`.
    pub x: Tensor<4>,
    /// Classes, `[N]`.
    pub labels: Tensor<1, Int>,
    /// Index of each sample in the training split.
    pub ids: Vec<u32>,
}

/// Forward and backward passes of the whole network over one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// Forward passes.
    pub forward: u64,
    /// Backward passes to the input only.
    pub backward_input: u64,
    /// Backward passes to weights and input.
    pub backward_full: u64,
}

/// What a method works with during one step.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The network; its running statistics move with every training-mode pass.
    pub model: &'a mut Model,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Batch-norm mode of the attack pass.
    pub attack_bn: BnMode,
    /// Random draws of this step.
    pub noise: &'a mut Noise,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Passes made so far.
    pub passes: Passes,
}

impl StepContext<'_> {
    /// Gradient of the mean cross-entropy with respect to the pixels `x`, in the run's batch-norm mode.
    pub fn input_gradient(&mut self, x: Tensor<4>, labels: &Tensor<1, Int>) -> InputGradient {
        let mut out = gradient::input_gradient(self.model, x, self.attack_bn, |logits| loss::cross_entropy(logits, labels.clone()));
        self.model.absorb(std::mem::take(&mut out.stats));
        self.passes.forward += 1;
        self.passes.backward_input += 1;
        out
    }

    /// Trains on `x + delta` with the mean cross-entropy. `attack_grad` is the gradient of the (last) attack pass, `None` where there was none.
    pub fn train(&mut self, batch: &Batch, delta: Tensor<4>, attack_grad: Option<Tensor<4>>) -> Result<StepOutput> {
        let mut out = gradient::train_gradient(self.model, batch.x.clone() + delta.clone(), batch.labels.clone());
        self.model.absorb(std::mem::take(&mut out.stats));
        self.passes.forward += 1;
        self.passes.backward_full += 1;

        // One read-back for all the step's scalars: each would wait for the device.
        let attack_grad = attack_grad.unwrap_or_else(|| out.input.clone());
        let scalars = Tensor::cat(
            vec![
                out.loss,
                loss::correct(out.logits.clone(), batch.labels.clone()).mean(),
                pert_align(attack_grad.clone(), out.input.clone()),
                linearity(self.threat.norm, attack_grad, out.input.clone()),
                delta.clone().abs().mean(),
            ],
            0,
        );
        let scalars = to_vec(&scalars)?;
        let &[loss, adv_acc, pert_align, linearity, delta_mean] = scalars.as_slice() else {
            return Err(Error::work(format!("a step yielded {} figures instead of 5", scalars.len())));
        };
        Ok(StepOutput {
            gradients: out.params,
            delta,
            input_gradient: out.input,
            logits: out.logits,
            metrics: StepMetrics { loss, adv_acc, alpha: 0.0, linearity: linearity.clamp(-1.0, 1.0), pert_align, delta_mean },
        })
    }
}

/// Mean over samples of the cosine between the attack pass's gradient and the training pass's: PertAlign, `[1]`.
///
/// Near 1 the loss is locally linear; a sharp fall foretells catastrophic overfitting (SORA, arXiv 2606.00738).
pub fn pert_align(attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let tiny = f32::MIN_POSITIVE;
    let attack = attack.clone() / l2_norm(attack).clamp_min(tiny);
    let train = train.clone() / l2_norm(train).clamp_min(tiny);
    let n = attack.dims()[0];
    sum_per_sample(attack * train).reshape([n]).mean()
}

/// The free second-order estimate, `[1]`: mean over samples of `<p, g'> / <p, g>` with p = sign(g) (l-inf) or p = g (l2),
/// the ratio of the loss's slopes along the step at its end and at its start; not clipped (SORA, arXiv 2606.00738).
pub fn linearity(norm: Norm, attack: Tensor<4>, train: Tensor<4>) -> Tensor<1> {
    let n = attack.dims()[0];
    let step = match norm {
        Norm::Linf => attack.clone().sign(),
        Norm::L2 => attack.clone(),
    };
    let top = sum_per_sample(step.clone() * train);
    let bottom = sum_per_sample(step * attack).clamp_min(1e-12);
    (top / bottom).reshape([n]).mean()
}

/// What is logged of a step, whatever the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Mean training loss.
    pub loss: f32,
    /// Fraction of the training examples classified correctly.
    pub adv_acc: f32,
    /// Step size, in pixel units.
    pub alpha: f32,
    /// Batch linearity, in [-1, 1].
    pub linearity: f32,
    /// PertAlign, in [-1, 1].
    pub pert_align: f32,
    /// Mean absolute perturbation, in pixel units.
    pub delta_mean: f32,
}

/// What a step hands to the loop.
#[derive(Debug)]
pub struct StepOutput {
    /// Gradient of each parameter, flat.
    pub gradients: Vec<Tensor<1>>,
    /// The perturbation trained on, `[N, C, H, W]`.
    pub delta: Tensor<4>,
    /// Gradient with respect to the training point, `[N, C, H, W]`.
    pub input_gradient: Tensor<4>,
    /// Logits at the training point.
    pub logits: Tensor<2>,
    /// Figures to log.
    pub metrics: StepMetrics,
}

impl StepOutput {
    fn with_alpha(mut self, alpha: f32) -> Self {
        self.metrics.alpha = alpha;
        self
    }
}

/// A training method with its state.
pub trait Method: Debug + Send {
    /// One step on `batch`: the gradient to apply and the figures to log.
    ///
    /// # Errors
    /// A device that fails.
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput>;

    /// State that a checkpoint keeps; empty for a method without one.
    fn state(&self) -> Vec<HostTensor> {
        Vec::new()
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// A checkpoint of another method.
    fn load_state(&mut self, _state: &BTreeMap<String, HostTensor>) -> Result<()> {
        Ok(())
    }
}

/// One row of the registry.
#[derive(Debug)]
pub struct MethodInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `sora methods`.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms it is defined for.
    pub norms: &'static [Norm],
    /// Passes of one step with default options.
    pub passes: Passes,
    /// The largest |delta| (l-inf) or ||delta||_2 (l2) of a training example, in epsilons, with default options.
    pub bound: f32,
    /// Every option with its default.
    pub options: fn() -> Result<Options>,
    build: fn(&Options, Threat) -> Result<Box<dyn Method>>,
}

const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];

const fn passes(attack: u64) -> Passes {
    Passes { forward: attack + 1, backward_input: attack, backward_full: 1 }
}

/// Every method, in the order of `sora methods`.
pub const METHODS: &[MethodInfo] = &[
    MethodInfo {
        name: "none",
        summary: "standard training on clean images",
        source: "-",
        norms: BOTH,
        passes: passes(0),
        bound: 0.0,
        options: Options::none,
        build: |options, _| options.expect_none("none").map(|()| Box::new(none::Standard) as _),
    },
    MethodInfo {
        name: "fgsm",
        summary: "one step of size epsilon along the gradient's sign; suffers catastrophic overfitting",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: &[Norm::Linf],
        passes: passes(1),
        bound: 1.0,
        options: Options::none,
        build: |options, _| options.expect_none("fgsm").map(|()| Box::new(fgsm::Fgsm) as _),
    },
    MethodInfo {
        name: "fgm",
        summary: "one step of length epsilon along the gradient",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: &[Norm::L2],
        passes: passes(1),
        bound: 1.0,
        options: Options::none,
        build: |options, _| options.expect_none("fgm").map(|()| Box::new(fgm::Fgm) as _),
    },
    MethodInfo {
        name: "fgsm-rs",
        summary: "random start in the ball, one step of 1.25 epsilon, projected on the ball",
        source: "Wong et al. 2020, arXiv 2001.03994",
        norms: &[Norm::Linf],
        passes: passes(1),
        bound: 1.0,
        options: fgsm_rs::FgsmRs::options,
        build: |options, _| Ok(Box::new(options.parse::<fgsm_rs::FgsmRs>("fgsm-rs")?)),
    },
    MethodInfo {
        name: "n-fgsm",
        summary: "random start in twice the ball, one step of epsilon, no projection",
        source: "de Jorge et al. 2022, arXiv 2202.01181",
        norms: &[Norm::Linf],
        passes: passes(1),
        bound: 3.0,
        options: n_fgsm::NFgsm::options,
        build: |options, _| Ok(Box::new(options.parse::<n_fgsm::NFgsm>("n-fgsm")?)),
    },
    MethodInfo {
        name: "pgd",
        summary: "random start, 10 steps of epsilon/4, projected on the ball",
        source: "Madry et al. 2018, arXiv 1706.06083",
        norms: BOTH,
        passes: passes(10),
        bound: 1.0,
        options: || Options::of(&pgd::Pgd::ten()),
        build: |options, _| Ok(Box::new(options.parse::<pgd::Pgd>("pgd")?.check()?)),
    },
    MethodInfo {
        name: "pgd-2",
        summary: "random start, 2 steps of epsilon/2, projected on the ball",
        source: "Madry et al. 2018, arXiv 1706.06083",
        norms: BOTH,
        passes: passes(2),
        bound: 1.0,
        options: || Options::of(&pgd::Pgd::two()),
        build: |options, _| Ok(Box::new(options.parse::<pgd::Pgd>("pgd-2")?.check()?)),
    },
    MethodInfo {
        name: "sora",
        summary: "random start, one step whose size follows a free second-order estimate and is drawn anew for each pixel",
        source: "SORA 2026, arXiv 2606.00738",
        norms: BOTH,
        passes: passes(1),
        bound: 3.0,
        options: sora::SoraOptions::options,
        build: |options, threat| Ok(Box::new(sora::Sora::new(options.parse("sora")?, threat)?)),
    },
];

/// The registry row of `name`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn method(name: &str) -> Result<&'static MethodInfo> {
    METHODS.iter().find(|info| info.name == name).ok_or_else(|| {
        let known: Vec<_> = METHODS.iter().map(|info| info.name).collect();
        Error::input(format!("--method '{name}': no such method; choose one of {}", known.join(", ")))
    })
}

impl MethodInfo {
    /// Builds the method; `options` must hold every option (start from [`options`](Self::options)).
    ///
    /// # Errors
    /// A norm the method is not defined for, or a wrong option.
    pub fn build(&self, options: &Options, threat: Threat) -> Result<Box<dyn Method>> {
        if !self.norms.contains(&threat.norm) {
            let other = METHODS.iter().filter(|m| m.norms.contains(&threat.norm)).map(|m| m.name).collect::<Vec<_>>();
            return Err(Error::input(format!(
                "--method {} is not defined for --norm {}; with that norm choose one of {}",
                self.name,
                threat.norm,
                other.join(", ")
            )));
        }
        (self.build)(options, threat)
    }
}

/// `x + delta` back inside [0, 1] after every step of a method.
fn boxed(batch: &Batch, delta: Tensor<4>) -> Tensor<4> {
    clamp_to_box(&batch.x, delta)
}
