//! Whether a run collapsed, by a criterion fixed before runs were looked at (docs/study.md): what
//! detectors are judged by.

use serde::Serialize;

/// How far above chance multi-step accuracy must have risen.
const RISE: f64 = 0.05;
/// What the sum of the two may lose by rounding: far less than one image.
const EQUAL: f64 = 1e-9;
/// Part of the peak below which it must have fallen for good.
const LEFT: f64 = 0.25;
/// Part of the peak that a healthy run ends with at least.
const KEPT: f64 = 0.5;
/// Validations at the end that a verdict rests on.
const LAST: usize = 3;

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Accuracy rose, and then fell below a quarter of its peak for good.
    Collapsed,
    /// Accuracy rose, and its last validations are at half of the peak or more.
    Healthy,
    /// Accuracy rose, and ended between the two.
    Between,
    /// Accuracy never was 5 points above chance.
    NeverRose,
}

/// A run's multi-step accuracy by the criterion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// What became of it.
    pub verdict: Verdict,
    /// The highest accuracy of a validation; of a collapse, before it.
    pub peak: f64,
    /// Step of that validation.
    pub peak_step: u64,
    /// Mean of the last three validations.
    pub end: f64,
    /// Of a collapse: the first validation from which on all are below a quarter of the peak.
    pub step: Option<u64>,
    /// Of a collapse: the first validation from which on all are below half of the peak, and the
    /// validation before it. The fall lies between the two.
    pub halved: Option<[u64; 2]>,
}

impl Verdict {
    /// The word in tables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collapsed => "collapsed",
            Self::Healthy => "healthy",
            Self::Between => "between",
            Self::NeverRose => "never rose",
        }
    }
}

impl Judgement {
    /// Judges `series`, pairs of (step, accuracy under a multi-step attack) in the order of the
    /// steps, where `chance` is 1 / classes. `None` for fewer than three validations.
    pub fn of(series: &[(u64, f64)], chance: f64) -> Option<Self> {
        let last = series.get(series.len().checked_sub(LAST)?..)?;
        let end = last.iter().map(|(_, accuracy)| accuracy).sum::<f64>() / LAST as f64;
        let (peak_step, peak) = peak(series)?;
        let judged = |verdict| Self { verdict, peak, peak_step, end, step: None, halved: None };
        let rose = chance + RISE - EQUAL;
        if peak < rose {
            return Some(judged(Verdict::NeverRose));
        }
        // The first validation from which on all lie below `part` of the best before it.
        let below = |part: f64| {
            let place = (1..series.len()).find(|&i| {
                let best = peak_of(&series[..i]);
                best >= rose && series[i..].iter().all(|(_, a)| *a < part * best)
            });
            place.filter(|i| series.len() - i >= LAST)
        };
        let (Some(fallen), Some(half)) = (below(LEFT), below(KEPT)) else {
            let healthy = end >= KEPT * peak;
            return Some(judged(if healthy { Verdict::Healthy } else { Verdict::Between }));
        };
        Some(Self {
            step: Some(series[fallen].0),
            halved: Some([series[half - 1].0, series[half].0]),
            ..judged(Verdict::Collapsed)
        })
    }
}

/// The first of the validations with the highest accuracy.
fn peak(series: &[(u64, f64)]) -> Option<(u64, f64)> {
    let first = *series.first()?;
    Some(series.iter().fold(first, |best, one| if one.1 > best.1 { *one } else { best }))
}

fn peak_of(series: &[(u64, f64)]) -> f64 {
    series.iter().fold(0.0, |best, (_, accuracy)| best.max(*accuracy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Judgement {
        let series: Vec<_> =
            values.iter().enumerate().map(|(i, &v)| (10 * (i as u64 + 1), v)).collect();
        Judgement::of(&series, 0.1).unwrap()
    }

    #[test]
    fn a_rise_and_a_fall_below_a_quarter_for_good_is_a_collapse() {
        // A dip that comes back is none of it; half is passed at 60, a quarter at 70.
        let found = of(&[0.1, 0.2, 0.04, 0.24, 0.2, 0.1, 0.05, 0.0, 0.05]);
        assert_eq!((found.verdict, found.peak, found.peak_step), (Verdict::Collapsed, 0.24, 40));
        assert_eq!((found.step, found.halved), (Some(70), Some([50, 60])));
    }

    #[test]
    fn what_does_not_last_or_does_not_fall_so_far_is_none() {
        // Two validations are too few, one of the last three is above, and a third is no quarter.
        for (values, verdict) in [
            (&[0.1, 0.24, 0.24, 0.24, 0.0, 0.0][..], Verdict::Between),
            (&[0.1, 0.24, 0.2, 0.0, 0.0, 0.07], Verdict::Between),
            (&[0.1, 0.24, 0.08, 0.08, 0.08], Verdict::Between),
            (&[0.1, 0.24, 0.0, 0.2, 0.19, 0.2], Verdict::Healthy),
            (&[0.1, 0.12, 0.149, 0.0, 0.0, 0.0], Verdict::NeverRose),
            (&[0.1, 0.15, 0.0, 0.0, 0.0], Verdict::Collapsed),
        ] {
            assert_eq!(of(values).verdict, verdict, "{values:?}");
        }
        assert_eq!(Judgement::of(&[(1, 0.3), (2, 0.3)], 0.1), None);
    }
}
