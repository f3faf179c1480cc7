//! The nearest point in ball and box, and in eight bits.

use super::distance;
use crate::threat::{Norm, Threat};

/// Brings `point` into the ball around `x` and into the box [0, 1]. A point that lies in both stays
/// as it is, to the bit.
pub fn project(threat: Threat, x: &[f32], point: &mut [f32]) {
    let epsilon = threat.epsilon;
    match threat.norm {
        Norm::Linf => {
            for (p, &x) in point.iter_mut().zip(x) {
                // `max` comes first, because it turns a NaN into a number.
                *p = p.max(x - epsilon).min(x + epsilon).clamp(0.0, 1.0);
            }
        }
        Norm::L2 => {
            for (p, &x) in point.iter_mut().zip(x).filter(|(p, _)| !p.is_finite()) {
                *p = x;
            }
            let most = f64::from(epsilon) * (1.0 + 1e-6);
            // In a small ball the rounding of the pixels can leave a scaled point outside by more
            // than that. The point is then aimed further inside, and in the end at the centre.
            let mut shrink = 0.0;
            let mut length = distance(Norm::L2, point, x);
            while length > most {
                let scale = (f64::from(epsilon) * f64::max(1.0 - shrink, 0.0) / length) as f32;
                for (p, &x) in point.iter_mut().zip(x) {
                    *p = x + (*p - x) * scale;
                }
                shrink = f64::max(2.0 * shrink, 1e-6);
                length = distance(Norm::L2, point, x);
            }
            point.iter_mut().for_each(|p| *p = p.clamp(0.0, 1.0));
        }
        Norm::L1 => project_l1(f64::from(epsilon), x, point),
    }
}

/// The point of the l1 ball of radius `epsilon` around `x`, within [0, 1], that is nearest to
/// `point` in l2: with delta = point - x, each value moves to `clamp(sign(delta) max(|delta| - t,
/// 0), -x, 1 - x)`, t >= 0 as small as the ball allows (Croce and Hein 2021, arXiv 2103.01208,
/// proposition 2.1).
fn project_l1(epsilon: f64, x: &[f32], point: &mut [f32]) {
    for (p, &x) in point.iter_mut().zip(x).filter(|(p, _)| !p.is_finite()) {
        *p = x;
    }
    let most = epsilon * (1.0 + 1e-6);
    let inside = |p: &f32| (0.0..=1.0).contains(p);
    if distance(Norm::L1, point, x) <= most && point.iter().all(inside) {
        return;
    }
    let changes: Vec<Change> = point.iter().zip(x).map(|(&p, &x)| Change::of(p, x)).collect();
    // Rounding of the pixels can leave the point outside: it is aimed further inside then, and at
    // the centre in the end.
    let mut shrink = 0.0;
    loop {
        let threshold = threshold_l1(epsilon * f64::max(1.0 - shrink, 0.0), &changes);
        for ((p, &x), change) in point.iter_mut().zip(x).zip(&changes) {
            let way = change.beyond(threshold);
            let moved = f64::from(x) + way.copysign(change.delta);
            *p = if way > 0.0 { moved.clamp(0.0, 1.0) as f32 } else { x };
        }
        if distance(Norm::L1, point, x) <= most || shrink >= 1.0 {
            break;
        }
        shrink = f64::max(2.0 * shrink, 1e-6);
    }
}

/// The change of a value, and how far the box lets it go that way.
#[derive(Clone, Copy, Debug)]
struct Change {
    delta: f64,
    most: f64,
}

impl Change {
    fn of(p: f32, x: f32) -> Self {
        let (delta, x) = (f64::from(p) - f64::from(x), f64::from(x));
        Self { delta, most: if delta > 0.0 { 1.0 - x } else { x }.max(0.0) }
    }

    /// What is left of its length beyond `t`, within the box.
    fn beyond(&self, t: f64) -> f64 {
        (self.delta.abs() - t).clamp(0.0, self.most)
    }
}

/// The smallest t >= 0 beyond which `changes` leave a sum of at most `epsilon`. The sum is piecewise
/// linear in t: its slope changes where a change leaves the box's edge and where it vanishes.
fn threshold_l1(epsilon: f64, changes: &[Change]) -> f64 {
    let sum = |t: f64| changes.iter().map(|change| change.beyond(t)).sum::<f64>();
    if sum(0.0) <= epsilon {
        return 0.0;
    }
    let kinks = changes.iter().flat_map(|c| [c.delta.abs() - c.most, c.delta.abs()]);
    let mut kinks: Vec<f64> = kinks.filter(|t| *t > 0.0).collect();
    kinks.sort_by(f64::total_cmp);
    // The last kink that leaves too much, and the one behind it.
    let low = kinks.partition_point(|&t| sum(t) > epsilon);
    let before = low.checked_sub(1).map_or(0.0, |k| kinks[k]);
    let behind = kinks.get(low).copied().unwrap_or(before);
    let (above, below) = (sum(before), sum(behind));
    before + (above - epsilon) * (behind - before) / (above - below).max(f64::MIN_POSITIVE)
}

/// Rounds the values of `point`, which lies in the ball around `x`, to multiples of 1/255 within
/// the ball. A value for which the ball holds no multiple becomes the value of `x`.
pub fn round_to_eight_bits(threat: Threat, x: &[f32], point: &mut [f32]) {
    const LEVELS: f64 = 255.0;
    // A pixel of k/255 and its value may each be rounded to f32 by 3e-8.
    let epsilon = f64::from(threat.epsilon) * (1.0 + 1e-6) + 1e-7;
    let towards_x = |p: f64, x: f64| {
        let level = p * LEVELS;
        (if p > x { (level + 1e-4).floor() } else { (level - 1e-4).ceil() }) / LEVELS
    };
    let nearest: Vec<f32> = point
        .iter()
        .zip(x)
        .map(|(&p, &x)| {
            let (p, x) = (f64::from(p), f64::from(x));
            let rounded = (p * LEVELS).round() / LEVELS;
            let value = match threat.norm {
                Norm::Linf if (rounded - x).abs() > epsilon => towards_x(p, x),
                _ => rounded,
            };
            // Where x lies between two levels, rounding towards x can go past it.
            let outside = threat.norm == Norm::Linf && (value - x).abs() > epsilon;
            (if outside { x } else { value }) as f32
        })
        .collect();
    if threat.norm != Norm::Linf && distance(threat.norm, &nearest, x) > epsilon {
        for (p, &x) in point.iter_mut().zip(x) {
            let (value, x) = (towards_x(f64::from(*p), f64::from(x)), f64::from(x));
            // The rounded value must not be further from x than the value before.
            let further = (value - x).abs() > (f64::from(*p) - x).abs() + 1e-6;
            *p = (if further { x } else { value }) as f32;
        }
    } else {
        point.copy_from_slice(&nearest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn norms() -> impl Strategy<Value = Norm> {
        prop_oneof![Just(Norm::Linf), Just(Norm::L2), Just(Norm::L1)]
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
        // A radius below the spacing of the pixels' values, and a radius of zero.
        for epsilon in [1e-9, 0.0] {
            let mut point = [1.0; 7];
            project(Threat { norm: Norm::L2, epsilon }, &x, &mut point);
            assert!(distance(Norm::L2, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-6));
        }
    }

    #[test]
    fn a_radius_that_is_no_number_ends() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            for epsilon in [f32::NAN, f32::INFINITY] {
                let mut point = [0.25, 3.0, f32::NAN];
                project(Threat { norm, epsilon }, &[0.5; 3], &mut point);
            }
        }
    }

    #[test]
    fn corners_of_whole_levels_are_eight_bits_already() {
        for k in 1..=16 {
            let threat = Threat { norm: Norm::Linf, epsilon: (f64::from(k) / 255.0) as f32 };
            for level in 0..=255 {
                let x = (f64::from(level) / 255.0) as f32;
                for side in [-k, k] {
                    let corner = (f64::from((level + side).clamp(0, 255)) / 255.0) as f32;
                    let mut point = [x + side as f32 / 255.0];
                    project(threat, &[x], &mut point);
                    round_to_eight_bits(threat, &[x], &mut point);
                    assert_eq!(point, [corner], "level {level}, {side}/255");
                }
            }
        }
    }

    #[test]
    fn l1_projections_by_hand() {
        let project = |epsilon, x: &[f32], point: &[f32]| {
            let mut point = point.to_vec();
            super::project(Threat { norm: Norm::L1, epsilon }, x, &mut point);
            point
        };
        // Changes of 0.4, -0.02 and 0.1 lose 0.05 each; the small one vanishes.
        let found = project(0.4, &[0.5, 0.5, 0.5], &[0.9, 0.48, 0.6]);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found[0], 0.85) && found[1] == 0.5 && near(found[2], 0.55), "{found:?}");
        // The box cuts the first change to 0.1, so that the second keeps 0.2 of its 0.25.
        let found = project(0.3, &[0.9, 0.5], &[2.0, 0.25]);
        assert!((found[0] - 1.0).abs() < 1e-6 && (found[1] - 0.3).abs() < 1e-6, "{found:?}");
        // Inside of both it stays, and a radius of zero leaves the image.
        assert_eq!(project(0.3, &[0.9, 0.5], &[1.0, 0.4]), [1.0, 0.4]);
        assert_eq!(project(0.0, &[0.9, 0.5], &[1.0, 0.4]), [0.9, 0.5]);
        assert_eq!(project(0.3, &[0.9, 0.5], &[f32::NAN, 0.4]), [0.9, 0.4]);
    }

    proptest! {
        #[test]
        fn rounded_points_are_of_eight_bits_and_in_the_ball(
            pairs in proptest::collection::vec((0u8..=255, -1f32..2.0), 1..40),
            epsilon in 0f32..0.5,
            norm in norms()
        ) {
            let threat = Threat { norm, epsilon };
            let x: Vec<f32> = pairs.iter().map(|(level, _)| f32::from(*level) / 255.0).collect();
            let mut point: Vec<f32> = pairs.into_iter().map(|(_, value)| value).collect();
            project(threat, &x, &mut point);
            round_to_eight_bits(threat, &x, &mut point);
            let off = |p: &f32| (f64::from(*p) * 255.0 - (f64::from(*p) * 255.0).round()).abs();
            prop_assert!(point.iter().all(|p| (0.0..=1.0).contains(p) && off(p) < 1e-4));
            prop_assert!(distance(threat.norm, &point, &x) <= f64::from(epsilon) * (1.0 + 1e-5) + 1e-7);
        }

        #[test]
        fn projected_points_lie_in_ball_and_box_and_stay(
            pairs in proptest::collection::vec((0f32..=1.0, -2f32..3.0), 1..40),
            epsilon in 0f32..1.0,
            norm in norms()
        ) {
            let threat = Threat { norm, epsilon };
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
