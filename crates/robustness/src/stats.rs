//! Accuracies with confidence intervals.

use serde::{Deserialize, Serialize};

/// An accuracy with its 95 % Wilson interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Fraction correct.
    pub accuracy: f64,
    /// 95 % Wilson interval.
    pub ci95: [f64; 2],
}

impl Accuracy {
    /// The accuracy of `correct` images among `n`.
    pub fn of(correct: u64, n: u64) -> Self {
        Self { accuracy: correct as f64 / n.max(1) as f64, ci95: wilson95(correct, n) }
    }
}

/// 95 % Wilson score interval of `correct` successes in `n` trials (Wilson 1927); `[0, 1]` for n =
/// 0.
pub fn wilson95(correct: u64, n: u64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (n as f64, correct as f64 / n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

/// 95 % Clopper-Pearson interval of `successes` in `n` trials, which is exact for any n (Biometrika
/// 1934); `[0, 1]` for n = 0. It takes a time that grows with n: it is for counts of runs.
pub fn exact95(successes: usize, n: usize) -> [f64; 2] {
    const TAIL: f64 = 0.025;
    let lower = if successes == 0 {
        0.0
    } else {
        bisect(|p| 1.0 - binomial_cdf(successes - 1, n, p) < TAIL)
    };
    let upper = if successes >= n { 1.0 } else { bisect(|p| binomial_cdf(successes, n, p) > TAIL) };
    [lower, upper]
}

/// The end of the part of [0, 1], from 0 on, in which `holds` is true.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Probability of at most `k` successes in `n` trials that succeed with probability `p`, 0 < p < 1.
fn binomial_cdf(k: usize, n: usize, p: f64) -> f64 {
    // Terms by their logarithms: (1 - p)^n alone would vanish for many trials.
    let mut log_term = n as f64 * (-p).ln_1p();
    let mut sum = log_term.exp();
    for i in 0..k.min(n) {
        log_term += ((n - i) as f64 / (i + 1) as f64).ln() + p.ln() - (-p).ln_1p();
        sum += log_term.exp();
    }
    sum.min(1.0)
}

/// Probability that a standard normal variable lies below `z`, to 1e-7 (Abramowitz and Stegun 1964,
/// 26.2.17).
pub fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::{exact95, normal_cdf, wilson95};

    #[test]
    fn normal_cdf_agrees_with_tables() {
        for (z, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746),
            (-1.0, 0.158_655_254),
            (1.959_963_985, 0.975),
            (-3.0, 0.001_349_898),
            (40.0, 1.0),
        ] {
            assert!((normal_cdf(z) - p).abs() < 2e-7, "{z}: {}", normal_cdf(z));
        }
    }

    #[test]
    fn agrees_with_published_values() {
        // The expected values come from Newcombe 1998, Statistics in Medicine 17, table I, method
        // 3.
        for (correct, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [a, b] = wilson95(correct, n);
            assert!((a - low).abs() < 5e-5 && (b - high).abs() < 5e-5, "{correct}/{n}: {a} {b}");
        }
    }

    #[test]
    fn exact_intervals_agree_with_published_values() {
        // Newcombe 1998, table I, method 5.
        for (successes, n, low, high) in [
            (81, 263, 0.2527, 0.3676),
            (15, 148, 0.0578, 0.1617),
            (0, 20, 0.0, 0.1684),
            (1, 29, 0.0009, 0.1776),
        ] {
            let [a, b] = exact95(successes, n);
            assert!((a - low).abs() < 5e-5 && (b - high).abs() < 5e-5, "{successes}/{n}: {a} {b}");
            let [c, d] = exact95(n - successes, n);
            assert!((a + d - 1.0).abs() < 1e-12 && (b + c - 1.0).abs() < 1e-12);
        }
        assert_eq!(exact95(0, 0), [0.0, 1.0]);
        // Where (1 - p)^n is too small for an f64 by itself.
        let [a, b] = exact95(9_000, 10_000);
        assert!((a - 0.893_951).abs() < 1e-5 && (b - 0.905_814).abs() < 1e-5, "{a} {b}");
    }
}
