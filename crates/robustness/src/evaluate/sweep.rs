//! Accuracy as a function of the attack: over its epsilon, over the size of a single step, over
//! PGD's steps and restarts.
//!
//! Over epsilon and step size, the curve of a network that overfits its training epsilon dips below
//! that epsilon. Over steps and restarts, the curve of an attack that has not converged still
//! falls.

use std::str::FromStr;

use serde::Serialize;

use super::{AttackResult, Evaluator};
use crate::{
    attack::{
        Attack, AttackBatch, AttackContext, Entry, Objective, Part,
        pgd::{Pgd, StepSize},
    },
    classifier::Access,
    error::{Error, Result},
    rows,
    stats::Accuracy,
    threat::{Epsilon, Norm, Threat},
};

/// Most epsilons of a sweep.
const MOST: usize = 1000;
/// Numbers of PGD steps that are reported.
const STEPS: [usize; 8] = [1, 2, 5, 10, 20, 40, 70, 100];
/// Restarts of the convergence measurement, and the steps of each.
const RESTARTS: usize = 10;
const RESTART_STEPS: usize = 50;
/// Smallest fall of accuracy that counts as one.
const FALL: f64 = 0.005;

/// Epsilons as a user writes them: `1..32/255` (both ends belong to it), `1..32/255:2` for every
/// second, or a list such as `2/255,8/255` or `0.01,0.03`.
#[derive(Clone, Debug, PartialEq)]
pub struct Epsilons(Vec<Epsilon>);

impl Epsilons {
    /// The radii in `norm`, pixel units.
    ///
    /// # Errors
    /// [`Error`] for 1 or more in l-inf.
    pub fn within(&self, norm: Norm) -> Result<Vec<f32>> {
        let value = |epsilon: &Epsilon| Ok(epsilon.clone().within(norm)?.value());
        self.0.iter().map(value).collect()
    }

    /// `1..32/255`.
    pub fn usual() -> Self {
        Self((1..=32).map(|top| Epsilon::ratio(top, 255)).collect())
    }
}

impl FromStr for Epsilons {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem| Error::Epsilons { text: text.to_owned(), problem };
        let Some((first, rest)) = text.split_once("..") else {
            let list: Vec<Epsilon> =
                text.split(',').map(|one| one.trim().parse()).collect::<Result<_>>()?;
            return if list.len() > MOST {
                Err(wrong("more than 1000 values"))
            } else {
                Ok(Self(list))
            };
        };
        let (range, step) = rest.split_once(':').unwrap_or((rest, "1"));
        let (last, bottom) = range.split_once('/').unwrap_or((range, "1"));
        let whole = |s: &str| s.trim().parse::<u32>().ok().filter(|n| *n <= 255_000);
        let (Some(first), Some(last), Some(step)) = (whole(first), whole(last), whole(step)) else {
            return Err(wrong("not a range of whole numbers"));
        };
        let Some(bottom) = whole(bottom).filter(|n| *n > 0) else {
            return Err(wrong("not a fraction"));
        };
        if first > last || step == 0 {
            return Err(wrong("an empty range"));
        }
        let tops = (first..=last).step_by(step as usize);
        if tops.clone().nth(MOST).is_some() {
            return Err(wrong("more than 1000 values"));
        }
        let one = |top: u32| match bottom {
            1 => top.to_string().parse(),
            _ => Ok(Epsilon::ratio(top, bottom)),
        };
        Ok(Self(tops.map(one).collect::<Result<_>>()?))
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
    /// [`Error::Access`] without gradients; [`Error::Classifier`] when the classifier fails.
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
        let cx = AttackContext::new(self.model, threat, seed, "step-sizes", 0, &mut tick);
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
    /// [`Error::Access`] without gradients; [`Error::Classifier`] when the classifier fails.
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
        let mut cx = AttackContext::new(self.model, threat, seed, "pgd-trace", 0, &mut tick);
        pgd.trace(&mut cx, &AttackBatch { x: &x, labels: &labels, ids: &ids })
    }
}

/// The distance of each image from the nearest adversarial image that an attack found.
#[derive(Clone, Debug, Serialize)]
pub struct Distances {
    /// Distances of the images that are classified correctly without attack and for which an
    /// example was found, in the norm of the threat, in pixel units and ascending order.
    pub found: Vec<f64>,
    /// Number of images that are misclassified without attack.
    pub misclassified: u64,
    /// Images evaluated.
    pub n: u64,
}

impl Distances {
    /// Accuracy under the attack at the radius `epsilon`, for every radius from one run.
    pub fn accuracy(&self, epsilon: f64) -> Accuracy {
        let fallen = self.found.partition_point(|distance| *distance <= epsilon) as u64;
        Accuracy::of(self.n - self.misclassified - fallen, self.n)
    }

    /// The median distance over all images, with 0 for misclassified ones; `None` if half of the
    /// images have no adversarial example.
    pub fn median(&self) -> Option<f64> {
        let middle = (self.n as usize).div_ceil(2).saturating_sub(1);
        match middle.checked_sub(self.misclassified as usize) {
            None => Some(0.0),
            Some(place) => self.found.get(place).copied(),
        }
    }
}

impl Evaluator<'_> {
    /// The distance from each image to the nearest adversarial one that `attack` finds in all its
    /// rounds. `attack` must go on after an example within epsilon, as
    /// [`Fab`](crate::attack::fab::Fab) with `minimise` does.
    ///
    /// # Errors
    /// [`Error::Access`] where `attack` asks for more than the classifier answers;
    /// [`Error::Classifier`] when the classifier fails.
    pub fn distances(&mut self, attack: &dyn Attack) -> Result<Distances> {
        self.model.access().allows(&attack.key(), attack.needs())?;
        let correct = self.clean_correct()?;
        let rounds = attack.rounds(self.model.shape().classes);
        let n = self.samples.len() as u64;
        let mut found = Vec::new();
        self.observed("distances", correct.len() * rounds, |evaluator, progress| {
            for chunk in correct.chunks(evaluator.config.batch.max(1)) {
                let mut nearest = vec![f64::INFINITY; chunk.len()];
                for round in 0..rounds {
                    evaluator.nearest(attack, round, chunk, &mut nearest)?;
                    progress.advance(chunk.len());
                }
                found.extend(nearest.into_iter().filter(|distance| distance.is_finite()));
            }
            Ok(())
        })?;
        found.sort_by(f64::total_cmp);
        Ok(Distances { found, misclassified: n - correct.len() as u64, n })
    }

    /// Lowers `nearest` to the distances that a round of `attack` finds for the images `chunk`.
    fn nearest(
        &self,
        attack: &dyn Attack,
        round: usize,
        chunk: &[usize],
        nearest: &mut [f64],
    ) -> Result<()> {
        let (threat, seed) = (self.config.threat, self.config.seed);
        let (x, labels, ids) = (self.pixels(chunk)?, self.labels(chunk), self.ids(chunk));
        let mut tick = |_| {};
        let key = attack.key();
        let mut cx = AttackContext::new(self.model, threat, seed, &key, round, &mut tick);
        let mut points = attack.run(&mut cx, &AttackBatch { x: &x, labels: &labels, ids: &ids })?;
        // The evaluator does not rely on the attack: it clips to the box and asks the network
        // itself.
        points.iter_mut().for_each(|v| *v = if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) });
        for (i, stands) in self.score(&points, &labels)?.into_iter().enumerate() {
            let distance = rows::distance(threat.norm, points.row(i), x.row(i));
            if !stands && distance < nearest[i] {
                nearest[i] = distance;
            }
        }
        Ok(())
    }
}

/// Warnings for a reader of the curves; `trained` is the epsilon of the training.
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
            let values = text.parse::<Epsilons>()?.within(Norm::Linf)?;
            Ok(values.iter().map(|v| (v * 255_000.0).round() as i64).collect::<Vec<_>>())
        };
        let of = |text: &str| read(text).unwrap_or_else(|e: Error| panic!("{text}: {e}"));
        assert_eq!(of("1..4/255"), [1000, 2000, 3000, 4000]);
        assert_eq!(of("0..8/255:4"), [0, 4000, 8000]);
        assert_eq!(of("2/255,8/255,0.5"), [2000, 8000, 127_500]);
        assert_eq!(read("1..32/255").unwrap(), read("1..32/255:1").unwrap());
        assert_eq!(Epsilons::usual(), "1..32/255".parse().unwrap());
        assert_eq!(Epsilons::usual().within(Norm::Linf).unwrap()[7], (8.0f64 / 255.0) as f32);
        for (text, meant) in [("8", "8/255"), ("1..32", "1/255"), ("2,4,8", "2/255")] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(&format!("did you mean {meant}?")), "{said}");
            assert!(text.parse::<Epsilons>().unwrap().within(Norm::L2).is_ok());
        }
        for wrong in [
            "",
            "4..1/255",
            "1..",
            "a..b",
            "1..4/255:0",
            "1..100000/255",
            "-1",
            "1/255,,2/255",
            "1..4/0",
        ] {
            assert!(read(wrong).is_err_and(|e| e.is_input()), "{wrong}");
        }
    }
}
