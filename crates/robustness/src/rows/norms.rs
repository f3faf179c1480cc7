//! Lengths and directions in a norm.

use crate::threat::Norm;

/// Smallest denominator of a normalised vector.
const TINY: f64 = 1e-12;

/// Euclidean length.
pub fn l2(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Length of `a - b` in `norm`.
pub fn distance(norm: Norm, a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| f64::from(a - b));
    match norm {
        Norm::Linf => differences.fold(0.0, |most, d| most.max(d.abs())),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        Norm::L1 => differences.map(f64::abs).sum(),
    }
}

/// Moves `point` by `step` along the direction of steepest ascent of a loss with gradient `grad`:
/// its sign (l-inf), itself over its length (l2), or the sign of its largest value (l1).
pub fn ascend(norm: Norm, point: &mut [f32], grad: &[f32], step: f32) {
    match norm {
        Norm::Linf => {
            for (p, g) in point.iter_mut().zip(grad) {
                // `signum` of 0 is 1, but a gradient of 0 must not move the point.
                *p += if *g > 0.0 {
                    step
                } else if *g < 0.0 {
                    -step
                } else {
                    0.0
                };
            }
        }
        Norm::L2 => {
            let scale = normaliser(grad) * f64::from(step);
            for (p, g) in point.iter_mut().zip(grad) {
                *p += (f64::from(*g) * scale) as f32;
            }
        }
        Norm::L1 => {
            let steepest = grad.iter().zip(point).max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
            if let Some((g, p)) = steepest.filter(|(g, _)| **g != 0.0) {
                *p += step.copysign(*g);
            }
        }
    }
}

/// The factor that gives a vector the length 1; a vector of zeros stays zero.
pub fn normaliser(v: &[f32]) -> f64 {
    l2(v).max(f64::from(f32::MIN_POSITIVE) * TINY).recip().min(1e300)
}

/// Scales `direction` so that its length in `norm` is `radius`.
pub fn scale_to(norm: Norm, direction: &mut [f32], radius: f32) {
    let length = match norm {
        Norm::Linf => f64::from(direction.iter().fold(0f32, |most, v| most.max(v.abs()))),
        Norm::L2 => l2(direction),
        Norm::L1 => direction.iter().map(|v| f64::from(v.abs())).sum(),
    };
    let scale = f64::from(radius) / length.max(TINY);
    direction.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_gradient_moves_nothing_and_a_tiny_one_a_whole_step() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let mut point = [0.5f32; 4];
            ascend(norm, &mut point, &[0.0; 4], 0.1);
            assert_eq!(point, [0.5; 4]);
            ascend(norm, &mut point, &[0.0, 1e-30, 0.0, 0.0], 0.1);
            assert!((point[1] - 0.6).abs() < 1e-6 && point[0] == 0.5, "{norm}: {point:?}");
        }
    }
}
