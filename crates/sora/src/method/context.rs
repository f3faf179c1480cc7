//! What a method is given for a step, and the passes that it makes with it.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{StepMetrics, StepOutput};
use crate::{
    compute::{self, FigureInputs, LossAt, StepFigures},
    data::AugmentDraw,
    error::{Error, Result},
    gradient::{self, InputGradient, TrainGradient, TrainPass},
    model::Model,
    nn::{BnMode, TensorSet},
    noise::Noise,
    optim::Velocity,
    perturbation::clamp_to_box,
    profile::{self, Stage},
    threat::Threat,
};

/// A batch of images and labels on the device.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    /// Pixels in [0, 1], `[N, C, H, W]`.
    pub x: Tensor<4>,
    /// Classes, `[N]`.
    pub labels: Tensor<1, Int>,
    /// Index of each sample in the training split.
    pub ids: Vec<u32>,
    /// The augmentation's draws for each sample, `[N]`.
    pub draws: Vec<AugmentDraw>,
}

impl TrainBatch {
    /// `delta`, `[N, C, H, W]`, clamped so that `x + delta` stays in [0, 1]. Every perturbation
    /// ends with this clamp.
    pub fn clamp_to_box(&self, delta: Tensor<4>) -> Tensor<4> {
        clamp_to_box(&self.x, delta)
    }

    /// The images moved by `delta`, `[N, C, H, W]`.
    pub fn at(&self, delta: &Tensor<4>) -> Tensor<4> {
        compute::of(&self.x.device()).moved(&self.x, delta)
    }
}

/// Numbers of forward and backward passes of the whole network over one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// Forward passes.
    pub forward: u64,
    /// Backward passes to the input only.
    pub backward_input: u64,
    /// Backward passes to weights and input.
    pub backward_full: u64,
}

impl std::ops::AddAssign for Passes {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.backward_input += other.backward_input;
        self.backward_full += other.backward_full;
    }
}

impl Passes {
    /// Cost relative to standard training. A pass to the input only costs as much as a forward
    /// pass, and a pass to weights and input twice as much.
    pub fn relative_cost(&self) -> f64 {
        (self.forward + self.backward_input + 2 * self.backward_full) as f64 / 3.0
    }
}

/// Additions to the training loss that work with any method; all are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extras {
    /// Label smoothing of the training loss's cross-entropy, in [0, 1] (Szegedy et al. 2016, arXiv
    /// 1512.00567); attacks use the hard labels.
    pub label_smoothing: f32,
    /// Adversarial weight perturbation (Wu et al. 2020, arXiv 2004.05884). The training pass runs
    /// at weights that are moved by this fraction of their norm along the gradient of the training
    /// loss, tensor by tensor; batch norm and biases are not moved. It costs one more training pass
    /// per step; 0 turns it off.
    pub awp: f32,
}

/// The place of a step in the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Step, from 0.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
}

/// The settings of the run that apply to a step.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// Norm and epsilon.
    pub threat: Threat,
    /// Batch-norm mode of the attack pass.
    pub attack_bn: BnMode,
    /// Place of the step in the run.
    pub place: Place,
    /// Additions to the training loss.
    pub extras: Extras,
}

/// The network, the settings and the tools of a method during one step.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The network; every training-mode pass moves its running statistics.
    pub model: &'a mut Model,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Batch-norm mode of the attack pass.
    pub attack_bn: BnMode,
    /// Random draws of this step.
    pub noise: &'a mut Noise,
    /// Place of the step in the run.
    pub place: Place,
    /// Number of passes made in this step.
    pub passes: Passes,
    /// Additions to the training loss.
    pub extras: Extras,
    /// Logits of the last attack pass, without autodiff.
    attacked: Option<Tensor<2>>,
    /// The optimizer's momentum before the step; `None` if the optimizer has none.
    pub velocity: Option<Velocity<'a>>,
}

impl<'a> StepContext<'a> {
    /// Begins a step of `model` with the draws `noise`.
    pub fn new(model: &'a mut Model, noise: &'a mut Noise, settings: StepSettings) -> Self {
        let StepSettings { threat, attack_bn, place, extras } = settings;
        let passes = Passes::default();
        Self {
            model,
            threat,
            attack_bn,
            noise,
            place,
            passes,
            extras,
            attacked: None,
            velocity: None,
        }
    }
}

impl StepContext<'_> {
    /// Computes the gradient of the mean cross-entropy by the pixels `x`, in the run's batch-norm
    /// mode.
    pub fn input_gradient(&mut self, x: Tensor<4>, labels: &Tensor<1, Int>) -> InputGradient {
        let loss = LossAt {
            model: self.model,
            x,
            labels: labels.clone(),
            mode: self.attack_bn,
            smoothing: 0.0,
        };
        let out = compute::of(self.model.device()).input_gradient(loss);
        self.attacked(out)
    }

    /// Computes the gradient of `loss(logits)` by the pixels `x`, in the run's batch-norm mode.
    ///
    /// # Errors
    /// Those of `loss`.
    pub fn input_gradient_of(
        &mut self,
        x: Tensor<4>,
        loss: impl FnOnce(Tensor<2>) -> Result<Tensor<1>>,
    ) -> Result<InputGradient> {
        let mut failed = None;
        let out = gradient::input_gradient(self.model, x, self.attack_bn, |logits| {
            loss(logits.clone()).unwrap_or_else(|e| {
                failed = Some(e);
                logits.mean()
            })
        });
        let out = self.attacked(out);
        failed.map_or(Ok(out), Err)
    }

    /// Counts an attack pass and keeps its statistics.
    fn attacked(&mut self, mut out: InputGradient) -> InputGradient {
        self.model.absorb(std::mem::take(&mut out.stats));
        self.passes.forward += 1;
        self.passes.backward_input += 1;
        self.attacked = Some(out.logits.clone());
        out
    }

    /// Computes the gradients of the mean cross-entropy by the weights and the pixels `x`, in
    /// training mode.
    pub fn weight_gradient(&mut self, x: Tensor<4>, labels: &Tensor<1, Int>) -> TrainGradient {
        let loss = LossAt {
            model: self.model,
            x,
            labels: labels.clone(),
            mode: BnMode::Train,
            smoothing: 0.0,
        };
        let mut out = compute::of(self.model.device()).training_gradient(loss);
        self.model.absorb(std::mem::take(&mut out.stats));
        self.passes.forward += 1;
        self.passes.backward_full += 1;
        self.attacked = Some(out.logits.clone());
        out
    }

    /// Computes the logits at the pixels `x` without any gradient, in the run's batch-norm mode.
    pub fn logits(&mut self, x: Tensor<4>) -> Tensor<2> {
        self.logits_in(x, self.attack_bn)
    }

    /// Computes the logits as [`logits`](Self::logits) does, in `mode`.
    pub fn logits_in(&mut self, x: Tensor<4>, mode: BnMode) -> Tensor<2> {
        let (logits, stats) = profile::time(Stage::Network, || {
            self.model.forward(&self.model.params.frozen(), x, mode)
        });
        self.model.absorb(stats);
        self.passes.forward += 1;
        logits
    }

    /// Trains on `x + delta` with the mean cross-entropy. `attack_grad` is the gradient of the last
    /// attack pass; `None` without an attack pass.
    ///
    /// # Errors
    /// [`Error`] when a device fails.
    pub fn train(
        &mut self,
        batch: &TrainBatch,
        delta: Tensor<4>,
        attack_grad: Option<Tensor<4>>,
    ) -> Result<StepOutput> {
        let smoothing = self.extras.label_smoothing;
        self.train_by(batch, delta, attack_grad, |model, point| {
            let (x, labels) = (point.clone(), batch.labels.clone());
            let loss = LossAt { model, x, labels, mode: BnMode::Train, smoothing };
            Ok(compute::of(model.device()).training_gradient(loss))
        })
    }

    /// Trains on a loss of the method's own. `loss` makes its forward passes and returns the loss
    /// `[1]` and the logits at the training point `x + delta`. With weight perturbation `loss` is
    /// called twice, so it must not change the method's state.
    ///
    /// # Errors
    /// Those of `loss`, and [`Error`] when a device fails.
    pub fn train_with(
        &mut self,
        batch: &TrainBatch,
        delta: Tensor<4>,
        attack_grad: Option<Tensor<4>>,
        mut loss: impl FnMut(&mut TrainPass<'_>) -> Result<(Tensor<1>, Tensor<2>)>,
    ) -> Result<StepOutput> {
        let smoothing = self.extras.label_smoothing;
        self.train_by(batch, delta, attack_grad, |model, point| {
            let mut pass = TrainPass::new(model, point.clone(), smoothing);
            let (loss, logits) = loss(&mut pass)?;
            Ok(pass.finish(loss, logits))
        })
    }

    /// Trains with the gradient that `gradient` computes of a model at the training point. With
    /// weight perturbation `gradient` is called twice.
    fn train_by(
        &mut self,
        batch: &TrainBatch,
        delta: Tensor<4>,
        attack_grad: Option<Tensor<4>>,
        mut gradient: impl FnMut(&Model, &Tensor<4>) -> Result<TrainGradient>,
    ) -> Result<StepOutput> {
        let point = batch.at(&delta);
        let mut gradient = |model: &Model, passes: &mut Passes| {
            let out = gradient(model, &point)?;
            passes.forward += out.forwards;
            passes.backward_full += out.forwards;
            Ok::<_, Error>(out)
        };
        let mut out = if self.extras.awp > 0.0 {
            let uphill = gradient(self.model, &mut self.passes)?.params;
            let moved = perturbed_weights(&self.model.params, &uphill, self.extras.awp);
            let kept = std::mem::replace(&mut self.model.params, moved);
            let out = gradient(self.model, &mut self.passes);
            self.model.params = kept;
            out?
        } else {
            gradient(self.model, &mut self.passes)?
        };
        self.model.absorb(std::mem::take(&mut out.stats));

        let StepFigures { figures, linearity } = profile::time(Stage::Metrics, || {
            self.figures(&out, batch, &delta, attack_grad.as_ref().unwrap_or(&out.input))
        })?;
        Ok(StepOutput {
            gradients: out.params,
            delta,
            input_gradient: out.input,
            logits: out.logits,
            metrics: figures.map(StepMetrics::of),
            linearity,
        })
    }

    /// Computes the figures of a step that trained with `out` at `delta` after an attack with the
    /// gradient `attack`.
    fn figures(
        &self,
        out: &TrainGradient,
        batch: &TrainBatch,
        delta: &Tensor<4>,
        attack: &Tensor<4>,
    ) -> Result<StepFigures> {
        compute::of(self.model.device()).figures(&FigureInputs {
            loss: &out.loss,
            logits: &out.logits,
            attacked: self.attacked.as_ref(),
            labels: &batch.labels,
            norm: self.threat.norm,
            attack,
            train: &out.input,
            delta,
        })
    }
}

/// Moves every tensor of more than one dimension to `w + gamma ||w|| g / ||g||`.
fn perturbed_weights(params: &TensorSet, gradients: &[Tensor<1>], gamma: f32) -> TensorSet {
    let mut moved = params.clone();
    for (index, (spec, (value, gradient))) in
        params.specs().iter().zip(params.values().iter().zip(gradients)).enumerate()
    {
        if spec.shape.len() > 1 {
            let norm = |t: &Tensor<1>| t.clone().square().sum().sqrt();
            let length = norm(value) * gamma / norm(gradient).clamp_min(1e-12);
            moved.set(index, value.clone() + gradient.clone() * length);
        }
    }
    moved
}
