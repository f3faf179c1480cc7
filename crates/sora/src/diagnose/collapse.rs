//! Finds when a run lost its robust accuracy, from its validations. The detector is judged against
//! this.

use serde::Serialize;

/// Number of validations that must confirm a fall.
const CONFIRM: usize = 2;

/// A lasting fall (or lack) of multi-step accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Collapse {
    /// Whether the accuracy had ever been above chance.
    pub risen: bool,
    /// Best accuracy before the fall, as a fraction.
    pub peak: f64,
    /// Step of the validation with the best accuracy.
    pub peak_step: u64,
    /// First step whose validation found less than half of the best before it, even if a later
    /// validation found more again; `None` if the accuracy never rose.
    pub first_half_step: Option<u64>,
    /// First step from which on every validation found less than half of the best before it; `None`
    /// if the accuracy never rose.
    pub half_step: Option<u64>,
}

/// Looks for a lasting fall to less than half in `series`, pairs of (step, accuracy under a
/// multi-step attack) in the order of the steps.
///
/// A run has collapsed when its last validations, at least three, all lie below half of the best
/// before; and also when it has at least three and none is above `chance` (1 / classes).
pub fn collapse(series: &[(u64, f64)], chance: f64) -> Option<Collapse> {
    let mut peaks = Vec::with_capacity(series.len());
    for &(step, accuracy) in series {
        let before: (u64, f64) = peaks.last().copied().unwrap_or((step, 0.0));
        peaks.push(if accuracy > before.1 { (step, accuracy) } else { before });
    }
    let &(step, best) = peaks.last().filter(|_| series.len() > CONFIRM)?;
    if best <= chance {
        return Some(Collapse {
            risen: false,
            peak: best,
            peak_step: step,
            first_half_step: None,
            half_step: None,
        });
    }
    // A value below half does not count as a fall before the accuracy has risen above chance.
    let below = |i: &usize| peaks[*i].1 > chance && series[*i].1 < peaks[*i].1 / 2.0;
    let lasting = (0..series.len()).rev().take_while(below).last()?;
    if series.len() - lasting <= CONFIRM {
        return None;
    }
    let first = (0..=lasting).find(below).unwrap_or(lasting);
    let (peak_step, peak) = peaks[lasting];
    Some(Collapse {
        risen: true,
        peak,
        peak_step,
        first_half_step: Some(series[first].0),
        half_step: Some(series[lasting].0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Vec<(u64, f64)> {
        values.iter().enumerate().map(|(i, &v)| (10 * i as u64 + 9, v)).collect()
    }

    #[test]
    fn a_lasting_fall_to_less_than_half_is_a_collapse() {
        let found = collapse(&series(&[0.0, 0.06, 0.2, 0.09, 0.15, 0.08, 0.01, 0.0]), 0.1).unwrap();
        assert_eq!(
            found,
            Collapse {
                risen: true,
                peak: 0.2,
                peak_step: 29,
                first_half_step: Some(39),
                half_step: Some(59)
            }
        );
    }

    #[test]
    fn accuracy_that_never_was_above_chance_is_told_apart() {
        let found = collapse(&series(&[0.0, 0.09, 0.08, 0.02, 0.0, 0.01]), 0.1).unwrap();
        assert_eq!(
            found,
            Collapse {
                risen: false,
                peak: 0.09,
                peak_step: 19,
                first_half_step: None,
                half_step: None
            }
        );
    }

    #[test]
    fn dips_and_falls_at_the_very_end_are_none() {
        for values in [
            &[][..],
            &[0.0, 0.1, 0.2, 0.05, 0.2, 0.21],
            &[0.1, 0.2, 0.2, 0.05, 0.05],
            &[0.2, 0.15, 0.11, 0.11, 0.11],
            &[0.06, 0.07],
        ] {
            assert_eq!(collapse(&series(values), 0.1), None, "{values:?}");
        }
    }
}
