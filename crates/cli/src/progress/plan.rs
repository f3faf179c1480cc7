//! Estimates the cost of an evaluation from the passes of its attacks and a measured pass.

use std::time::Instant;

use sora::{
    attack::{Entry, Passes},
    robustness::{Access, Classifier, PullBack, Result, Samples},
};

/// Number of images on which a pass is measured.
const MEASURED: usize = 64;

/// Seconds of a pass per image, measured on some images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// A pass for logits alone.
    pub forward: f64,
    /// A pass for logits and the gradient by the image.
    pub gradient: f64,
}

impl Speed {
    /// Measures `model` on the first of `samples`, in a batch of at most `batch`.
    ///
    /// # Errors
    /// A device or data set that fails.
    pub fn measure(model: &dyn Classifier, samples: &dyn Samples, batch: usize) -> Result<Self> {
        let some: Vec<usize> = (0..samples.len().min(batch).min(MEASURED)).collect();
        let n = some.len().max(1) as f64;
        let x = samples.pixels(&some)?;
        let _session = model.session();
        if model.access() < Access::Gradients {
            let started = Instant::now();
            model.logits(&x)?;
            return Ok(Self { forward: started.elapsed().as_secs_f64() / n, gradient: 0.0 });
        }
        let gradient = || -> Result<PullBack> {
            model.pull_back(&x, &mut |_, logits| vec![1.0; logits.len()])
        };
        // The first passes also make plans and claim memory, so they are not timed.
        gradient()?;
        let started = Instant::now();
        gradient()?;
        let gradient = started.elapsed().as_secs_f64() / n;
        let started = Instant::now();
        model.logits(&x)?;
        Ok(Self { forward: started.elapsed().as_secs_f64() / n, gradient })
    }
}

/// A planned attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Whether the attack runs on all images that are correct without attack; otherwise it runs on
    /// the images that the attack before left.
    pub first: bool,
    /// Number of rounds times images, if every image stands.
    pub units: f64,
    /// Seconds, if every image stands to the end.
    pub seconds: f64,
}

/// The attacks of an evaluation, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan(pub Vec<Planned>);

impl Plan {
    /// Adds `entries` on `images` images of a network of `classes` classes.
    pub fn add(&mut self, entries: &[Entry], images: usize, classes: usize, speed: Speed) {
        for entry in entries {
            for (i, part) in entry.parts.iter().enumerate() {
                let units = (images * part.attack.rounds(classes)) as f64;
                let Passes { forward, gradient } = part.attack.passes(classes);
                // One more forward pass scores the candidate.
                let forward = (forward + 1) as f64 * speed.forward;
                let seconds = units * (forward + gradient as f64 * speed.gradient);
                self.0.push(Planned { name: part.name.clone(), first: i == 0, units, seconds });
            }
        }
    }

    /// Upper bound of the seconds: every image stands to the end.
    pub fn seconds(&self) -> f64 {
        self.0.iter().map(|planned| planned.seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use sora::{attack, threat::Norm};

    use super::*;

    #[test]
    fn the_longest_time_follows_from_the_settings_of_the_attacks() {
        let seconds = |name: &str, norm, speed| {
            let mut plan = Plan::default();
            plan.add(&[attack::entry(name, norm).unwrap()], 3, 10, speed);
            plan.seconds() / 3.0
        };
        let gradients = Speed { forward: 0.0, gradient: 1.0 };
        for (name, norm, expected) in [
            ("fgsm", Norm::Linf, 1.0),
            ("pgd-1000@0.1", Norm::Linf, 1000.0),
            ("pgd-50x10@eps/4", Norm::Linf, 500.0),
            // 101 gradients for each of 9 constants.
            ("cw", Norm::L2, 909.0),
            // Means of 20 gradients, on two losses.
            ("autoattack-rand", Norm::Linf, 2.0 * 20.0 * 103.0),
        ] {
            assert_eq!(seconds(name, norm, gradients), expected, "{name}");
        }
        // The last one scores the candidate.
        let forward = Speed { forward: 1.0, gradient: 0.0 };
        for (name, expected) in [("pgd-10", 1.0), ("square-100", 102.0), ("rays", 10_001.0)] {
            assert_eq!(seconds(name, Norm::Linf, forward), expected, "{name}");
        }
    }

    #[test]
    fn a_plan_adds_up_over_rounds_and_images() {
        let names = ["clean", "pgd-10x3", "autoattack"];
        let entries: Vec<_> =
            names.iter().map(|name| attack::entry(name, Norm::Linf).unwrap()).collect();
        let mut plan = Plan::default();
        plan.add(&entries, 20, 10, Speed { forward: 0.0, gradient: 1.0 });
        let firsts: Vec<bool> = plan.0.iter().map(|planned| planned.first).collect();
        assert_eq!(firsts, [true, true, false, false, false]);
        assert_eq!(plan.0[0].units, 60.0);
        assert_eq!(plan.0[0].seconds, 600.0);
        assert!(plan.seconds() > 600.0);
    }
}
