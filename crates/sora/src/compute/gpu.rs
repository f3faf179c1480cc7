//! GPUs as a [`Compute`]: passes are recorded and replayed, and the work outside the network is few
//! kernels and one read-back.

use burn::tensor::{Device, Int, Tensor, activation::log_softmax};
use sora_devices::update;
use sora_kernels::sgd::Sgd;

use super::{
    Awaited, Compute, FigureInputs, LossAt, Number, SignStep, StepFigures,
    awaited::ask,
    burn_ops,
    gradient::{InputGradient, TrainGradient},
    read_back::Layout,
    recorded,
};
use crate::{
    error::Result,
    nn::{Backend, TensorSet, updates},
    ranks::scope,
    threat::Norm,
};

/// Any device of Burn's besides the CPU.
#[derive(Debug)]
pub(super) struct Gpu;

impl Compute for Gpu {
    fn layers(&self) -> Backend {
        Backend::Burn
    }

    fn input_gradient(&self, loss: LossAt<'_>) -> InputGradient {
        recorded::input_gradient(loss)
    }

    fn training_gradient(&self, loss: LossAt<'_>) -> TrainGradient {
        recorded::training_gradient(loss)
    }

    fn sign_step(&self, step: SignStep<'_>) -> Tensor<4> {
        burn_ops::sign_step(self, step)
    }

    fn clamp_to_box(&self, x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
        burn_ops::clamp_to_box(x, delta)
    }

    fn cross_entropy(
        &self,
        logits: Tensor<2>,
        labels: Tensor<1, Int>,
        smoothing: f32,
    ) -> Tensor<1> {
        let n = logits.dims()[0];
        let log = log_softmax(logits, 1);
        let hard = log.clone().gather(1, labels.reshape([n, 1])).reshape([n]).neg();
        if smoothing == 0.0 {
            return hard;
        }
        hard * (1.0 - smoothing) - log.mean_dim(1).reshape([n]) * smoothing
    }

    fn figures(&self, step: &FigureInputs<'_>) -> Result<StepFigures> {
        figures(step)
    }

    fn kept(&self, number: f32, device: &Device) -> Number {
        let number = Number::Known(number);
        // Processes that share a step know its figures at once.
        if scope::world() > 1 { number } else { Number::OnDevice(number.tensor(device)) }
    }

    fn sgd_update(
        &self,
        rule: &Sgd,
        params: &mut TensorSet,
        momenta: &mut TensorSet,
        gradients: Vec<Tensor<1>>,
    ) {
        let Sgd { learning_rate, momentum, weight_decay, nesterov } = *rule;
        let rule = update::Sgd { learning_rate, momentum, weight_decay, nesterov };
        for (index, gradient) in gradients.into_iter().enumerate() {
            let [value, buffer] =
                updates::sgd([params.take(index), momenta.take(index), gradient], rule);
            params.set(index, value);
            momenta.set(index, buffer);
        }
    }
}

/// The figures of a step. The device computes the sums over each sample; these, the logits and the
/// labels are little, and the rest takes place on the host when they have come.
fn figures(step: &FigureInputs<'_>) -> Result<StepFigures> {
    let FigureInputs { norm, attack, train, delta, logits, attacked, labels, loss } = *step;
    let along_sign = norm == Norm::Linf;
    let sums = updates::figure_sums([attack, train, delta].map(Tensor::clone), along_sign);
    let flat = |t: Tensor<2>| {
        let [rows, columns] = t.dims();
        t.reshape([rows * columns])
    };
    let mut parts =
        vec![loss.clone(), labels.clone().float(), flat(sums.clone()), flat(logits.clone())];
    parts.extend(attacked.cloned().map(flat));
    let ([n, classes], [_, c, h, w]) = (logits.dims(), attack.dims());
    let layout = Layout { n, classes, len: c * h * w, along_sign, attacked: attacked.is_some() };
    let asked = ask(Tensor::cat(parts, 0));
    let figures = Awaited::coming(move || layout.figures(&asked()?));
    if scope::world() > 1 {
        // The ranks take sums of them, all at the same place in the step.
        return Ok(StepFigures { figures: Awaited::Known(figures.wait()?), linearity: None });
    }
    Ok(StepFigures { figures, linearity: Some(updates::linearity(sums, along_sign)) })
}
