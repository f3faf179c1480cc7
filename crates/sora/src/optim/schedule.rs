//! Learning rate and momentum, one pair for each step.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The course of the learning rate over a run; `lr_max` is its largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Linear from lr_max/20 to lr_max over the first half, linear back over the second (0.01 ->
    /// 0.2 -> 0.01 for the default lr_max 0.2), the momentum of sgd the other way round (0.9 -> 0.8
    /// -> 0.9); PyTorch's `CyclicLR` with `step_size_up = T / 2`, rounded down.
    Cyclic,
    /// lr_max, multiplied by 0.1 at each milestone: at one half and at three quarters of the run
    /// unless milestones are given.
    Multistep,
    /// Half a cosine from lr_max to the floor.
    Cosine,
    /// Linear from 0 over the first tenth of the run (rounded down), then half a cosine to the
    /// floor.
    WarmupCosine,
    /// lr_max throughout.
    Constant,
}

impl Schedule {
    /// Every schedule.
    pub const ALL: [Self; 5] =
        [Self::Cyclic, Self::Multistep, Self::Cosine, Self::WarmupCosine, Self::Constant];

    /// Name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cyclic => "cyclic",
            Self::Multistep => "multistep",
            Self::Cosine => "cosine",
            Self::WarmupCosine => "warmup-cosine",
            Self::Constant => "constant",
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|schedule| schedule.name() == text)
            .ok_or_else(|| Error::unknown("schedule", text, Self::ALL.map(Self::name)))
    }
}

/// The values of the schedule for one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f32,
    /// Momentum of SGD; Adam does not use it.
    pub momentum: f32,
}

/// A schedule with its numbers: the rates of every step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RatePlan {
    /// The course of the rate.
    pub schedule: Schedule,
    /// Largest learning rate.
    pub lr_max: f64,
    /// Smallest learning rate: the ends of `cyclic` (lr_max/20 for `None`), the end of the cosines,
    /// and the floor of `multistep` (0 for `None`).
    pub lr_min: Option<f64>,
    /// Milestones of `multistep`, as fractions of the run, at which the rate falls to a tenth.
    pub milestones: Vec<f64>,
    /// Momentum; its largest value where it changes.
    pub momentum: f32,
    /// Momentum at the peak of `cyclic`; `None` keeps it constant.
    pub momentum_at_peak: Option<f32>,
}

/// Ends of the cyclic schedule, as a fraction of its peak.
const CYCLIC_ENDS: f64 = 0.05;

/// Milestones of `multistep` by default, as fractions of the run.
pub const MILESTONES: [f64; 2] = [0.5, 0.75];

/// Momentum at the peak, as in PyTorch's `CyclicLR(base_momentum = 0.8)`.
pub const CYCLIC_MOMENTUM_AT_PEAK: f32 = 0.8;

impl RatePlan {
    /// `schedule` up to `lr_max` with a constant momentum of 0.9 and no floor.
    pub fn new(schedule: Schedule, lr_max: f64) -> Self {
        Self {
            schedule,
            lr_max,
            lr_min: None,
            milestones: MILESTONES.to_vec(),
            momentum: 0.9,
            momentum_at_peak: None,
        }
    }

    /// The rates of step `step` (from 0) of `total`.
    pub fn at(&self, step: u64, total: u64) -> Rates {
        let t = step as f64 / total.max(1) as f64;
        let floor = self.lr_min.unwrap_or(0.0);
        let cosine = |t: f64| {
            floor + (self.lr_max - floor) * (0.5 * (1.0 + (std::f64::consts::PI * t).cos()))
        };
        let lr = match self.schedule {
            Schedule::Cyclic => {
                let rise = rise(step, total);
                match self.lr_min {
                    None => self.lr_max * (CYCLIC_ENDS + (1.0 - CYCLIC_ENDS) * rise),
                    Some(low) => low + (self.lr_max - low) * rise,
                }
            }
            Schedule::Multistep => {
                let passed = self.milestones.iter().filter(|&&milestone| t >= milestone).count();
                (self.lr_max
                    * [1.0, 0.1, 0.01]
                        .get(passed)
                        .copied()
                        .unwrap_or_else(|| 0.1f64.powi(passed as i32)))
                .max(floor)
            }
            Schedule::Cosine => cosine(t),
            Schedule::WarmupCosine => {
                let warm = total / 10;
                if step < warm {
                    self.lr_max * (step as f64 / warm as f64)
                } else {
                    cosine((step - warm) as f64 / (total - warm).max(1) as f64)
                }
            }
            Schedule::Constant => self.lr_max,
        };
        Rates { lr: lr as f32, momentum: self.momentum_at(step, total) }
    }

    fn momentum_at(&self, step: u64, total: u64) -> f32 {
        match (self.schedule, self.momentum_at_peak) {
            (Schedule::Cyclic, Some(low)) => {
                let (low, high) = (f64::from(low), f64::from(self.momentum));
                (high - (high - low) * rise(step, total)) as f32
            }
            _ => self.momentum,
        }
    }
}

/// Position of `step` in a cycle of `total` steps: 0 at its ends, 1 in the middle.
fn rise(step: u64, total: u64) -> f64 {
    let half = total / 2;
    if step < half {
        step as f64 / half as f64
    } else {
        (total - step.min(total)) as f64 / (total - half).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cyclic_rises_and_falls_and_momentum_the_other_way() {
        let plan = RatePlan { momentum_at_peak: Some(0.8), ..RatePlan::new(Schedule::Cyclic, 0.2) };
        for (step, lr, momentum) in
            [(0, 0.01, 0.9), (10, 0.105, 0.85), (20, 0.2, 0.8), (30, 0.105, 0.85)]
        {
            let at = plan.at(step, 40);
            assert!((at.lr - lr).abs() < 1e-7 && (at.momentum - momentum).abs() < 1e-7, "{at:?}");
        }
        let constant = RatePlan { momentum_at_peak: None, ..plan };
        assert!((0..40).all(|step| constant.at(step, 40).momentum == 0.9));
    }

    #[test]
    fn milestones_stand_where_they_are_given() {
        let milestones = vec![100.0 / 110.0, 105.0 / 110.0];
        let plan = RatePlan { milestones, ..RatePlan::new(Schedule::Multistep, 0.1) };
        for steps_per_epoch in [1, 78, 391] {
            let lr = |epoch: u64| plan.at(epoch * steps_per_epoch, 110 * steps_per_epoch).lr;
            let before = plan.at(100 * steps_per_epoch - 1, 110 * steps_per_epoch).lr;
            assert_eq!(
                [before, lr(100), lr(104), lr(105), lr(109)],
                [0.1, 0.01, 0.01, 0.001, 0.001]
            );
        }
    }

    #[test]
    fn floors_are_reached_and_not_crossed() {
        for schedule in [Schedule::Cosine, Schedule::WarmupCosine, Schedule::Multistep] {
            let plan = RatePlan { lr_min: Some(0.001), ..RatePlan::new(schedule, 0.1) };
            assert!((plan.at(1000, 1000).lr - 0.001).abs() < 1e-8, "{schedule}");
            assert!((100..1000).all(|step| plan.at(step, 1000).lr >= 0.001), "{schedule}");
        }
        let cyclic = RatePlan { lr_min: Some(0.0), ..RatePlan::new(Schedule::Cyclic, 0.2) };
        assert_eq!((cyclic.at(0, 40).lr, cyclic.at(20, 40).lr), (0.0, 0.2));
    }

    #[test]
    fn every_schedule_stays_within_its_maximum() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.name().parse::<Schedule>().unwrap(), schedule);
            let plan = RatePlan { momentum_at_peak: Some(0.8), ..RatePlan::new(schedule, 0.2) };
            for total in [0, 1, 2, 7, 100] {
                for step in 0..total {
                    let Rates { lr, momentum } = plan.at(step, total);
                    assert!((0.0..=0.2 + 1e-6).contains(&lr), "{schedule} {step}/{total}: {lr}");
                    assert!(
                        (0.8 - 1e-6..=0.9 + 1e-6).contains(&momentum),
                        "{schedule}: {momentum}"
                    );
                }
            }
        }
    }
}
