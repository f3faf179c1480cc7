//! The SORA reference's rule for catastrophic overfitting, against which the detector is compared.
//!
//! Over a window of steps the rule compares the mean PertAlign of the first quarter with that of
//! the last; a difference of 0.5 or more, in either direction, is the sign. The rule ignores
//! scatter and treats a rise like a fall.

use std::collections::VecDeque;

/// Fraction of the window at each end over which a mean is taken.
const TAIL: f64 = 0.25;
/// Difference of the means that counts as the sign.
const CHANGE: f64 = 0.5;

/// Follows PertAlign step by step.
#[derive(Clone, Debug)]
pub struct ReferenceRule {
    window: usize,
    recent: VecDeque<f32>,
    step: Option<u64>,
}

impl ReferenceRule {
    /// The rule over a window of `window` steps, at least 4.
    pub fn new(window: usize) -> Self {
        Self { window: window.max(4), recent: VecDeque::new(), step: None }
    }

    /// Adds the PertAlign of step `step`; returns true at the step where the sign first appears.
    pub fn observe(&mut self, step: u64, pert_align: f32) -> bool {
        if self.recent.len() == self.window {
            self.recent.pop_front();
        }
        self.recent.push_back(pert_align);
        if self.recent.len() < self.window || self.step.is_some() {
            return false;
        }
        let tail = (self.window as f64 * TAIL) as usize;
        let mean = |values: &mut dyn Iterator<Item = &f32>| {
            values.map(|&v| f64::from(v)).sum::<f64>() / tail as f64
        };
        let first = mean(&mut self.recent.iter().take(tail));
        let last = mean(&mut self.recent.iter().rev().take(tail));
        if (last - first).abs() >= CHANGE {
            self.step = Some(step);
        }
        self.step.is_some()
    }

    /// The step at which the sign appeared.
    pub fn step(&self) -> Option<u64> {
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step, among 200, at which the sign appears.
    fn spoken(window: usize, level: impl Fn(u64) -> f32) -> Option<u64> {
        let mut rule = ReferenceRule::new(window);
        let said = (0..200).filter(|&step| rule.observe(step, level(step))).count();
        assert_eq!(said, usize::from(rule.step().is_some()), "it speaks once");
        rule.step()
    }

    #[test]
    fn a_change_by_half_between_the_quarters_is_told_in_either_direction() {
        // After a jump at step 100, the last quarter of 40 steps lies wholly behind the jump at
        // step 109.
        for (before, after) in [(0.8, 0.25), (0.2, 0.9)] {
            let step = spoken(40, |step| if step < 100 { before } else { after });
            assert!(step.is_some_and(|step| (107..=109).contains(&step)), "{step:?}");
        }
        assert_eq!(spoken(40, |step| if step < 100 { 0.8 } else { 0.35 }), None, "less than half");
        // A fall of 0.6 over 200 steps changes little within a window.
        assert_eq!(spoken(40, |step| 0.8 - 0.003 * step as f32), None);
    }

    #[test]
    fn it_waits_for_a_whole_window() {
        assert_eq!(spoken(40, |step| if step < 5 { 0.9 } else { 0.1 }), None);
        assert_eq!(spoken(40, |step| if step < 10 { 0.9 } else { 0.1 }), Some(39));
    }
}
