//! The CPU engine as a [`Compute`]: one pass over memory for each operation.

use burn::tensor::{Int, Tensor};
use sora_kernels::sgd::Sgd;

use super::{Awaited, Compute, FigureInputs, Number, SignStep, StepFigures, burn_ops};
use crate::{
    error::Result,
    nn::{self, Backend, TensorSet, to_vec},
    threat::Norm,
};

/// The kernels of this workspace, on the CPU.
#[derive(Debug)]
pub(super) struct CpuEngine;

impl Compute for CpuEngine {
    fn layers(&self) -> Backend {
        Backend::Engine
    }

    fn sign_step(&self, step: SignStep<'_>) -> Tensor<4> {
        let whole = step.factor.as_ref().is_none_or(|factor| factor.dims() == step.grad.dims());
        match step.alpha {
            Number::Known(alpha) if whole => nn::sign_step(step, alpha),
            _ => burn_ops::sign_step(self, step),
        }
    }

    fn clamp_to_box(&self, x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
        if x.dims() == delta.dims() {
            nn::clamp_to_box(x, delta)
        } else {
            burn_ops::clamp_to_box(x, delta)
        }
    }

    fn moved(&self, x: &Tensor<4>, delta: &Tensor<4>) -> Tensor<4> {
        if x.dims() == delta.dims() { nn::moved(x, delta) } else { x.clone() + delta.clone() }
    }

    fn cross_entropy(
        &self,
        logits: Tensor<2>,
        labels: Tensor<1, Int>,
        smoothing: f32,
    ) -> Tensor<1> {
        nn::cross_entropy(logits, labels, smoothing)
    }

    fn figures(&self, step: &FigureInputs<'_>) -> Result<StepFigures> {
        let scalars = to_vec(&Tensor::cat(burn_ops::of_logits(self, step), 0))?;
        let along_sign = step.norm == Norm::Linf;
        let agreement = nn::agreement(along_sign, step.attack, step.train, step.delta);
        let figures = Awaited::Known(burn_ops::named(&scalars, agreement)?);
        Ok(StepFigures { figures, linearity: None })
    }

    fn sgd_update(
        &self,
        rule: &Sgd,
        params: &mut TensorSet,
        momenta: &mut TensorSet,
        gradients: Vec<Tensor<1>>,
    ) {
        for (index, gradient) in gradients.into_iter().enumerate() {
            let (value, momentum) = (params.take(index), momenta.take(index));
            let [value, momentum] = nn::sgd_step(rule, value, momentum, gradient);
            params.set(index, value);
            momenta.set(index, momentum);
        }
    }
}
