//! Passes that Burn's autodiff records; no other module runs a backward pass.

use burn::tensor::{Int, Tensor};

use super::{LossAt, of};
use crate::{
    model::Model,
    nn::{BatchStats, BnMode, Weights},
    profile::{self, Stage},
    ranks::scope,
};

/// Gradient of a loss with respect to the input.
#[derive(Debug)]
pub struct InputGradient {
    /// `[N, C, H, W]`, without autodiff.
    pub grad: Tensor<4>,
    /// The loss, `[1]`.
    pub loss: Tensor<1>,
    /// Logits at the input, `[N, K]`.
    pub logits: Tensor<2>,
    /// Batch statistics of a training-mode pass.
    pub stats: Vec<BatchStats>,
}

/// Gradient of `loss(logits)` with respect to the pixels `x` `[N, C, H, W]`; no weight gradient is
/// computed.
pub fn input_gradient(
    model: &Model,
    x: Tensor<4>,
    mode: BnMode,
    loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
) -> InputGradient {
    let x = x.autodiff().require_grad();
    let (logits, stats) =
        profile::time(Stage::Network, || model.forward(&model.params.frozen(), x.clone(), mode));
    let value = profile::time(Stage::Loss, || loss(logits.clone()));
    let mut gradients = profile::time(Stage::Autodiff, || share_of(&value).backward());
    let grad = x.grad_remove(&mut gradients).unwrap_or_else(|| x.clone().inner().zeros_like());
    InputGradient { grad, loss: value.inner(), logits: logits.inner(), stats }
}

/// A recorded pass in eval mode, from which the gradient of its logits is computed.
#[derive(Debug)]
pub struct Recorded {
    x: Tensor<4>,
    logits: Tensor<2>,
}

/// Runs `model` in eval mode on the pixels `x` `[N, C, H, W]` and records the pass.
pub fn record(model: &Model, x: Tensor<4>) -> Recorded {
    let x = x.autodiff().require_grad();
    let (logits, _) = model.forward(&model.params.frozen(), x.clone(), BnMode::Eval);
    Recorded { x, logits }
}

impl Recorded {
    /// The logits, `[N, classes]`.
    pub fn logits(&self) -> Tensor<2> {
        self.logits.clone().inner()
    }

    /// For each image, the product of its row of `cotangent` `[N, classes]` with the Jacobian of
    /// its logits, `[N, C, H, W]`: the gradient of `sum(cotangent * logits)` with the cotangent
    /// held constant.
    pub fn pull_back(self, cotangent: Tensor<2>) -> Tensor<4> {
        let Self { x, logits } = self;
        let mut gradients = (logits * Tensor::from_inner(cotangent)).sum().backward();
        x.grad_remove(&mut gradients).unwrap_or_else(|| x.inner().zeros_like())
    }
}

/// The result of a training pass.
#[derive(Debug)]
pub struct TrainGradient {
    /// Gradient of each parameter, flat, in the order of the model's parameters. On a GPU the next
    /// gradient of the same network may write over them: compute with them before, or copy them.
    pub params: Vec<Tensor<1>>,
    /// Gradient with respect to the training point's pixels, `[N, C, H, W]`. The backward pass
    /// computes it at no extra cost.
    pub input: Tensor<4>,
    /// The mean loss, `[1]`.
    pub loss: Tensor<1>,
    /// Logits at the training point, `[N, K]`.
    pub logits: Tensor<2>,
    /// Batch statistics of the pass.
    pub stats: Vec<BatchStats>,
    /// Number of forward passes over a whole batch.
    pub forwards: u64,
}

/// The forward passes of one training loss. They share one set of tracked weights, so that one
/// backward pass differentiates all of them.
#[derive(Debug)]
pub struct TrainPass<'a> {
    model: &'a Model,
    weights: Weights,
    point: Tensor<4>,
    smoothing: f32,
    stats: Vec<BatchStats>,
    forwards: u64,
}

impl<'a> TrainPass<'a> {
    /// Begins a loss of `model` at the training point `x` (pixels, `[N, C, H, W]`) with the label
    /// smoothing `smoothing`, from 0 to 1.
    pub fn new(model: &'a Model, x: Tensor<4>, smoothing: f32) -> Self {
        let point = x.autodiff().require_grad();
        Self {
            model,
            weights: model.params.tracked(),
            point,
            smoothing,
            stats: Vec::new(),
            forwards: 0,
        }
    }

    /// Computes the logits at the training point, in training mode. The loss's gradient by the
    /// point goes through this pass.
    pub fn at_point(&mut self) -> Tensor<2> {
        self.run(self.point.clone())
    }

    /// Logits at other pixels `x` `[M, C, H, W]`, in training mode; M may be a multiple of the
    /// batch.
    pub fn forward(&mut self, x: Tensor<4>) -> Tensor<2> {
        self.run(x.autodiff())
    }

    /// Does what [`forward`](Self::forward) does, without moving the running statistics: for a
    /// point whose pass has moved them already.
    pub fn forward_again(&mut self, x: Tensor<4>) -> Tensor<2> {
        self.count(&x);
        profile::time(Stage::Network, || {
            self.model.forward(&self.weights, x.autodiff(), BnMode::Train).0
        })
    }

    /// Computes the logits at `x` and their derivative along `direction` (of x's shape), in `mode`,
    /// without moving the running statistics. The gradient by the weights is exact, because the
    /// derivative is carried forward through the layers and one backward pass differentiates it.
    pub fn forward_along(
        &mut self,
        x: Tensor<4>,
        direction: Tensor<4>,
        mode: BnMode,
    ) -> (Tensor<2>, Tensor<2>) {
        // The derivative costs as much as the value, so the pass counts twice.
        self.count(&x);
        self.count(&x);
        profile::time(Stage::Network, || {
            self.model.forward_along(&self.weights, x.autodiff(), direction.autodiff(), mode)
        })
    }

    /// Mean cross-entropy with the run's label smoothing, the loss for training;
    /// [`crate::loss::cross_entropy`] is the loss for attacks.
    pub fn cross_entropy(&self, logits: Tensor<2>, labels: &Tensor<1, Int>) -> Tensor<1> {
        profile::time(Stage::Loss, || mean_cross_entropy(logits, labels.clone(), self.smoothing))
    }

    /// Computes the gradients of `loss`; `logits` are the logits at the training point.
    pub fn finish(self, loss: Tensor<1>, logits: Tensor<2>) -> TrainGradient {
        let Self { weights, point, stats, forwards, .. } = self;
        // Weights of a pass through the network that is the only one have their gradients from it
        // alone: each is complete when that layer's backward pass is.
        if forwards == 1 {
            scope::begin_pass();
        }
        let (params, input) = profile::time(Stage::Autodiff, || {
            let mut gradients = share_of(&loss).backward();
            let input = point
                .grad_remove(&mut gradients)
                .unwrap_or_else(|| point.clone().inner().zeros_like());
            (weights.gradients(&mut gradients), input)
        });
        let params = scope::end_of_pass(params, weights.versions());
        TrainGradient { params, input, loss: loss.inner(), logits: logits.inner(), stats, forwards }
    }

    fn run(&mut self, x: Tensor<4>) -> Tensor<2> {
        self.count(&x);
        let (logits, stats) =
            profile::time(Stage::Network, || self.model.forward(&self.weights, x, BnMode::Train));
        self.stats.extend(stats);
        logits
    }

    fn count(&mut self, x: &Tensor<4>) {
        self.forwards += x.dims()[0].div_ceil(self.point.dims()[0]) as u64;
    }
}

/// Mean cross-entropy at the pixels `x` in training mode, with the gradients by the parameters and
/// by `x`.
pub fn train_gradient(model: &Model, x: Tensor<4>, labels: Tensor<1, Int>) -> TrainGradient {
    let loss = LossAt { model, x, labels, mode: BnMode::Train, smoothing: 0.0 };
    of(model.device()).training_gradient(loss)
}

/// Computes the gradient of a mean cross-entropy by the pixels with autodiff.
pub(super) fn recorded_input_gradient(loss: LossAt<'_>) -> InputGradient {
    let LossAt { model, x, labels, mode, smoothing } = loss;
    input_gradient(model, x, mode, |logits| mean_cross_entropy(logits, labels, smoothing))
}

/// Computes the gradients of a mean cross-entropy by the parameters and the pixels with autodiff.
pub(super) fn recorded_training_gradient(loss: LossAt<'_>) -> TrainGradient {
    let LossAt { model, x, labels, smoothing, .. } = loss;
    let mut pass = TrainPass::new(model, x, smoothing);
    let logits = pass.at_point();
    let loss = pass.cross_entropy(logits.clone(), &labels);
    pass.finish(loss, logits)
}

/// What a mean over this rank's images adds to the mean over the whole batch: its gradients add up
/// over the ranks.
fn share_of(loss: &Tensor<1>) -> Tensor<1> {
    match scope::world() {
        1 => loss.clone(),
        world => loss.clone().div_scalar(world as f32),
    }
}

fn mean_cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>, smoothing: f32) -> Tensor<1> {
    of(&logits.device()).cross_entropy(logits, labels, smoothing).mean()
}
