//! What the host computes of the figures that a GPU sends back.

use super::SampleSums;

/// The sums of a sample from those of the gradients divided by their largest absolute values.
pub(super) fn of_sample(sums: &[f32], along_sign: bool) -> SampleSums {
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
pub(super) fn largest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
}

/// Cross-entropy of a sample, in f64.
pub(super) fn cross_entropy(logits: &[f32], label: usize) -> f64 {
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
