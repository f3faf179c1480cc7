//! The only place that runs a backward pass.

use burn::tensor::{Int, Tensor};

use crate::{
    loss::cross_entropy,
    model::Model,
    nn::{BatchStats, BnMode},
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

/// Gradient of `loss(logits)` with respect to the pixels `x` `[N, C, H, W]`; no weight gradient is computed.
pub fn input_gradient(model: &Model, x: Tensor<4>, mode: BnMode, loss: impl FnOnce(Tensor<2>) -> Tensor<1>) -> InputGradient {
    let x = x.autodiff().require_grad();
    let (logits, stats) = model.forward(&model.params.frozen(), x.clone(), mode);
    let value = loss(logits.clone());
    let mut gradients = value.backward();
    let grad = x.grad_remove(&mut gradients).unwrap_or_else(|| x.clone().inner().zeros_like());
    InputGradient { grad, loss: value.inner(), logits: logits.inner(), stats }
}

/// What a training pass yields.
#[derive(Debug)]
pub struct TrainGradient {
    /// Gradient of each parameter, flat, in the order of the model's parameters.
    pub params: Vec<Tensor<1>>,
    /// Gradient with respect to the training point's pixels, `[N, C, H, W]`: it comes with the backward pass, free.
    pub input: Tensor<4>,
    /// The mean loss, `[1]`.
    pub loss: Tensor<1>,
    /// Logits at the training point, `[N, K]`.
    pub logits: Tensor<2>,
    /// Batch statistics of the pass.
    pub stats: Vec<BatchStats>,
}

/// Mean cross-entropy at the pixels `x` in training mode, with the gradients of the parameters and of `x`.
pub fn train_gradient(model: &Model, x: Tensor<4>, labels: Tensor<1, Int>) -> TrainGradient {
    let x = x.autodiff().require_grad();
    let weights = model.params.tracked();
    let (logits, stats) = model.forward(&weights, x.clone(), BnMode::Train);
    let loss = cross_entropy(logits.clone(), labels);
    let mut gradients = loss.backward();
    let input = x.grad_remove(&mut gradients).unwrap_or_else(|| x.clone().inner().zeros_like());
    TrainGradient { params: weights.gradients(&mut gradients), input, loss: loss.inner(), logits: logits.inner(), stats }
}
