//! Epsilon overfitting: accuracy over the radius of the attack, for several weights of a run.
//!
//! For a single step the radius is also the step size. A network that has overfitted to its
//! training epsilon withstands that epsilon and falls below it.

use robustness::{Classifier, EvalConfig, Evaluator, Ledger, Samples, attack, rows, stands};
use serde::{Deserialize, Serialize};

use super::{
    Opened, cache,
    passes::{self, Images},
    weights::{Choice, load},
};
use crate::{
    error::Result,
    evaluate::OnSplit,
    report::caption::Setting,
    threat::{Norm, Threat},
};

/// Accuracies of one set of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpsilonRow {
    /// The name of the weights.
    pub weights: String,
    /// Digest of all that decides the counts; empty in files of older versions.
    #[serde(default)]
    pub of: String,
    /// Number of images that are classified correctly without attack.
    pub clean: u64,
    /// Number of images that withstand a single step of each epsilon.
    pub single: Vec<u64>,
    /// Number of images that withstand pgd-10 of each of the multi-step epsilons.
    pub multi: Vec<u64>,
}

/// Accuracies of several weights of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpsilonSweep {
    /// Number of images.
    pub n: u64,
    /// Seed of the random starts.
    pub seed: u64,
    /// Radii of the single step, pixel units.
    pub epsilons: Vec<f32>,
    /// Radii of pgd-10, pixel units.
    pub multi_epsilons: Vec<f32>,
    /// One row for each set of weights, oldest first.
    pub rows: Vec<EpsilonRow>,
}

/// Accuracies over epsilon of several weights of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// The name of the run.
    pub name: String,
    /// Data set, network, threat model and seed, for the caption.
    pub about: Setting,
    /// Radius of the training, in pixel units.
    pub epsilon: f64,
    /// Factor from pixel units to `unit`.
    pub factor: f64,
    /// Unit of radii.
    pub unit: &'static str,
    /// The counts.
    pub data: EpsilonSweep,
}

impl EpsilonSweep {
    /// The radii for a threat, without rows: 1/255 to 32/255 in l-inf, up to four times the
    /// training's radius in l2; pgd-10 gets a few of them and the training's radius.
    pub fn plan(threat: Threat, n: u64, seed: u64) -> Self {
        let unit = match threat.norm {
            Norm::Linf => 1.0 / 255.0,
            Norm::L2 | Norm::L1 => threat.epsilon / 8.0,
        };
        let mut multi: Vec<f32> = [4.0, 8.0, 12.0, 16.0, 24.0, 32.0].map(|i| i * unit).to_vec();
        if multi.iter().all(|e| (e - threat.epsilon).abs() > 1e-6) && threat.epsilon > 0.0 {
            multi.push(threat.epsilon);
            multi.sort_by(f32::total_cmp);
        }
        let epsilons = (1..=32u8).map(|i| f32::from(i) * unit).collect();
        Self { n, seed, epsilons, multi_epsilons: multi, rows: Vec::new() }
    }
}

/// Accuracies of `model`, in eval mode, on all of `samples` at the radii of `sweep`.
///
/// # Errors
/// [`Error`](crate::Error) without images, or when a device fails.
pub fn epsilon_row(
    model: &dyn Classifier,
    samples: &dyn Samples,
    threat: Threat,
    sweep: &EpsilonSweep,
    weights: &str,
    batch: usize,
) -> Result<EpsilonRow> {
    let mut row = EpsilonRow {
        weights: weights.to_owned(),
        of: String::new(),
        clean: 0,
        single: vec![0; sweep.epsilons.len()],
        multi: Vec::new(),
    };
    let all: Vec<usize> = (0..samples.len()).collect();
    for indices in all.chunks(batch.max(1)) {
        let images = Images::of(samples, indices)?;
        single_steps(model, threat, &images, &sweep.epsilons, &mut row)?;
    }
    for epsilon in &sweep.multi_epsilons {
        let threat = Threat { epsilon: *epsilon, ..threat };
        let config = EvalConfig { seed: sweep.seed, batch, ..EvalConfig::under(threat) };
        let mut evaluator = Evaluator::new(model, samples, config, Ledger::in_memory())?;
        let outcome = evaluator.run(&[attack::entry("pgd-10", threat.norm)?])?;
        row.multi.push(outcome.results.0.first().map_or(0, |(_, result)| result.correct));
    }
    Ok(row)
}

/// Counts the images that stand without attack, and those that withstand a single step of each
/// radius.
fn single_steps(
    model: &dyn Classifier,
    threat: Threat,
    images: &Images,
    epsilons: &[f32],
    row: &mut EpsilonRow,
) -> Result<()> {
    let width = images.width();
    // One gradient serves all radii.
    let direction = passes::ascent(model, threat.norm, &images.x, &images.labels)?;
    let clean = correct(model, &images.x, &images.labels)?;
    row.clean += clean.iter().filter(|stands| **stands).count() as u64;
    for (count, epsilon) in row.single.iter_mut().zip(epsilons) {
        let mut point = images.x.clone();
        rows::for_each(&mut point, width, |i, point| {
            let along = rows::row(&direction, width, i);
            point.iter_mut().zip(along).for_each(|(p, d)| *p = (*p + epsilon * d).clamp(0.0, 1.0));
        });
        let still = correct(model, &point, &images.labels)?;
        *count += clean.iter().zip(still).filter(|(clean, still)| **clean && *still).count() as u64;
    }
    Ok(())
}

fn correct(model: &dyn Classifier, x: &[f32], labels: &[usize]) -> Result<Vec<bool>> {
    let classes = model.shape().classes;
    let logits = model.logits(x)?;
    let each = logits.chunks(classes).zip(labels);
    Ok(each.map(|(logits, label)| stands(logits, *label)).collect())
}

impl Opened<'_> {
    /// Accuracies over epsilon for the weights that `choice` names, at most `count`.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for damaged weights, or when a device fails.
    pub fn sweep(&mut self, choice: &Choice, count: usize) -> Result<Sweep> {
        let wanted = self.weights(choice, count)?;
        let split = OnSplit(self.dataset.test.take(self.options.limit));
        let threat = self.settings().threat();
        let data = EpsilonSweep::plan(threat, split.len() as u64, self.options.seed);
        let file = self.run.dir().plots().join("epsilon.json");
        let known: Option<EpsilonSweep> = cache::known(&file).filter(|found: &EpsilonSweep| {
            *found == EpsilonSweep { rows: found.rows.clone(), ..data.clone() }
        });
        let mut known: Vec<EpsilonRow> = known.map(|found| found.rows).unwrap_or_default();
        let mut rows = Vec::new();
        for weights in &wanted {
            load(&mut self.subject.model, weights)?;
            let of = self.identity(&split)?;
            let name = weights.name.clone();
            if let Some(i) = known.iter().position(|row| row.of == of) {
                rows.push(EpsilonRow { weights: name, ..known.swap_remove(i) });
                continue;
            }
            let (run, n) = (&self.run.name, data.n);
            tracing::info!("{run}: accuracy over epsilon at {name} on {n} images");
            let (model, batch) = (&self.subject.model, self.options.batch);
            let row = epsilon_row(model, &split, threat, &data, &name, batch)?;
            rows.push(EpsilonRow { of, ..row });
            // The rows are kept after each of them, so that an interruption loses only one.
            let rows = rows.iter().chain(&known).cloned().collect();
            cache::keep(&file, &EpsilonSweep { rows, ..data.clone() });
        }
        let (factor, unit) = self.run.unit();
        Ok(Sweep {
            name: self.run.name.clone(),
            about: self.about(),
            epsilon: f64::from(threat.epsilon),
            factor,
            unit,
            data: EpsilonSweep { rows, ..data },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::passes::tests::Plane, *};

    #[test]
    fn radii_go_up_to_32_and_hold_the_one_trained_with() {
        let plan = |norm, epsilon| EpsilonSweep::plan(Threat { norm, epsilon }, 10, 0);
        let linf = plan(Norm::Linf, 10.0 / 255.0);
        assert_eq!(linf.epsilons.len(), 32);
        assert!((linf.epsilons[31] - 32.0 / 255.0).abs() < 1e-6);
        assert!(linf.multi_epsilons.contains(&(10.0 / 255.0)));
        assert_eq!(plan(Norm::Linf, 8.0 / 255.0).multi_epsilons.len(), 6);
        assert!((plan(Norm::L2, 0.5).epsilons[31] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_single_step_fells_an_image_at_its_distance_from_the_boundary() {
        let model = Plane { w: vec![1.0, -1.0], b: 0.0 };
        let images = Images { x: vec![0.6, 0.4, 0.3, 0.7], labels: vec![1, 1], ids: vec![0, 1] };
        let threat = Threat { norm: Norm::Linf, epsilon: 0.1 };
        let mut row = EpsilonRow { single: vec![0; 3], ..EpsilonRow::default() };
        single_steps(&model, threat, &images, &[0.05, 0.09, 0.11], &mut row).unwrap();
        assert_eq!((row.clean, row.single), (1, vec![1, 1, 0]));
    }
}
