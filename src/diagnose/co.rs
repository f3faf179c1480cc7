//! Detects catastrophic overfitting while training, for every method (SORA, arXiv 2606.00738).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{metrics::StepLine, metrics::ValFigures, stats::normal_cdf};

/// Steps of a window.
pub const WINDOW: usize = 20;
/// Fall of a window's mean below the best window before it that marks the onset.
const FALL: f64 = 0.5;
/// Below this mean a window is low whatever came before.
const LOW: f64 = 0.2;
/// A window within this of the best one is in order.
const NEAR: f64 = 0.1;
/// Lowest `sure` of the validation gap that counts.
const GAP_SURE: f64 = 0.975;

/// What gave catastrophic overfitting away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CoSign {
    /// PertAlign fell.
    #[default]
    Fall,
    /// PertAlign was low and stayed low.
    Low,
    /// Validation: pgd accuracy below half of fgsm accuracy.
    Gap,
}

/// Where catastrophic overfitting set in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoEvent {
    /// The step at which it was noticed.
    pub step: u64,
    /// The step before which all was in order.
    #[serde(default)]
    pub onset: u64,
    /// What gave it away.
    #[serde(default)]
    pub sign: CoSign,
    /// Before: mean PertAlign of the best window (`fall`, `low`), or fgsm accuracy (`gap`).
    pub from: f64,
    /// At `step`: mean PertAlign of the newest window, or pgd accuracy.
    pub to: f64,
    /// Probability, from the scatter within the window or the number of validation images, that the mean lies beyond the threshold, in [0, 1].
    #[serde(default)]
    pub sure: f64,
}

impl fmt::Display for CoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, onset, from, to, sure, .. } = self;
        write!(f, "catastrophic overfitting at step {step} (all was well until {onset}): ")?;
        match self.sign {
            CoSign::Fall => write!(f, "PertAlign fell from {from:.2} to {to:.2}")?,
            CoSign::Low => write!(f, "PertAlign is {to:.2}, at best {from:.2} before")?,
            CoSign::Gap => write!(f, "validation accuracy is {from:.3} under fgsm and {to:.3} under pgd-10")?,
        }
        write!(f, "; sure to {:.1} %; robustness against multi-step attacks is collapsing", 100.0 * sure)
    }
}

/// Follows a run step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoDetector {
    /// The newest values of PertAlign, at most a window of them.
    recent: Vec<f32>,
    best: Option<f64>,
    event: Option<CoEvent>,
    /// First step of the newest window that was in order.
    aligned: u64,
    /// Step after the newest validation that was in order.
    validated: Option<u64>,
}

impl CoDetector {
    /// Takes in a step; returns the event at the step where it is first noticed.
    pub fn observe(&mut self, line: &StepLine) -> Option<CoEvent> {
        // Without a perturbation there is nothing to overfit to.
        if line.delta_mean == 0.0 {
            return None;
        }
        if self.recent.len() == WINDOW {
            self.recent.remove(0);
        }
        self.recent.push(line.pert_align);
        if self.recent.len() < WINDOW || self.event.is_some() {
            return None;
        }
        let n = WINDOW as f64;
        let mean = self.recent.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let best = self.best.map_or(mean, |best| best.max(mean));
        self.best = Some(best);
        if mean > LOW && best - mean <= NEAR {
            self.aligned = (line.step + 1).saturating_sub(WINDOW as u64);
        }
        let threshold = (best - FALL).max(LOW);
        if mean > threshold {
            return None;
        }
        let variance = self.recent.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
        self.event = Some(CoEvent {
            step: line.step,
            onset: self.safe(),
            sign: if best - mean >= FALL { CoSign::Fall } else { CoSign::Low },
            from: best,
            to: mean,
            sure: normal_cdf((threshold - mean) / (variance / n).sqrt().max(1e-6)),
        });
        self.event
    }

    /// Takes in a validation after `step`; returns the event if it is first noticed by it.
    pub fn observe_validation(&mut self, step: u64, val: &ValFigures) -> Option<CoEvent> {
        let (n, fgsm, pgd) = (val.n.max(1) as f64, val.fgsm.accuracy, val.pgd.accuracy);
        let deviation = ((fgsm * (1.0 - fgsm) / 4.0 + pgd * (1.0 - pgd)) / n).sqrt();
        let sure = normal_cdf((fgsm / 2.0 - pgd) / deviation.max(1e-6));
        if sure < 0.5 {
            self.validated = Some(step + 1);
        }
        if sure < GAP_SURE || self.event.is_some() {
            return None;
        }
        self.event = Some(CoEvent { step, onset: self.safe(), sign: CoSign::Gap, from: fgsm, to: pgd, sure });
        self.event
    }

    /// What was found so far.
    pub fn event(&self) -> Option<CoEvent> {
        self.event
    }

    /// Steps up to which PertAlign, and the validations, were in order: a rollback goes back to the earlier of the two.
    pub fn safe_points(&self) -> [u64; 2] {
        [self.aligned, self.validated.unwrap_or(self.aligned)]
    }

    fn safe(&self) -> u64 {
        let [a, b] = self.safe_points();
        a.min(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, pert_align: f32) -> StepLine {
        StepLine { step, pert_align, delta_mean: 0.03, ..StepLine::default() }
    }

    #[test]
    fn a_collapse_is_found_once_and_soon() {
        let mut detector = CoDetector::default();
        let mut found = Vec::new();
        for step in 0..300u64 {
            found.extend(detector.observe(&line(step, if step < 150 { 0.9 } else { 0.1 })));
        }
        assert_eq!(found.len(), 1);
        assert!((150..165).contains(&found[0].step), "{found:?}");
        assert_eq!(detector.event(), Some(found[0]));
    }

    #[test]
    fn noise_a_slow_start_and_a_slow_decline_are_no_collapse() {
        let mut detector = CoDetector::default();
        for step in 0..1000u64 {
            let noise = if step % 2 == 0 { 0.15 } else { -0.15 };
            let trend = if step < 100 { 0.3 + 0.005 * step as f32 } else { 0.8 - 0.0003 * (step - 100) as f32 };
            assert_eq!(detector.observe(&line(step, trend + noise)), None);
        }
    }
}
