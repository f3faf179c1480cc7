//! Learning-rate schedules, one value per step.

use serde::{Deserialize, Serialize};

/// How the learning rate moves over a run of T steps; `lr_max` is its largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Linear from lr_max/20 to lr_max over the first half, linear back over the second (0.01 ->
    /// 0.2 -> 0.01 for the default lr_max 0.2); PyTorch's `CyclicLR` with `step_size_up = T / 2`,
    /// rounded down.
    Cyclic,
    /// lr_max, times 0.1 at one half and again at three quarters of the run.
    Multistep,
    /// Half a cosine from lr_max to 0.
    Cosine,
    /// Linear from 0 over the first tenth of the run (rounded down), then half a cosine to 0.
    WarmupCosine,
    /// lr_max throughout.
    Constant,
}

/// Ends of the cyclic schedule, as a fraction of its peak.
const CYCLIC_ENDS: f64 = 0.05;

impl Schedule {
    /// Learning rate of step `step` (from 0) of `total`.
    pub fn at(self, lr_max: f64, step: u64, total: u64) -> f32 {
        let t = step as f64 / total.max(1) as f64;
        let cosine = |t: f64| 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
        let factor = match self {
            Self::Cyclic => {
                let half = total / 2;
                let rise = if step < half {
                    step as f64 / half as f64
                } else {
                    (total - step.min(total)) as f64 / (total - half).max(1) as f64
                };
                CYCLIC_ENDS + (1.0 - CYCLIC_ENDS) * rise
            }
            Self::Multistep if t < 0.5 => 1.0,
            Self::Multistep if t < 0.75 => 0.1,
            Self::Multistep => 0.01,
            Self::Cosine => cosine(t),
            Self::WarmupCosine => {
                let warm = total / 10;
                if step < warm {
                    step as f64 / warm as f64
                } else {
                    cosine((step - warm) as f64 / (total - warm).max(1) as f64)
                }
            }
            Self::Constant => 1.0,
        };
        (lr_max * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cyclic_rises_and_falls() {
        let at = |step| Schedule::Cyclic.at(0.2, step, 40);
        assert!((at(0) - 0.01).abs() < 1e-7);
        assert!((at(20) - 0.2).abs() < 1e-7);
        assert!((at(10) - 0.105).abs() < 1e-7);
        assert!((at(30) - 0.105).abs() < 1e-7);
    }

    #[test]
    fn every_schedule_stays_within_its_maximum() {
        use clap::ValueEnum;
        for schedule in Schedule::value_variants() {
            for total in [0, 1, 2, 7, 100] {
                for step in 0..total {
                    let lr = schedule.at(0.2, step, total);
                    assert!((0.0..=0.2 + 1e-6).contains(&lr), "{schedule:?} {step}/{total}: {lr}");
                }
            }
        }
    }
}
