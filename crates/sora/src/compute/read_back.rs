//! What the host computes of the figures that a GPU sends back.

use super::{Figures, SampleSums};
use crate::error::{Error, Result};

/// Sums of a sample, as `sora_devices::figures` makes them.
const SUMS: usize = 8;

/// How what a step sends back is laid out: the loss, `n` labels, the sums of each sample, the logits
/// `[n, classes]` and, after an attack pass, its logits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) n: usize,
    pub(super) classes: usize,
    /// Values of an image.
    pub(super) len: usize,
    /// Whether the direction of the step is the sign of the gradient.
    pub(super) along_sign: bool,
    pub(super) attacked: bool,
}

impl Layout {
    /// The figures in `read`.
    pub(super) fn figures(self, read: &[f32]) -> Result<Figures> {
        let Self { n, classes, len, along_sign, attacked } = self;
        let passes = if attacked { 2 } else { 1 };
        if read.len() != 1 + n * (1 + SUMS + passes * classes) {
            return Err(Error::defect("a step with figures of another size"));
        }
        let (loss, rest) = read.split_at(1);
        let (labels, rest) = rest.split_at(n);
        let (sums, rest) = rest.split_at(n * SUMS);
        let (logits, attacked) = rest.split_at(n * classes);

        let samples: Vec<_> =
            sums.chunks_exact(SUMS).map(|sums| of_sample(sums, along_sign)).collect();
        let label = |sample: usize| labels[sample] as usize;
        let row = |logits: &[f32], sample: usize| logits[sample * classes..][..classes].to_vec();
        let share = |holds: &dyn Fn(usize) -> bool| {
            (0..n).filter(|&sample| holds(sample)).count() as f32 / n.max(1) as f32
        };
        Ok(Figures {
            loss: loss[0],
            accuracy: share(&|sample| largest(&row(logits, sample)) == label(sample)),
            abnormal: (!attacked.is_empty()).then(|| {
                share(&|sample| {
                    let loss = |logits| cross_entropy(&row(logits, sample), label(sample));
                    loss(logits) < loss(attacked)
                })
            }),
            agreement: SampleSums::agreement(&samples, len),
        })
    }
}

/// The sums of a sample from those of the gradients divided by their largest absolute values.
fn of_sample(sums: &[f32], along_sign: bool) -> SampleSums {
    let [most_a, most_t, aa, tt, at, st, sa, delta] =
        std::array::from_fn(|place| f64::from(sums[place]));
    let step = if along_sign { 1.0 } else { most_a };
    SampleSums {
        attack: aa * most_a * most_a,
        train: tt * most_t * most_t,
        dot: at * most_a * most_t,
        top: st * step * most_t,
        bottom: sa * step * most_a,
        delta,
    }
}

/// The first of the largest logits.
fn largest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
}

/// Cross-entropy of a sample, in f64.
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    sum.ln() - f64::from(logits.get(label).copied().unwrap_or(f32::NAN) - most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_logits_are_those_of_their_definitions() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0]), 1, "the first of equals");
        let expected = (1.0 + 2f64.exp() + 0.5f64.exp()).ln() - 2.0;
        assert!((cross_entropy(&[0.0, 2.0, 0.5], 1) - expected).abs() < 1e-12);
        assert!((cross_entropy(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9, "no overflow");
    }

    #[test]
    fn figures_are_found_where_a_step_sends_them() {
        let sums = [2.0, 3.0, 1.0, 1.0, 0.5, 0.25, 0.75, 6.0];
        let read = |attacked: &[f32]| -> Vec<f32> {
            let of_two = [[0.7, 1.0, 0.0].as_slice(), &sums, &sums, &[0.0, 5.0, 0.0, 1.0]].concat();
            [&of_two, attacked].concat()
        };
        let layout = Layout { n: 2, classes: 2, len: 3, along_sign: true, attacked: true };
        let found = layout.figures(&read(&[1.0, 0.0, 3.0, 0.0])).unwrap();
        assert_eq!((found.loss, found.accuracy, found.abnormal), (0.7, 0.5, Some(0.5)));
        assert_eq!(found.agreement.delta_mean, 2.0, "6 over 3 values");
        let linearity = 0.25 * 3.0 / (0.75 * 2.0);
        assert!((found.agreement.linearity - linearity).abs() < 1e-6, "{:?}", found.agreement);
        let alone = Layout { attacked: false, ..layout };
        assert_eq!(alone.figures(&read(&[])).unwrap().abnormal, None);
        assert!(layout.figures(&read(&[])).is_err(), "a part is missing");
    }

    #[test]
    fn sums_of_scaled_gradients_are_those_of_the_gradients() {
        let (a, t) = ([3.0f64, -1.0, 0.0], [2.0f64, 4.0, -8.0]);
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let scaled = |x: [f64; 3], most: f64| x.map(|x| x / most);
        let (sa, st, sign) = (scaled(a, 3.0), scaled(t, 8.0), [1.0, -1.0, 0.0]);
        for (along_sign, step, full) in [(true, sign, sign), (false, sa, a)] {
            let read = [3.0, 8.0, dot(&sa, &sa), dot(&st, &st), dot(&sa, &st), dot(&step, &st)];
            let read: Vec<f32> =
                read.into_iter().chain([dot(&step, &sa), 0.5]).map(|x| x as f32).collect();
            let sums = of_sample(&read, along_sign);
            let close =
                |x: f64, y: f64| assert!((x - y).abs() < 1e-5 * y.abs().max(1.0), "{x} {y}");
            close(sums.attack, dot(&a, &a));
            close(sums.train, dot(&t, &t));
            close(sums.dot, dot(&a, &t));
            close(sums.top, dot(&full, &t));
            close(sums.bottom, dot(&full, &a));
        }
    }
}
