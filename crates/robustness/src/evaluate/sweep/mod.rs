//! Accuracy as a function of the attack: over its epsilon, over the size of a single step, over
//! PGD's steps and restarts.
//!
//! Over epsilon and step size, the curve of a network that overfits its training epsilon dips below
//! that epsilon. Over steps and restarts, the curve of an attack that has not converged still
//! falls.

mod distances;
mod epsilons;
mod warnings;

use serde::Serialize;

pub use distances::Distances;
pub use epsilons::Epsilons;
pub use warnings::warnings;

use super::Evaluator;
use crate::{
    attack::{
        AttackBatch, AttackContext, Entry, Objective, Part, RowKey,
        pgd::{Pgd, StepSize},
    },
    classifier::Access,
    error::Result,
    rows,
    stats::Accuracy,
    threat::Threat,
};

/// Numbers of PGD steps that are reported.
const STEPS: [usize; 8] = [1, 2, 5, 10, 20, 40, 70, 100];
/// Restarts of the convergence measurement, and the steps of each.
const RESTARTS: usize = 10;
const RESTART_STEPS: usize = 50;

/// Accuracies at one epsilon.
#[derive(Clone, Debug, Serialize)]
pub struct AtEpsilon {
    /// Epsilon in pixel units.
    pub epsilon: f32,
    /// Per attack.
    pub results: super::Results,
}

/// Accuracy on single-step examples of one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AtStep {
    /// Step size in pixel units.
    pub alpha: f32,
    /// Accuracy and interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// Accuracy under PGD as a number grows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AtCount {
    /// Steps, or restarts.
    pub count: usize,
    /// Accuracy and interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// Accuracy over PGD's steps and restarts.
#[derive(Clone, Debug, Serialize)]
pub struct Convergence {
    /// Over the steps of one restart, of epsilon / 4 each.
    pub steps: Vec<AtCount>,
    /// Over the restarts of 50 steps.
    pub restarts: Vec<AtCount>,
}

impl Evaluator<'_> {
    /// Accuracy on `x + alpha d`, d the direction of steepest ascent at the clean image, for
    /// `count` + 1 step sizes from 0 to 2 epsilon.
    ///
    /// # Errors
    /// [`Error::Access`](crate::Error::Access) without gradients;
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    pub fn step_sizes(&mut self, count: usize) -> Result<Vec<AtStep>> {
        self.model.access().allows("step sizes", Access::Gradients)?;
        let epsilon = self.config.threat.epsilon;
        let alphas: Vec<f32> =
            (0..=count).map(|k| 2.0 * epsilon * k as f32 / count.max(1) as f32).collect();
        let correct = self.clean_correct()?;
        let mut standing = vec![0u64; alphas.len()];
        self.observed("step sizes", correct.len(), |evaluator, progress| {
            for chunk in correct.chunks(evaluator.config.batch.max(1)) {
                evaluator.single_steps(chunk, &alphas, &mut standing)?;
                progress.advance(chunk.len());
            }
            Ok(())
        })?;
        let n = self.samples.len() as u64;
        Ok(alphas
            .into_iter()
            .zip(standing)
            .map(|(alpha, standing)| AtStep { alpha, accuracy: Accuracy::of(standing, n) })
            .collect())
    }

    /// Adds to `standing` how many of the images `chunk` stand after a single step of each of
    /// `alphas`.
    fn single_steps(&self, chunk: &[usize], alphas: &[f32], standing: &mut [u64]) -> Result<()> {
        let (threat, seed) = (self.config.threat, self.config.seed);
        let (x, labels) = (self.pixels(chunk)?, self.labels(chunk));
        let mut tick = |_| {};
        let cx = AttackContext::new(self.model, threat, seed, "step-sizes", &mut tick);
        let ascent = cx.ascend(&x, &labels, &[], Objective::CrossEntropy)?;
        for (&alpha, standing) in alphas.iter().zip(standing) {
            let mut point = x.clone();
            point.for_each(|i, row| {
                rows::ascend(threat.norm, row, ascent.grad.row(i), alpha);
                let ball = Threat { epsilon: alpha, ..threat };
                rows::project(ball, x.row(i), row);
            });
            *standing +=
                self.score(&point, &labels)?.into_iter().filter(|stands| *stands).count() as u64;
        }
        Ok(())
    }

    /// Accuracy under PGD with steps of epsilon / 4, over the number of steps and over restarts.
    ///
    /// # Errors
    /// [`Error::Access`](crate::Error::Access) without gradients;
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
    pub fn convergence(&mut self) -> Result<Convergence> {
        self.model.access().allows("pgd", Access::Gradients)?;
        let n = self.samples.len() as u64;
        let correct = self.clean_correct()?;
        let most = STEPS.iter().copied().max().unwrap_or(1);
        let pgd = Pgd {
            steps: most,
            restarts: 1,
            size: StepSize::Quarter,
            objective: Objective::CrossEntropy,
        };
        let mut fooled = Vec::with_capacity(correct.len());
        self.observed("pgd steps", correct.len(), |evaluator, progress| {
            for chunk in correct.chunks(evaluator.config.batch.max(1)) {
                fooled.extend(evaluator.trace(&pgd, chunk)?);
                progress.advance(chunk.len());
            }
            Ok(())
        })?;
        let standing =
            |after: usize| fooled.iter().filter(|at| at.is_none_or(|at| at > after)).count() as u64;
        let steps = STEPS
            .map(|count| AtCount { count, accuracy: Accuracy::of(standing(count), n) })
            .to_vec();

        let restarted = Pgd { steps: RESTART_STEPS, restarts: RESTARTS, ..pgd };
        let key = format!("pgd-{RESTART_STEPS}-restarts");
        let part =
            Part { name: "pgd restarts".into(), key: key.clone(), attack: Box::new(restarted) };
        let entry = Entry { name: part.name.clone(), parts: vec![part] };
        self.run(&[entry])?;
        let fell = self.fell_in(&key, &correct);
        let standing = |restarts: usize| {
            fell.iter().filter(|at| at.is_none_or(|at| at >= restarts)).count() as u64
        };
        let restarts = (1..=RESTARTS)
            .map(|count| AtCount { count, accuracy: Accuracy::of(standing(count), n) })
            .collect();
        Ok(Convergence { steps, restarts })
    }

    /// The steps after which each of the images `chunk` is fooled by `pgd`.
    fn trace(&self, pgd: &Pgd, chunk: &[usize]) -> Result<Vec<Option<usize>>> {
        let (threat, seed) = (self.config.threat, self.config.seed);
        let (x, labels, ids) = (self.pixels(chunk)?, self.labels(chunk), self.ids(chunk));
        let mut tick = |_| {};
        let mut cx = AttackContext::new(self.model, threat, seed, "pgd-trace", &mut tick);
        pgd.trace(&mut cx, &AttackBatch { x: &x, labels: &labels, keys: &RowKey::of(&ids, 0) })
    }
}
