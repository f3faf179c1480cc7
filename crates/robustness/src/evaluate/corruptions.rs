//! Accuracy on corrupted images.

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::Evaluator;
use crate::{
    corruption::{Corruption, Family, Severity},
    error::Result,
    observer::{EvalEvent, Progress},
    rows::Rows,
    stats::Accuracy,
};

/// The beginning of the names of corruptions in the ledger.
pub(super) const CORRUPTION: &str = "corruption-";
/// Standard errors of a 95 % interval.
const BEYOND: f64 = 1.96;

/// Accuracies on corrupted images.
#[derive(Clone, Debug, Serialize)]
pub struct Corruptions {
    /// Mean over corruptions and severities. The interval is over images: an image counts with the
    /// share of its corrupted forms that are classified correctly.
    pub mean: Accuracy,
    /// Means over corruptions by severity, 1 first.
    pub by_severity: [f64; 5],
    /// Means over the corruptions of a family that were asked for, and the severities.
    pub by_family: Vec<FamilyResult>,
    /// Corruption by corruption.
    pub each: Vec<CorruptionResult>,
    /// What was done differently than the published images.
    pub notes: Vec<&'static str>,
}

/// Mean accuracy over the corruptions of a family.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FamilyResult {
    /// The family.
    pub family: Family,
    /// Mean accuracy.
    pub accuracy: f64,
}

/// Accuracies under one corruption.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CorruptionResult {
    /// The corruption.
    pub corruption: Corruption,
    /// Its kind.
    pub family: Family,
    /// Mean over the severities.
    pub mean: f64,
    /// Accuracy at severities 1 to 5.
    pub accuracy: [f64; 5],
    /// Wall-clock seconds, the making of the images with them.
    pub seconds: f64,
}

impl Evaluator<'_> {
    /// Classifies all images under each corruption of `list` at each severity.
    ///
    /// # Errors
    /// A device that fails.
    pub fn corrupted(&mut self, list: &[Corruption]) -> Result<Corruptions> {
        let _session = self.model.session();
        self.shared(|evaluator, images| evaluator.corrupted_on(images, list))
    }

    /// Classifies the images `all` under each corruption of `list` at each severity.
    fn corrupted_on(&mut self, all: &[usize], list: &[Corruption]) -> Result<Corruptions> {
        let mut standing = vec![0u32; all.len()];
        let mut each = Vec::with_capacity(list.len());
        for &corruption in list {
            let mut result = CorruptionResult {
                corruption,
                family: corruption.family(),
                mean: 0.0,
                accuracy: [0.0; 5],
                seconds: 0.0,
            };
            let total = all.len() * Severity::ALL.len();
            self.observed(corruption.name(), total, |evaluator, progress| {
                for (severity, accuracy) in Severity::ALL.into_iter().zip(&mut result.accuracy) {
                    let key = evaluator.corrupt(corruption, severity, all, progress)?;
                    let ids = all.iter().map(|&i| evaluator.id(i));
                    result.seconds += evaluator.ledger.seconds(&key, 1, ids);
                    let mut correct = 0;
                    for (&i, count) in all.iter().zip(&mut standing) {
                        let stands = evaluator.ledger.survived(&key, evaluator.id(i), 1);
                        *count += u32::from(stands);
                        correct += u32::from(stands);
                    }
                    *accuracy = f64::from(correct) / all.len().max(1) as f64;
                }
                Ok(())
            })?;
            result.mean = mean(&result.accuracy);
            each.push(result);
        }
        Ok(Corruptions::of(each, &standing))
    }

    /// Classifies the images `all` under one corruption, as far as that is not known; what the
    /// ledger calls it.
    fn corrupt(
        &mut self,
        corruption: Corruption,
        severity: Severity,
        all: &[usize],
        progress: &mut Progress<'_>,
    ) -> Result<String> {
        let key = format!("{CORRUPTION}{corruption}-{}", severity.number());
        self.ledger.ask(&key, 1);
        let pending: Vec<usize> =
            all.iter().copied().filter(|&i| !self.ledger.knows(&key, self.id(i), 0)).collect();
        progress.advance(all.len() - pending.len());
        let (shape, seed) = (self.samples.shape(), self.config.seed);
        for chunk in pending.chunks(self.config.batch.max(1)) {
            let (started, before) = (Instant::now(), self.model.queries());
            let (x, ids) = (self.pixels(chunk)?, self.ids(chunk));
            let rows: Vec<Vec<f32>> = (0..chunk.len())
                .into_par_iter()
                .map(|i| corruption.of_row(severity, shape, x.row(i), seed, ids[i]))
                .collect();
            let x = Rows::new(rows.concat(), x.width());
            let stands = self.score(&x, &self.labels(chunk))?;
            let spent = self.spent_since(started, before);
            self.ledger.add(&key, 0, &ids, &stands, spent, &[]);
            if let Some(error) = self.ledger.news() {
                progress.tell(&EvalEvent::StateLost { error });
            }
            progress.advance(chunk.len());
        }
        Ok(key)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Corruptions {
    /// The figures of `each`; `standing`: how many corrupted forms of each image are classified
    /// correctly.
    fn of(each: Vec<CorruptionResult>, standing: &[u32]) -> Self {
        let forms = (each.len() * Severity::ALL.len()).max(1) as f64;
        let shares: Vec<f64> = standing.iter().map(|&n| f64::from(n) / forms).collect();
        let accuracy = mean(&shares);
        let squares: f64 = shares.iter().map(|share| (share - accuracy).powi(2)).sum();
        let n = shares.len() as f64;
        let error = (squares / (n - 1.0).max(1.0) / n.max(1.0)).sqrt();
        let ci95 = [-BEYOND, BEYOND].map(|z| (accuracy + z * error).clamp(0.0, 1.0));
        let by_family = Family::ALL.into_iter().filter_map(|family| {
            let means: Vec<f64> =
                each.iter().filter(|one| one.family == family).map(|one| one.mean).collect();
            (!means.is_empty()).then(|| FamilyResult { family, accuracy: mean(&means) })
        });
        let by_severity = std::array::from_fn(|k| {
            mean(&each.iter().map(|one| one.accuracy[k]).collect::<Vec<_>>())
        });
        let frost = each.iter().any(|one| one.corruption == Corruption::Frost);
        let notes = frost.then_some(
            "frost: a drawn texture of the same colours and spread in place of the five \
             photographs of the published images",
        );
        Self {
            mean: Accuracy { accuracy, ci95 },
            by_severity,
            by_family: by_family.collect(),
            notes: notes.into_iter().collect(),
            each,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_their_interval_by_hand() {
        let of = |corruption: Corruption, accuracy: [f64; 5]| CorruptionResult {
            corruption,
            family: corruption.family(),
            mean: mean(&accuracy),
            accuracy,
            seconds: 0.0,
        };
        // Two images, two corruptions: of ten forms, 10 and 4 are right.
        let each = vec![
            of(Corruption::Fog, [1.0, 1.0, 1.0, 0.5, 0.5]),
            of(Corruption::Contrast, [1.0, 0.5, 0.5, 0.5, 0.5]),
        ];
        let found = Corruptions::of(each, &[10, 4]);
        assert!((found.mean.accuracy - 0.7).abs() < 1e-12);
        // Standard deviation of (1, 0.4): 0.4243; over sqrt 2: 0.3.
        assert!((found.mean.ci95[0] - (0.7 - 1.96 * 0.3)).abs() < 1e-9, "{:?}", found.mean);
        assert_eq!(found.by_severity, [1.0, 0.75, 0.75, 0.5, 0.5]);
        let families: Vec<_> = found.by_family.iter().map(|f| (f.family, f.accuracy)).collect();
        assert_eq!(families.len(), 2);
        assert!(families[0] == (Family::Weather, 0.8) && families[1].0 == Family::Digital);
        assert!(found.notes.is_empty());
    }
}
