//! The losses that gradient attacks maximise, as functions of one image's logits, with their
//! gradients by the logits.

/// A loss of the logits z of an image of class y; z_(1) >= z_(2) >= ... are the sorted logits, t is
/// a target class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Cross-entropy, `log sum_k exp(z_k) - z_y`.
    CrossEntropy,
    /// Margin of Carlini and Wagner 2017 (arXiv 1608.04644), `max_(k != y) z_k - z_y`.
    Margin,
    /// Difference of logits ratio of Croce and Hein 2020 (arXiv 2003.01690, equation 6), `-(z_y -
    /// max_(k != y) z_k) / (z_(1) - z_(3))`; it needs 3 or more classes.
    Dlr,
    /// Targeted margin, `z_t - z_y`.
    TargetedMargin,
    /// Targeted DLR (ibid., equation 7), `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`; it needs 4
    /// or more classes.
    TargetedDlr,
}

/// Keeps denominators away from 0, with the value of the public code.
const TINY: f64 = 1e-12;

impl Objective {
    /// This loss, or the margin if the loss is undefined for a network of `classes` classes.
    pub fn defined_for(self, classes: usize) -> Self {
        match self {
            Self::Dlr if classes < 3 => Self::Margin,
            Self::TargetedDlr if classes < 4 => Self::TargetedMargin,
            other => other,
        }
    }

    /// Returns the loss (of [`defined_for`](Self::defined_for) as many classes as `z` has) and
    /// writes its gradient by `z` to `grad`.
    ///
    /// The gradient of the cross-entropy is scaled to `sum_(k != y) |grad_k| = 1`. Attacks use only
    /// its direction, and the unscaled gradient underflows where the network is very sure. All
    /// arithmetic is in f64.
    pub fn evaluate(self, z: &[f32], y: usize, t: usize, grad: &mut [f32]) -> f64 {
        grad.fill(0.0);
        let at = |k: usize| f64::from(z[k]);
        match self.defined_for(z.len()) {
            Self::CrossEntropy => cross_entropy(z, y, grad),
            Self::Margin => {
                let Some(m) = largest_other(z, y) else { return 0.0 };
                (grad[m], grad[y]) = (1.0, -1.0);
                at(m) - at(y)
            }
            Self::TargetedMargin => {
                grad[t] += 1.0;
                grad[y] -= 1.0;
                at(t) - at(y)
            }
            Self::Dlr => {
                let Some(m) = largest_other(z, y) else { return 0.0 };
                let order = largest_first(z);
                ratio(z, [y, m], &[(order[0], 1.0), (order[2], -1.0)], grad)
            }
            Self::TargetedDlr => {
                let order = largest_first(z);
                ratio(z, [y, t], &[(order[0], 1.0), (order[2], -0.5), (order[3], -0.5)], grad)
            }
        }
    }
}

fn cross_entropy(z: &[f32], y: usize, grad: &mut [f32]) -> f64 {
    let Some(m) = largest_other(z, y) else { return 0.0 };
    let (zy, zm) = (f64::from(z[y]), f64::from(z[m]));
    // sum over the other classes of exp(z_k - z_m), at least 1.
    let mut sum = 0.0;
    for (k, g) in grad.iter_mut().enumerate() {
        if k != y {
            let e = (f64::from(z[k]) - zm).exp();
            *g = e as f32;
            sum += e;
        }
    }
    grad.iter_mut().for_each(|g| *g = (f64::from(*g) / sum) as f32);
    grad[y] = -1.0;
    // log(1 + exp(u)), u = log sum_(k != y) exp(z_k) - z_y, without cancellation at either end.
    let u = zm + sum.ln() - zy;
    if u > 0.0 { u + (-u).exp().ln_1p() } else { u.exp().ln_1p() }
}

/// `-(z_a - z_b) / (sum of weight z + TINY)` and its gradient.
fn ratio(z: &[f32], [a, b]: [usize; 2], denominator: &[(usize, f64)], grad: &mut [f32]) -> f64 {
    let at = |k: usize| f64::from(z[k]);
    let top = at(b) - at(a);
    let bottom = denominator.iter().map(|&(k, weight)| weight * at(k)).sum::<f64>() + TINY;
    let mut add = |k: usize, value: f64| grad[k] += value as f32;
    add(b, bottom.recip());
    add(a, -bottom.recip());
    for &(k, weight) in denominator {
        add(k, -top / bottom.powi(2) * weight);
    }
    top / bottom
}

/// The class other than `y` with the largest logit, the first of equals; `None` with a single
/// class.
pub fn largest_other(z: &[f32], y: usize) -> Option<usize> {
    (0..z.len()).filter(|&k| k != y).reduce(|best, k| if z[k] > z[best] { k } else { best })
}

/// Classes by falling logit, the first of equals first.
fn largest_first(z: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..z.len()).collect();
    order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
    order
}

/// The target classes of an image: all classes other than `y`, the likeliest first.
pub fn targets(z: &[f32], y: usize) -> Vec<usize> {
    largest_first(z).into_iter().filter(|&k| k != y).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let z = [1.0f32, -0.5, 2.25, 0.75, 0.125];
        for objective in [
            Objective::CrossEntropy,
            Objective::Margin,
            Objective::Dlr,
            Objective::TargetedMargin,
            Objective::TargetedDlr,
        ] {
            for y in 0..5 {
                let t = (y + 2) % 5;
                let (mut grad, mut scratch) = ([0f32; 5], [0f32; 5]);
                objective.evaluate(&z, y, t, &mut grad);
                // The cross-entropy's gradient is scaled, so it is compared after the same scaling.
                let others: f64 = (0..5).map(|k| f64::from(z[k]).exp()).sum::<f64>();
                let scale = if objective == Objective::CrossEntropy {
                    1.0 - f64::from(z[y]).exp() / others
                } else {
                    1.0
                };
                for k in 0..5 {
                    let h = 1.0 / 1024.0;
                    let mut moved = |by: f32| {
                        let mut z = z;
                        z[k] += by;
                        objective.evaluate(&z, y, t, &mut scratch)
                    };
                    let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                    assert!(
                        (slope - f64::from(grad[k]) * scale).abs() < 1e-5,
                        "{objective:?} y {y} k {k}: {slope} {}",
                        grad[k]
                    );
                }
            }
        }
    }

    #[test]
    fn a_sure_network_still_has_a_direction_and_a_loss_that_can_grow() {
        let mut grad = [0f32; 3];
        let low = Objective::CrossEntropy.evaluate(&[90.0, -3.0, -2.0], 0, 0, &mut grad);
        assert!(grad[2] > grad[1] && grad[1] > 0.0 && grad[0] == -1.0);
        let high = Objective::CrossEntropy.evaluate(&[90.0, -3.0, -1.0], 0, 0, &mut grad);
        assert!(high > low && low > 0.0);
        assert!(
            (Objective::CrossEntropy.evaluate(&[-500.0, 500.0], 0, 0, &mut [0.0; 2]) - 1000.0)
                .abs()
                < 1e-9
        );
    }

    #[test]
    fn few_classes_fall_back_to_the_margin() {
        assert_eq!(Objective::Dlr.defined_for(2), Objective::Margin);
        assert_eq!(Objective::Dlr.defined_for(3), Objective::Dlr);
        assert_eq!(Objective::TargetedDlr.defined_for(3), Objective::TargetedMargin);
        let mut grad = [0f32; 1];
        for objective in [Objective::CrossEntropy, Objective::Margin] {
            assert_eq!(objective.evaluate(&[3.0], 0, 0, &mut grad), 0.0);
        }
    }
}
