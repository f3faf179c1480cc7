//! Rows of pixels on the host: norms, balls, boxes, and leaving out the images that an attack is
//! done with.
//!
//! Every operation works on one image by itself, so that what happens to an image does not depend
//! on its batch.

use rayon::prelude::*;

use crate::threat::{Norm, Threat};

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
    }
}

/// Brings `point` into the ball around `x` and into the box [0, 1]. A point that lies in both stays
/// as it is, to the bit.
pub fn project(threat: Threat, x: &[f32], point: &mut [f32]) {
    let epsilon = threat.epsilon;
    match threat.norm {
        Norm::Linf => {
            for (p, &x) in point.iter_mut().zip(x) {
                // `max` first: a point that is not a number becomes one.
                *p = p.max(x - epsilon).min(x + epsilon).clamp(0.0, 1.0);
            }
        }
        Norm::L2 => {
            for (p, &x) in point.iter_mut().zip(x).filter(|(p, _)| !p.is_finite()) {
                *p = x;
            }
            let most = f64::from(epsilon) * (1.0 + 1e-6);
            // In a small ball the rounding of the pixels can leave a scaled point outside by more
            // than that: it is aimed further inside then, and at the centre in the end.
            let mut shrink = 0.0;
            loop {
                let length = distance(Norm::L2, point, x);
                if length <= most {
                    break;
                }
                let scale = (f64::from(epsilon) * f64::max(1.0 - shrink, 0.0) / length) as f32;
                for (p, &x) in point.iter_mut().zip(x) {
                    *p = x + (*p - x) * scale;
                }
                shrink = f64::max(2.0 * shrink, 1e-6);
            }
            point.iter_mut().for_each(|p| *p = p.clamp(0.0, 1.0));
        }
    }
}

/// Moves `point` by `step` along the direction of steepest ascent of a loss with gradient `grad`:
/// its sign (l-inf), or itself over its length (l2).
pub fn ascend(norm: Norm, point: &mut [f32], grad: &[f32], step: f32) {
    match norm {
        Norm::Linf => {
            for (p, g) in point.iter_mut().zip(grad) {
                // `signum` of 0 is 1; a gradient of 0 must not move the point.
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
    }
}

/// What a vector is multiplied with to be of length 1; a vector of zeros stays one.
pub fn normaliser(v: &[f32]) -> f64 {
    l2(v).max(f64::from(f32::MIN_POSITIVE) * TINY).recip().min(1e300)
}

/// Scales `direction` so that its largest absolute value (l-inf) or its length (l2) is `radius`.
pub fn scale_to(norm: Norm, direction: &mut [f32], radius: f32) {
    let length = match norm {
        Norm::Linf => f64::from(direction.iter().fold(0f32, |most, v| most.max(v.abs()))),
        Norm::L2 => l2(direction),
    };
    let scale = f64::from(radius) / length.max(TINY);
    direction.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
}

/// Runs `work` on the rows of `out`, `width` wide, and on row numbers, in parallel.
pub fn for_each(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    out.par_chunks_mut(width.max(1)).enumerate().for_each(|(i, row)| work(i, row));
}

/// As [`for_each`]; what `work` gives, by row.
pub fn map<R: Send>(
    out: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> Vec<R> {
    out.par_chunks_mut(width.max(1)).enumerate().map(|(i, row)| work(i, row)).collect()
}

/// Row `i` of rows `width` wide.
pub fn row<T>(rows: &[T], width: usize, i: usize) -> &[T] {
    &rows[i * width..(i + 1) * width]
}

/// Row `i` of rows `width` wide, to be changed.
pub fn row_mut<T>(rows: &mut [T], width: usize, i: usize) -> &mut [T] {
    &mut rows[i * width..(i + 1) * width]
}

/// The rows at `indices`, copied.
pub fn select<T: Copy>(rows: &[T], width: usize, indices: &[usize]) -> Vec<T> {
    indices.iter().flat_map(|&i| row(rows, width, i)).copied().collect()
}

/// Leaves out the rows for which `keep` says false, in place.
pub fn retain<T: Copy>(rows: &mut Vec<T>, width: usize, keep: &[bool]) {
    let mut kept = 0;
    for (i, keep) in keep.iter().enumerate() {
        if *keep {
            rows.copy_within(i * width..(i + 1) * width, kept * width);
            kept += 1;
        }
    }
    rows.truncate(kept * width);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_left_out_in_place() {
        let mut rows = vec![0, 1, 2, 3, 4, 5];
        retain(&mut rows, 2, &[true, false, true]);
        assert_eq!(rows, [0, 1, 4, 5]);
        assert_eq!(select(&rows, 2, &[1, 1, 0]), [4, 5, 4, 5, 0, 1]);
    }

    #[test]
    fn a_zero_gradient_moves_nothing_and_a_tiny_one_a_whole_step() {
        for norm in [Norm::Linf, Norm::L2] {
            let mut point = [0.5f32; 4];
            ascend(norm, &mut point, &[0.0; 4], 0.1);
            assert_eq!(point, [0.5; 4]);
            ascend(norm, &mut point, &[0.0, 1e-30, 0.0, 0.0], 0.1);
            assert!((point[1] - 0.6).abs() < 1e-6 && point[0] == 0.5, "{norm}: {point:?}");
        }
    }

    #[test]
    fn a_point_projected_on_a_small_ball_stays() {
        // Rounding leaves the scaled point outside by 7e-6 of the radius.
        let x = [0.005_976_14, 0.646_167_8, 0.0, 0.938_676_36, 0.729_391_34, 0.389_942_88, 0.0];
        let mut point =
            [-1.429_712_2, 2.560_569_5, 0.0, -1.793_787_5, 2.168_038_4, -1.160_671_5, 1.673_565];
        let threat = Threat { norm: Norm::L2, epsilon: 0.004_219_608 };
        project(threat, &x, &mut point);
        let before = point;
        project(threat, &x, &mut point);
        assert_eq!(before, point);
        // A radius below the spacing of the pixels' values, and none.
        for epsilon in [1e-9, 0.0] {
            let mut point = [1.0; 7];
            project(Threat { norm: Norm::L2, epsilon }, &x, &mut point);
            assert!(distance(Norm::L2, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-6));
        }
    }

    proptest! {
        #[test]
        fn projected_points_lie_in_ball_and_box_and_stay(
            pairs in proptest::collection::vec((0f32..=1.0, -2f32..3.0), 1..40), epsilon in 0f32..1.0, l2: bool
        ) {
            let threat = Threat { norm: if l2 { Norm::L2 } else { Norm::Linf }, epsilon };
            let (x, mut point): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            project(threat, &x, &mut point);
            prop_assert!(point.iter().all(|p| (0.0..=1.0).contains(p)));
            prop_assert!(distance(threat.norm, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-6) + 1e-7);
            let before = point.clone();
            project(threat, &x, &mut point);
            prop_assert_eq!(before, point);
        }
    }
}
