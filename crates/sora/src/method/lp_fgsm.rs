//! lp-FGSM: a norm for each image (Mehouachi and Jabari 2025, "lp-FGSM: an lp norm solution to
//! catastrophic overfitting in fast adversarial training", arXiv 2505.02360; in its adaptive form,
//! NeurIPS 2025 workshop on reliable machine learning).
//!
//! `delta = box(eps sign g (|g| / ||g||_q)^(q - 1))`, g at x, which is the steepest step in the lp
//! ball of radius eps with 1/p + 1/q = 1: q = 1 is FGSM, q = 2 the gradient's own direction. Each
//! image's `q = 1 + beta / (H_m - H)`, at least 1 + 1/1024 and at most 2: with `rho = |g| / ||g||_1`,
//! H is the entropy `-sum rho ln rho` and H_m the mean of `-ln rho`; a gradient that concentrates on
//! few pixels, as it does in catastrophic overfitting, gets a small gap and a q near 2.
//!
//! As in the authors' code, 1e-12 is added to |g|, and the gradient is that of the mean loss.
//! Deviation: the example is clamped to [0, 1], which the authors' training leaves out. beta is
//! 0.01 on CIFAR-10 and SVHN, 0.1 on CIFAR-100.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    options::ranges, registry::passes,
};
use crate::{error::Result, nn::BnMode, perturbation::sum_per_sample, threat::Norm};

/// The row of `lp-fgsm`.
pub static INFO: MethodInfo = MethodInfo {
    name: "lp-fgsm",
    summary: "one step of fgsm in an lp norm that each image's gradient chooses",
    source: "Mehouachi and Jabari 2025, arXiv 2505.02360",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(1),
    bound: 1.0,
    options: Options::defaults::<LpFgsm>,
    build: Options::build::<LpFgsm>,
};

/// lp-FGSM training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LpFgsm {
    /// How far the step may turn from the gradient, 0 to 1.
    pub beta: f64,
    /// The same p for every image, from 2 on; 0: each image's own.
    pub p: f64,
}

impl Default for LpFgsm {
    fn default() -> Self {
        Self { beta: 0.01, p: 0.0 }
    }
}

impl Hyperparameters for LpFgsm {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn check(&self) -> Result<()> {
        let lowest = if self.p == 0.0 { 0.0 } else { 2.0 };
        ranges([("beta", self.beta, 0.0, 1.0), ("p", self.p, lowest, 1e6)])
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

/// Added to every |g|.
const TINY: f32 = 1e-12;
/// The q of the largest p, 1024.
const LOWEST_Q: f64 = 1.0 + 1.0 / 1024.0;

impl LpFgsm {
    /// Each image's q, `[N, 1, 1, 1]`, from |g| `[N, C, H, W]`.
    fn q(&self, size: &Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = size.dims();
        if self.p > 0.0 {
            let q = self.p / (self.p - 1.0);
            return Tensor::full([n, 1, 1, 1], q as f32, &size.device());
        }
        let rho = size.clone() / sum_per_sample(size.clone());
        let log = rho.clone().log();
        let mean = sum_per_sample(log.clone()) / (c * h * w) as f32;
        // H_m - H, which is not negative, and 0 where all entries are equal.
        let gap = sum_per_sample(rho * log) - mean;
        (gap.clamp_min(1e-9).recip() * self.beta as f32 + 1.0).clamp(LOWEST_Q as f32, 2.0)
    }

    /// `sign g (|g| / ||g||_q)^(q - 1)`.
    fn direction(&self, grad: Tensor<4>) -> Tensor<4> {
        let size = grad.clone().abs() + TINY;
        let q = self.q(&size);
        // The entries are divided by the largest, so that no power leaves f32's range.
        let [n, c, h, w] = size.dims();
        let largest = size.clone().reshape([n, c * h * w]).max_dim(1).reshape([n, 1, 1, 1]);
        let log = (size / largest).log();
        let norm = sum_per_sample((log.clone() * q.clone()).exp()).log() / q.clone();
        grad.sign() * ((log - norm) * (q - 1.0)).exp()
    }
}

impl Method for LpFgsm {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let alpha = cx.threat.epsilon;
        let delta = batch.clamp_to_box(self.direction(grad.clone()) * alpha);
        Ok(cx.train(batch, delta, Some(grad))?.with_alpha(alpha))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::nn::to_vec;

    fn direction(options: LpFgsm, grad: &[f32]) -> Vec<f32> {
        let data = TensorData::new(grad.to_vec(), [1, 1, 1, grad.len()]);
        to_vec(&options.direction(Tensor::from_data(data, &Device::flex()))).unwrap()
    }

    #[test]
    fn p_2_is_the_gradient_and_large_p_its_sign() {
        let grad = [3.0, -4.0, 0.0, 1e-3];
        let two = direction(LpFgsm { p: 2.0, ..LpFgsm::default() }, &grad);
        for (found, g) in two.iter().zip(grad) {
            assert!((found - g / 5.0).abs() < 1e-5, "{two:?}");
        }
        let large = direction(LpFgsm { p: 1e6, ..LpFgsm::default() }, &grad);
        for (found, g) in large.iter().zip([1.0, -1.0, 0.0, 1.0]) {
            assert!((found - g).abs() < 1e-4, "{large:?}");
        }
    }

    #[test]
    fn every_step_has_the_length_epsilon_in_its_own_norm() {
        let grad: Vec<f32> = (1..=64).map(|k| (k as f32 * 1.7).sin() * 1e-20).collect();
        for p in [2.0f64, 3.0, 8.0, 100.0] {
            let step = direction(LpFgsm { p, ..LpFgsm::default() }, &grad);
            let norm = step.iter().map(|v| f64::from(v.abs()).powf(p)).sum::<f64>().powf(1.0 / p);
            // 1e-12 is large compared with these gradients, so all entries count as equal.
            assert!((norm - 1.0).abs() < 1e-4, "{p}: {norm}");
        }
    }

    #[test]
    fn a_concentrated_gradient_gets_a_smaller_norm() {
        let q = |grad: Vec<f32>| {
            let len = grad.len();
            let size =
                Tensor::<4>::from_data(TensorData::new(grad, [1, 1, 1, len]), &Device::flex());
            to_vec(&LpFgsm { beta: 0.1, p: 0.0 }.q(&(size + TINY))).unwrap()[0]
        };
        let mixed = |small: f32| (0..64).map(|k| if k % 8 == 0 { 1.0 } else { small }).collect();
        assert_eq!(q(vec![0.3; 64]), 2.0, "no gap at all");
        let (near, far) = (q(mixed(0.5)), q(mixed(0.01)));
        assert!(near > far && far > 1.0, "{near} {far}");
    }
}
