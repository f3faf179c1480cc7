//! The projection of a point on a linearised decision boundary, within the box [0, 1] (Croce and
//! Hein 2020, arXiv 1907.02044).

use crate::threat::Norm;

/// The smallest change d of `point`, in `norm`, with `w . d + value = 0` and `point + d` in [0, 1].
/// Where the box holds no such point, d is the change that comes nearest to the plane.
///
/// Each element moves towards the plane by `min(t, room)` (l-inf) or `min(t |w|, room)` (l2), so
/// the distance covered is an increasing, concave, piecewise linear function of t. Newton's method
/// from 0 finds its inverse exactly, one linear piece after another.
///
/// In l1 an element of large `|w|` covers more for its length: they go all the way, one after the
/// other, the last as far as it takes.
pub fn project_on_plane(norm: Norm, point: &[f32], w: &[f32], value: f64) -> Vec<f32> {
    if norm == Norm::L1 {
        return project_on_plane_l1(point, w, value);
    }
    let goal = value.abs();
    // The sign of the change of element i: w . d must be -value.
    let sign = if value > 0.0 { -1.0 } else { 1.0 };
    let slope = |w: f64| match norm {
        Norm::Linf => w,
        Norm::L2 | Norm::L1 => w * w,
    };
    // The rate of each element and the most it can contribute; zeros, which contribute nothing,
    // fill the last chunk.
    let filled = point.len().next_multiple_of(LANES);
    let (mut slopes, mut mosts) = (vec![0.0; filled], vec![0.0; filled]);
    for (((s, most), &p), &w) in slopes.iter_mut().zip(&mut mosts).zip(point).zip(w) {
        let up = f64::from(w) * sign > 0.0;
        let room = if up { 1.0 - f64::from(p) } else { f64::from(p) }.max(0.0);
        (*s, *most) = (slope(f64::from(w.abs())), f64::from(w.abs()) * room);
    }
    let mut t = 0.0;
    for _ in 0..=point.len() {
        let (covered, rate) = way_and_rate(t, &slopes, &mosts);
        let left = goal - covered;
        // The goal is reached up to rounding, or the box allows no more.
        if left <= goal * 1e-12 || rate <= 0.0 {
            break;
        }
        let next = t + left / rate;
        if next <= t {
            break;
        }
        t = next;
    }
    let change = |(p, w): (&f32, &f32)| {
        let direction = f64::from(*w) * sign;
        if direction == 0.0 {
            return 0.0;
        }
        let room = if direction > 0.0 { 1.0 - f64::from(*p) } else { f64::from(*p) }.max(0.0);
        let way = match norm {
            Norm::Linf => t,
            Norm::L2 | Norm::L1 => t * direction.abs(),
        };
        (way.min(room) * direction.signum()) as f32
    };
    point.iter().zip(w).map(change).collect()
}

/// [`project_on_plane`] in l1.
fn project_on_plane_l1(point: &[f32], w: &[f32], value: f64) -> Vec<f32> {
    let mut left = value.abs();
    let mut change = vec![0.0; point.len()];
    let mut order: Vec<usize> = (0..w.len()).filter(|&i| w[i] != 0.0).collect();
    order.sort_by(|&a, &b| w[b].abs().total_cmp(&w[a].abs()));
    for i in order {
        let (w, p) = (f64::from(w[i]), f64::from(point[i]));
        // w . d must be -value.
        let up = (w > 0.0) != (value > 0.0);
        let room = if up { 1.0 - p } else { p }.max(0.0);
        let way = (left / w.abs()).min(room);
        change[i] = if up { way } else { -way } as f32;
        left -= way * w.abs();
        if left <= 0.0 {
            break;
        }
    }
    change
}

/// Number of sums that are kept side by side, so that the compiler makes vector code.
const LANES: usize = 8;

/// The distance covered at `t`, and its slope: the sum of `min(t slope, most)`, and the sum of the
/// slopes of the elements that can still move.
fn way_and_rate(t: f64, slopes: &[f64], mosts: &[f64]) -> (f64, f64) {
    let (mut covered, mut rate) = ([0.0; LANES], [0.0; LANES]);
    for (slopes, mosts) in slopes.as_chunks::<LANES>().0.iter().zip(mosts.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            let way = t * slopes[lane];
            let gives = way < mosts[lane];
            covered[lane] += if gives { way } else { mosts[lane] };
            rate[lane] += if gives { slopes[lane] } else { 0.0 };
        }
    }
    (covered.iter().sum(), rate.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;
    use proptest::prelude::*;

    #[test]
    fn a_projection_by_hand() {
        // w . d = 1 with w = (1, 2): l-inf both by 1/3; l2 along w.
        let d = project_on_plane(Norm::Linf, &[0.5, 0.5], &[1.0, 2.0], -1.0);
        assert!((d[0] - 1.0 / 3.0).abs() < 1e-6 && (d[1] - 1.0 / 3.0).abs() < 1e-6, "{d:?}");
        let d = project_on_plane(Norm::L2, &[0.5, 0.5], &[1.0, 2.0], -1.0);
        assert!((d[0] - 0.2).abs() < 1e-6 && (d[1] - 0.4).abs() < 1e-6, "{d:?}");
        // The second element meets the box, so the first element does the rest.
        let d = project_on_plane(Norm::Linf, &[0.5, 0.9], &[1.0, 2.0], -0.5);
        assert!((d[0] - 0.3).abs() < 1e-6 && (d[1] - 0.1).abs() < 1e-6, "{d:?}");
        // l1: the second goes first, as far as the box lets it.
        let d = project_on_plane(Norm::L1, &[0.5, 0.9], &[1.0, 2.0], -0.5);
        assert!((d[0] - 0.3).abs() < 1e-6 && (d[1] - 0.1).abs() < 1e-6, "{d:?}");
        assert_eq!(project_on_plane(Norm::L1, &[0.5, 0.5], &[1.0, -2.0], 0.5), [0.0, 0.25]);
        assert_eq!(project_on_plane(Norm::L1, &[0.75, 0.0], &[1.0, -1.0], -5.0), [0.25, 0.0]);
        // The plane is out of reach, so the change goes as far as the box allows. No normal gives
        // no change.
        assert_eq!(project_on_plane(Norm::L2, &[0.75, 0.0], &[1.0, -1.0], -5.0), [0.25, 0.0]);
        assert_eq!(project_on_plane(Norm::L2, &[0.75, 0.0], &[0.0, 0.0], -5.0), [0.0, 0.0]);
    }

    proptest! {
        /// Compares with a solver that does not use slopes: bisection on the threshold (l-inf) or
        /// the multiplier (l2).
        #[test]
        fn projections_are_nearest(
            pairs in proptest::collection::vec((0f32..=1.0, -3f32..3.0), 1..30), value in -4f64..4.0, l2: bool
        ) {
            let norm = if l2 { Norm::L2 } else { Norm::Linf };
            let (point, w): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let d = project_on_plane(norm, &point, &w, value);
            prop_assert!(point.iter().zip(&d).all(|(p, d)| (-1e-6..=1.000_001).contains(&(p + d))));
            let reach = |t: f64| -> f64 {
                point.iter().zip(&w).map(|(&p, &w)| {
                    let (p, w) = (f64::from(p), f64::from(w));
                    let move_to = -value.signum() * if norm == Norm::Linf { t * w.signum() } else { t * w };
                    w * ((p + move_to).clamp(0.0, 1.0) - p)
                }).sum::<f64>().abs()
            };
            let (mut low, mut high) = (0.0, 1e4);
            for _ in 0..200 {
                let middle = (low + high) / 2.0;
                if reach(middle) < value.abs() { low = middle } else { high = middle }
            }
            let feasible = reach(1e4) >= value.abs() - 1e-9;
            let covered = w.iter().zip(&d).map(|(w, d)| f64::from(*w) * f64::from(*d)).sum::<f64>().abs();
            if feasible {
                prop_assert!((covered - value.abs()).abs() < 1e-4, "{covered} of {value}");
                let want = match norm {
                    Norm::Linf => point.iter().zip(&w).fold(0f64, |most, (&p, &w)| {
                        let room = if -value.signum() * f64::from(w) > 0.0 { 1.0 - f64::from(p) } else { f64::from(p) };
                        if w == 0.0 { most } else { most.max(high.min(room)) }
                    }),
                    Norm::L2 | Norm::L1 => point.iter().zip(&w).map(|(&p, &w)| {
                        let (p, w) = (f64::from(p), f64::from(w));
                        ((p - value.signum() * high * w).clamp(0.0, 1.0) - p).powi(2)
                    }).sum::<f64>().sqrt(),
                };
                let have = rows::distance(norm, &d, &vec![0.0; d.len()]);
                prop_assert!((have - want).abs() < 1e-4, "{have} instead of {want}");
            } else {
                prop_assert!(covered <= value.abs() + 1e-5);
            }
        }
    }
}
