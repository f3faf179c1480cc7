//! Detects catastrophic overfitting while training, for every method, from figures that cost
//! nothing.
//!
//! PertAlign near 1 means a locally linear loss, on which a single step finds the worst
//! perturbation (SORA, arXiv 2606.00738). Its level depends on method, epsilon and network, so the
//! detector looks for a fall below the level that the run itself had reached. It compares the mean
//! of the newest few steps with the best mean over a longer window, in units of the scatter between
//! neighbouring steps, which a trend does not inflate. Linearity is followed in the same way. Two
//! further signs are a PertAlign that never rises, and validations in which pgd accuracy is less
//! than half of fgsm accuracy.
//!
//! `docs/catastrophic-overfitting.md` derives the thresholds and reports how often, and how early,
//! the detector was right.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    run::log::{StepLine, ValFigures},
    stats::normal_cdf,
};

/// Number of steps over which a level is measured.
pub const WINDOW: usize = 20;
/// Number of newest steps whose mean is compared with the level.
const NEWEST: usize = 5;
/// A fall below this fraction of the best level is the sign.
const FRACTION: f64 = 0.6;
/// Levels that must have been reached before a fall counts; below them PertAlign and linearity
/// fluctuate.
const LEAST_PERT_ALIGN: f64 = 0.17;
const LEAST_LINEARITY: f64 = 0.5;
/// Number of standard errors by which the newest mean must lie beyond the threshold: one-sided 99
/// %.
const BEYOND: f64 = 2.326;
/// The time by which PertAlign should have risen to [`RISEN`]: this many steps, and as much
/// training as this many steps at the largest learning rate.
const RISEN_BY: u64 = 100;
const RISEN_BY_TRAINING: f64 = 25.0;
const RISEN: f64 = 0.12;
/// pgd accuracy that a validation must have reached before its fall counts.
const LEAST_PGD: f64 = 0.05;

/// The sign that revealed catastrophic overfitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoSign {
    /// PertAlign fell.
    #[default]
    PertAlign,
    /// Linearity fell.
    Linearity,
    /// PertAlign never rose.
    Low,
    /// Validation: pgd accuracy below half of fgsm accuracy.
    Gap,
}

/// Where catastrophic overfitting set in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoEvent {
    /// The step at which the detector noticed it.
    pub step: u64,
    /// Number of steps up to which training was in order.
    pub onset: u64,
    /// The sign that revealed it.
    pub sign: CoSign,
    /// The value before: the best level of PertAlign or linearity, or the fgsm accuracy.
    pub from: f64,
    /// The value at `step`: the newest mean of PertAlign or linearity, or the pgd accuracy.
    pub to: f64,
    /// Probability that the true mean lies beyond the threshold, given the scatter between steps or
    /// the number of validation images.
    pub sure: f64,
}

impl fmt::Display for CoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, onset, from, to, sure, .. } = self;
        write!(f, "catastrophic overfitting at step {step} (all was well until {onset}): ")?;
        match self.sign {
            CoSign::PertAlign => write!(f, "PertAlign fell from {from:.2} to {to:.2}")?,
            CoSign::Linearity => write!(f, "linearity fell from {from:.2} to {to:.2}")?,
            CoSign::Low => write!(f, "PertAlign never rose beyond {from:.2}")?,
            CoSign::Gap => {
                write!(f, "validation accuracy is {from:.3} under fgsm and {to:.3} under pgd-10")?
            }
        }
        write!(
            f,
            "; sure to {:.1} %; robustness against multi-step attacks is collapsing",
            100.0 * sure
        )
    }
}

/// A figure followed from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Track {
    /// The newest values, at most a window of them.
    recent: Vec<f32>,
    /// Best mean over a window so far.
    best: f64,
    /// Number of steps up to which the newest mean was nearer to the best than to the threshold.
    good: u64,
}

/// The state of a [`Track`].
struct Level {
    newest: f64,
    /// Standard deviation of a single step.
    deviation: f64,
}

impl Level {
    /// Standard error of a mean over `steps`.
    fn error(&self, steps: usize) -> f64 {
        (self.deviation / (steps as f64).sqrt()).max(1e-6)
    }
}

impl Track {
    /// Adds the value of step `step`; returns `None` until a window is full. Levels below `least`
    /// do not count as in order.
    fn observe(&mut self, step: u64, value: f32, least: f64) -> Option<Level> {
        if self.recent.len() >= WINDOW {
            self.recent.remove(0);
        }
        self.recent.push(value);
        if self.recent.len() < WINDOW {
            return None;
        }
        let mean = |values: &[f32]| {
            values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
        };
        self.best = self.best.max(mean(&self.recent));
        let newest = mean(&self.recent[WINDOW - NEWEST..]);
        // The variance is half the mean square of successive differences (von Neumann 1941).
        let squares: f64 =
            self.recent.windows(2).map(|pair| f64::from(pair[1] - pair[0]).powi(2)).sum();
        let deviation = (squares / (WINDOW - 1) as f64 / 2.0).sqrt();
        if self.best >= least && newest >= (1.0 + FRACTION) / 2.0 * self.best {
            self.good = (step + 1).saturating_sub(NEWEST as u64);
        }
        Some(Level { newest, deviation })
    }

    /// The distance of `level` below the threshold, in standard errors; `None` before the figure
    /// has reached `least`.
    fn fall(&self, level: &Level, least: f64) -> Option<f64> {
        (self.best >= least).then(|| (FRACTION * self.best - level.newest) / level.error(NEWEST))
    }
}

/// Follows a run step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoDetector {
    pert_align: Track,
    linearity: Track,
    /// Number of steps seen.
    steps: u64,
    /// Sum of the steps' learning rates, in units of the largest rate.
    training: f64,
    /// Best pgd accuracy of a validation.
    pgd: f64,
    /// Number of steps up to which the validations were in order.
    validated: Option<u64>,
    event: Option<CoEvent>,
}

impl CoDetector {
    /// Adds a step of a run with the largest learning rate `lr_max`; returns the event at the step
    /// where it is first noticed.
    pub fn observe(&mut self, line: &StepLine, lr_max: f64) -> Option<CoEvent> {
        // Without a perturbation there is nothing to overfit to, and a figure that is not finite
        // has no meaning.
        if line.delta_mean == 0.0 || !line.pert_align.is_finite() || !line.linearity.is_finite() {
            return None;
        }
        self.steps += 1;
        self.training += f64::from(line.lr) / lr_max.max(f64::MIN_POSITIVE);
        let align = self.pert_align.observe(line.step, line.pert_align, LEAST_PERT_ALIGN);
        let linear = self.linearity.observe(line.step, line.linearity, LEAST_LINEARITY);
        let (Some(align), Some(linear), None) = (align, linear, self.event) else {
            return None;
        };
        let found = |sign, from, to, beyond| {
            Some(CoEvent {
                step: line.step,
                onset: self.safe(),
                sign,
                from,
                to,
                sure: normal_cdf(beyond),
            })
        };
        let best = self.pert_align.best;
        self.event = match (
            self.pert_align.fall(&align, LEAST_PERT_ALIGN),
            self.linearity.fall(&linear, LEAST_LINEARITY),
        ) {
            (Some(beyond), _) if beyond >= BEYOND => {
                found(CoSign::PertAlign, best, align.newest, beyond)
            }
            (_, Some(beyond)) if beyond >= BEYOND => {
                found(CoSign::Linearity, self.linearity.best, linear.newest, beyond)
            }
            (None, _) if self.steps >= RISEN_BY && self.training >= RISEN_BY_TRAINING => {
                let beyond = (RISEN - best) / align.error(WINDOW);
                if beyond >= BEYOND { found(CoSign::Low, best, align.newest, beyond) } else { None }
            }
            _ => None,
        };
        self.event
    }

    /// Adds a validation after `step`; returns the event if this validation reveals it first.
    pub fn observe_validation(&mut self, step: u64, val: &ValFigures) -> Option<CoEvent> {
        let (n, fgsm, pgd) = (val.n.max(1) as f64, val.fgsm.accuracy, val.pgd.accuracy);
        self.pgd = self.pgd.max(pgd);
        let error = ((fgsm * (1.0 - fgsm) / 4.0 + pgd * (1.0 - pgd)) / n).sqrt();
        let beyond = (fgsm / 2.0 - pgd) / error.max(1e-6);
        // A network that has lost all accuracy under either attack shows no gap.
        if beyond <= 0.0 {
            self.validated = Some(step + 1);
        }
        if beyond < BEYOND || self.pgd < LEAST_PGD || self.event.is_some() {
            return None;
        }
        let sure = normal_cdf(beyond);
        self.event = Some(CoEvent {
            step,
            onset: self.safe(),
            sign: CoSign::Gap,
            from: fgsm,
            to: pgd,
            sure,
        });
        self.event
    }

    /// The event, if one has been noticed.
    pub fn event(&self) -> Option<CoEvent> {
        self.event
    }

    /// Numbers of steps up to which PertAlign, and the validations, were in order. A rollback
    /// returns to the earlier of the two.
    pub fn safe_points(&self) -> [u64; 2] {
        [self.pert_align.good, self.validated.unwrap_or(self.pert_align.good)]
    }

    fn safe(&self) -> u64 {
        let [a, b] = self.safe_points();
        a.min(b)
    }
}

#[cfg(test)]
mod tests;
