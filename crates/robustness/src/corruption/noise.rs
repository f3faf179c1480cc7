//! Gaussian, shot and impulse noise.

use super::{Draws, PlanarImage, Severity};

/// Adds normal noise.
pub(super) fn gaussian(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let deviation = severity.of([0.04, 0.06, 0.08, 0.09, 0.10]);
    x.values.iter_mut().for_each(|v| *v += deviation * draws.normal());
}

/// Replaces each value by a Poisson count of `photons` times the value, over `photons`.
pub(super) fn shot(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let photons = severity.of([500.0, 250.0, 100.0, 75.0, 50.0]);
    x.values.iter_mut().for_each(|v| *v = poisson(*v * photons, draws.uniform()) / photons);
}

/// The smallest count whose probability of not being exceeded, at mean `mean`, reaches `u`.
fn poisson(mean: f64, u: f64) -> f64 {
    // Counts beyond have no probability left that f64 could hold.
    let most = mean + 40.0 * mean.sqrt() + 40.0;
    let (mut count, mut term) = (0.0, (-mean).exp());
    let mut sum = term;
    while sum < u && count < most {
        count += 1.0;
        term *= mean / count;
        sum += term;
    }
    count
}

/// Sets a share of the values to 0 or 1, as likely each.
pub(super) fn impulse(x: &mut PlanarImage, severity: Severity, draws: &mut dyn Draws) {
    let share = severity.of([0.01, 0.02, 0.03, 0.05, 0.07]);
    for v in &mut x.values {
        let (hit, white) = (draws.uniform() <= share, draws.uniform() <= 0.5);
        if hit {
            *v = f64::from(u8::from(white));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_counts_by_hand() {
        // Mean 1: P(0) = 0.3679, P(<= 1) = 0.7358, P(<= 2) = 0.9197.
        for (u, count) in [(0.0, 0.0), (0.36, 0.0), (0.37, 1.0), (0.74, 2.0), (0.92, 3.0)] {
            assert_eq!(poisson(1.0, u), count, "{u}");
        }
        assert_eq!(poisson(0.0, 0.999_999), 0.0);
        // The median of a large mean is about the mean, and the largest draw is no hang.
        assert!((poisson(500.0, 0.5) - 500.0).abs() <= 1.0);
        assert!(poisson(500.0, 1.0 - 1.0 / 16_777_216.0) < 700.0);
    }
}
