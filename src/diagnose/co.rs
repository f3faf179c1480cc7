//! Detects catastrophic overfitting while training, from PertAlign alone (SORA, arXiv 2606.00738).
//!
//! PertAlign near 1 means a locally linear loss, on which a single step finds the worst perturbation. When its mean over a window of steps falls
//! by 0.5 or more below the best window before it, single-step examples have stopped being worst cases: robustness is collapsing.

use serde::{Deserialize, Serialize};

/// Steps of a window.
const WINDOW: usize = 20;
/// Fall of a window's mean that marks the onset.
const FALL: f64 = 0.5;

/// Where catastrophic overfitting set in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoEvent {
    /// The step at which it was noticed.
    pub step: u64,
    /// Mean PertAlign of the best window before.
    pub from: f64,
    /// Mean PertAlign of the window that ends at `step`.
    pub to: f64,
}

/// Follows PertAlign step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoDetector {
    /// The newest values, at most a window of them.
    recent: Vec<f32>,
    best: Option<f64>,
    event: Option<CoEvent>,
}

impl CoDetector {
    /// Takes in the PertAlign of `step`; returns the event at the step where it is first noticed.
    pub fn observe(&mut self, step: u64, pert_align: f32) -> Option<CoEvent> {
        if self.recent.len() == WINDOW {
            self.recent.remove(0);
        }
        self.recent.push(pert_align);
        if self.recent.len() < WINDOW || self.event.is_some() {
            return None;
        }
        let mean = self.recent.iter().map(|&v| f64::from(v)).sum::<f64>() / WINDOW as f64;
        let best = self.best.map_or(mean, |best| best.max(mean));
        self.best = Some(best);
        if best - mean >= FALL {
            self.event = Some(CoEvent { step, from: best, to: mean });
        }
        self.event
    }

    /// What was found so far.
    pub fn event(&self) -> Option<CoEvent> {
        self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_is_found_once_and_soon() {
        let mut detector = CoDetector::default();
        let mut found = Vec::new();
        for step in 0..300u64 {
            let value = if step < 150 { 0.9 } else { 0.1 };
            found.extend(detector.observe(step, value));
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
            assert_eq!(detector.observe(step, trend + noise), None);
        }
    }
}
