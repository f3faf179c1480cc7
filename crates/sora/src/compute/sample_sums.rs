//! The figures of a step from sums over each of its samples.

use super::Agreement;
use crate::ranks::scope;

/// Sums over the values of one sample, with `a` and `t` for the gradients of the attack pass and of
/// the training pass, and `s` for the direction of the step: the sign of `a`, or `a` itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SampleSums {
    /// Of `a a`.
    pub attack: f64,
    /// Of `t t`.
    pub train: f64,
    /// Of `a t`.
    pub dot: f64,
    /// Of `s t`.
    pub top: f64,
    /// Of `s a`.
    pub bottom: f64,
    /// Of the absolute perturbation.
    pub delta: f64,
}

impl SampleSums {
    /// The agreement of a batch, of which this process has `samples` of `len` values each.
    pub(crate) fn agreement(samples: &[Self], len: usize) -> Agreement {
        let tiny = f64::from(f32::MIN_POSITIVE);
        let sum = |figure: &dyn Fn(&Self) -> f64| samples.iter().map(figure).sum::<f64>();
        let mut sums = [
            sum(&|s| s.dot / (s.attack.sqrt().max(tiny) * s.train.sqrt().max(tiny))),
            sum(&|s| s.top / s.bottom.max(1e-12)),
            sum(&|s| s.delta / len as f64),
            sum(&|s| s.top),
            sum(&|s| s.bottom),
            sum(&|s| s.train.sqrt()),
            sum(&|s| s.attack.sqrt()),
            samples.len() as f64,
        ];
        scope::sum_values(&mut sums);
        let [pert_align, linearity, delta_mean, top, bottom, train, attack, n] = sums;
        let mean = |sum: f64| (sum / n.max(1.0)) as f32;
        let ratio = |top: f64, bottom: f64| (top / bottom.max(tiny)) as f32;
        Agreement {
            pert_align: mean(pert_align),
            linearity: mean(linearity),
            linearity_of_sums: ratio(top, bottom),
            grad_ratio: ratio(train, attack),
            delta_mean: mean(delta_mean),
        }
    }
}
