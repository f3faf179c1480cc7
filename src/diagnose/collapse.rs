//! When robust accuracy was lost, from the validations of a run: what the detector is judged against.

use serde::Serialize;

/// Accuracy that there must have been before it can be lost.
const LEAST_PEAK: f64 = 0.05;
/// Validations after the fall that must confirm it.
const CONFIRM: usize = 2;

/// A lasting loss of multi-step accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Collapse {
    /// Best accuracy before, as a fraction.
    pub peak: f64,
    /// Step of that validation.
    pub peak_step: u64,
    /// First step whose validation found less than half of the best before it, even if a later one found more again.
    pub first_half_step: u64,
    /// First step from which on every validation found less than half of the best before it.
    pub half_step: u64,
}

/// Looks for a lasting fall to less than half in `series`, pairs of (step, accuracy under a multi-step attack) in the order of the steps.
///
/// A run counts as collapsed when the accuracy was 5 % or more, and its last validations, at least three, all lie below half of the best before.
pub fn collapse(series: &[(u64, f64)]) -> Option<Collapse> {
    let mut peaks = Vec::with_capacity(series.len());
    for &(step, accuracy) in series {
        let before: (u64, f64) = peaks.last().copied().unwrap_or((step, 0.0));
        peaks.push(if accuracy > before.1 { (step, accuracy) } else { before });
    }
    let below = |i: usize| peaks[i].1 >= LEAST_PEAK && series[i].1 < peaks[i].1 / 2.0;
    let lasting = (0..series.len()).rev().take_while(|&i| below(i)).last()?;
    if series.len() - lasting <= CONFIRM {
        return None;
    }
    let first = (0..=lasting).find(|&i| below(i)).unwrap_or(lasting);
    let (peak_step, peak) = peaks[lasting];
    Some(Collapse { peak, peak_step, first_half_step: series[first].0, half_step: series[lasting].0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Vec<(u64, f64)> {
        values.iter().enumerate().map(|(i, &v)| (10 * i as u64 + 9, v)).collect()
    }

    #[test]
    fn a_lasting_fall_to_less_than_half_is_a_collapse() {
        let found = collapse(&series(&[0.0, 0.06, 0.2, 0.09, 0.15, 0.08, 0.01, 0.0])).unwrap();
        assert_eq!(found, Collapse { peak: 0.2, peak_step: 29, first_half_step: 39, half_step: 59 });
    }

    #[test]
    fn dips_slow_starts_and_falls_at_the_very_end_are_none() {
        for values in [
            &[][..],
            &[0.0, 0.0, 0.0, 0.0],
            &[0.04, 0.0, 0.0, 0.0, 0.0],
            &[0.1, 0.2, 0.05, 0.2, 0.21],
            &[0.1, 0.2, 0.2, 0.05, 0.05],
            &[0.2, 0.15, 0.11, 0.11, 0.11],
        ] {
            assert_eq!(collapse(&series(values)), None, "{values:?}");
        }
    }
}
