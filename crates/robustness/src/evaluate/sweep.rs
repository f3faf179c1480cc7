//! Accuracy as a function of the attack: over its epsilon, over the size of a single step, over
//! PGD's steps and restarts.
//!
//! Over epsilon and step size a network that overfits its training epsilon shows a dip below it;
//! over steps and restarts an attack that has not converged shows a curve that still falls.

use std::str::FromStr;

use serde::Serialize;

use super::{AttackResult, Evaluator};
use crate::{
    attack::{AttackContext, Batch, Entry, Objective, Part, pgd::Pgd},
    error::{Error, Result},
    rows,
    stats::Accuracy,
    threat::{Epsilon, Threat},
};

/// Most epsilons of a sweep.
const MOST: usize = 1000;
/// Numbers of PGD steps that are reported.
const STEPS: [usize; 8] = [1, 2, 5, 10, 20, 40, 70, 100];
/// Restarts of the convergence measurement, and the steps of each.
const RESTARTS: usize = 10;
const RESTART_STEPS: usize = 50;
/// A fall that counts as one.
const FALL: f64 = 0.005;

/// Epsilons as a user writes them: `1..32` (in units of 1/255, both ends belong to it), `1..32:2`,
/// or a list such as `2,4,8` or `64/255,0.5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Epsilons(pub Vec<f32>);

impl FromStr for Epsilons {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem| Error::Epsilons { text: text.to_owned(), problem };
        let whole = |s: &str| s.trim().parse::<u32>().ok().filter(|n| *n <= 255_000);
        let of_255 = |n: u32| (f64::from(n) / 255.0) as f32;
        let values: Vec<f32> = if let Some((first, rest)) = text.split_once("..") {
            let (last, step) = rest.split_once(':').unwrap_or((rest, "1"));
            let (Some(first), Some(last), Some(step)) = (whole(first), whole(last), whole(step))
            else {
                return Err(wrong("not a range of whole numbers"));
            };
            if first > last || step == 0 {
                return Err(wrong("an empty range"));
            }
            (first..=last).step_by(step as usize).take(MOST + 1).map(of_255).collect()
        } else {
            let value = |s: &str| match whole(s) {
                Some(n) => Ok(of_255(n)),
                None => s.trim().parse::<Epsilon>().map(|epsilon| epsilon.value()),
            };
            text.split(',').map(value).collect::<Result<_>>()?
        };
        if values.len() > MOST {
            return Err(wrong("more than 1000 values"));
        }
        Ok(Self(values))
    }
}

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
    /// A device that fails.
    pub fn step_sizes(&mut self, count: usize) -> Result<Vec<AtStep>> {
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
        let cx = AttackContext::new(self.model, threat, seed, "step-sizes", 0, &mut tick);
        let (ascent, width) = (cx.ascend(&x, &labels, &[], Objective::CrossEntropy)?, cx.pixels());
        for (&alpha, standing) in alphas.iter().zip(standing) {
            let mut point = x.clone();
            rows::for_each(&mut point, width, |i, row| {
                rows::ascend(threat.norm, row, rows::row(&ascent.grad, width, i), alpha);
                let ball = Threat { epsilon: alpha, ..threat };
                rows::project(ball, rows::row(&x, width, i), row);
            });
            *standing +=
                self.score(&point, &labels)?.into_iter().filter(|stands| *stands).count() as u64;
        }
        Ok(())
    }

    /// Accuracy under PGD with steps of epsilon / 4, over the number of steps and over restarts.
    ///
    /// # Errors
    /// A device that fails.
    pub fn convergence(&mut self) -> Result<Convergence> {
        let n = self.samples.len() as u64;
        let correct = self.clean_correct()?;
        let most = STEPS.iter().copied().max().unwrap_or(1);
        let pgd = Pgd { steps: most, restarts: 1, alpha: None, objective: Objective::CrossEntropy };
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
        let mut cx = AttackContext::new(self.model, threat, seed, "pgd-trace", 0, &mut tick);
        pgd.trace(&mut cx, &Batch { x: &x, labels: &labels, ids: &ids })
    }
}

/// What a reader of the curves should know; `trained` is the epsilon trained with.
pub fn warnings(
    epsilons: &[AtEpsilon],
    steps: &[AtStep],
    convergence: Option<&Convergence>,
    trained: f32,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let in_255 = |value: f32| format!("{:.1}/255", value * 255.0);
    // Accuracy under a fixed attack cannot rise with epsilon: the smaller ball lies in the larger.
    let mut rises: Vec<(&str, f32, f32, f64)> = Vec::new();
    for pair in epsilons.windows(2) {
        for (name, low) in &pair[0].results.0 {
            let high =
                pair[1].results.get(name).map_or(0.0, |high: &AttackResult| high.accuracy.accuracy);
            let rise = high - low.accuracy.accuracy;
            if rise > 0.02
                && pair[0].epsilon < pair[1].epsilon
                && !rises.iter().any(|(found, ..)| found == name)
            {
                rises.push((name, pair[0].epsilon, pair[1].epsilon, rise));
            }
        }
    }
    for (name, from, to, rise) in rises {
        warnings.push(format!(
            "{name} accuracy rises by {:.1} points from epsilon {} to {}: the attack is weaker on the larger ball, which means masked gradients or a network that overfits its training epsilon",
            100.0 * rise,
            in_255(from),
            in_255(to)
        ));
    }
    let at_trained =
        steps.iter().min_by(|a, b| (a.alpha - trained).abs().total_cmp(&(b.alpha - trained).abs()));
    let weakest = steps
        .iter()
        .filter(|step| step.alpha < trained)
        .min_by(|a, b| a.accuracy.accuracy.total_cmp(&b.accuracy.accuracy));
    if let (Some(at), Some(weakest)) = (at_trained, weakest)
        && weakest.accuracy.accuracy < at.accuracy.accuracy - 0.02
    {
        warnings.push(format!(
            "single steps of {} leave less standing ({:.4}) than steps of the training size {} ({:.4}): the network is tuned to one step size (epsilon overfitting), as after catastrophic overfitting; only multi-step figures count",
            in_255(weakest.alpha),
            weakest.accuracy.accuracy,
            in_255(at.alpha),
            at.accuracy.accuracy
        ));
    }
    if let Some(Convergence { steps, restarts }) = convergence {
        let falls = |curve: &[AtCount], from: usize| {
            let at = |count: usize| {
                curve.iter().find(|at| at.count == count).map(|at| at.accuracy.accuracy)
            };
            let last = curve.last()?;
            let fall = at(from)? - last.accuracy.accuracy;
            (fall > FALL).then_some((fall, last.count))
        };
        if let Some((fall, last)) = falls(steps, 40) {
            warnings.push(format!(
                "PGD accuracy still falls by {:.1} points from 40 to {last} steps: figures of PGD with few steps are too high here; use autoattack",
                100.0 * fall
            ));
        }
        if let Some((fall, last)) = falls(restarts, 5) {
            warnings.push(format!(
                "PGD accuracy still falls by {:.1} points from 5 to {last} restarts: the loss surface is rugged; use more restarts or autoattack",
                100.0 * fall
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilons_are_read() {
        let read = |text: &str| {
            text.parse::<Epsilons>().map(|e| {
                e.0.iter().map(|v| (v * 255.0 * 1000.0).round() as i64).collect::<Vec<_>>()
            })
        };
        assert_eq!(read("1..4").unwrap(), [1000, 2000, 3000, 4000]);
        assert_eq!(read("0..8:4").unwrap(), [0, 4000, 8000]);
        assert_eq!(read("2,8/255,0.5").unwrap(), [2000, 8000, 127_500]);
        for wrong in
            ["", "4..1", "1..", "a..b", "1..4:0", "1..100000", "-1", "1,,2", "1..99999999999"]
        {
            assert!(read(wrong).is_err_and(|e| e.is_input()), "{wrong}");
        }
    }
}
