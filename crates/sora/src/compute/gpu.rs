//! GPUs as a [`Compute`]: passes are recorded and replayed, and the work outside the network is few
//! kernels and one read-back.

use burn::tensor::{Int, Tensor, activation::log_softmax};
use sora_devices::{figures::SUMS, update};
use sora_kernels::sgd::Sgd;

use super::{
    Compute, FigureInputs, Figures, LossAt, SampleSums, SignStep, burn_ops,
    gradient::{InputGradient, TrainGradient},
    read_back::{cross_entropy, largest, of_sample},
    recorded,
};
use crate::{
    error::{Error, Result},
    nn::{Backend, TensorSet, to_vec, updates},
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

    fn figures(&self, step: &FigureInputs<'_>) -> Result<Figures> {
        figures(step)
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

/// The figures of a step. The sums over each sample, the logits and the labels come back at once; the
/// rest is little and takes place here.
fn figures(step: &FigureInputs<'_>) -> Result<Figures> {
    let FigureInputs { norm, attack, train, delta, logits, attacked, labels, loss } = *step;
    let along_sign = norm == Norm::Linf;
    let sums = updates::figure_sums([attack, train, delta].map(Tensor::clone), along_sign);
    let [n, classes] = logits.dims();
    let flat = |t: Tensor<2>| {
        let [rows, columns] = t.dims();
        t.reshape([rows * columns])
    };
    let mut parts = vec![loss.clone(), labels.clone().float(), flat(sums), flat(logits.clone())];
    parts.extend(attacked.cloned().map(flat));
    let read = to_vec(&Tensor::cat(parts, 0))?;
    let (&loss, rest) = read.split_first().ok_or_else(|| Error::defect("a step without a loss"))?;
    let (labels, rest) = rest.split_at(n);
    let (sums, rest) = rest.split_at(n * SUMS);
    let (logits, attacked) = rest.split_at(n * classes);

    let [_, c, h, w] = attack.dims();
    let samples: Vec<_> = sums.chunks_exact(SUMS).map(|sums| of_sample(sums, along_sign)).collect();
    let label = |sample: usize| labels[sample] as usize;
    let row = |logits: &[f32], sample: usize| logits[sample * classes..][..classes].to_vec();
    let share = |holds: &dyn Fn(usize) -> bool| {
        (0..n).filter(|&sample| holds(sample)).count() as f32 / n.max(1) as f32
    };
    Ok(Figures {
        loss,
        accuracy: share(&|sample| largest(&row(logits, sample)) == label(sample)),
        abnormal: (!attacked.is_empty()).then(|| {
            share(&|sample| {
                let loss = |logits| cross_entropy(&row(logits, sample), label(sample));
                loss(logits) < loss(attacked)
            })
        }),
        agreement: SampleSums::agreement(&samples, c * h * w),
    })
}
