//! Estimates the cost of an evaluation from the passes of its attacks and a measured pass.

use std::time::Instant;

use sora::{
    attack::Entry,
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
                let (forward, gradient) = passes(&part.name);
                let seconds = units * (forward * speed.forward + gradient * speed.gradient);
                self.0.push(Planned { name: part.name.clone(), first: i == 0, units, seconds });
            }
        }
    }

    /// Upper bound of the seconds: every image stands to the end.
    pub fn seconds(&self) -> f64 {
        self.0.iter().map(|planned| planned.seconds).sum()
    }
}

/// Numbers of forward passes and gradients of an image in one round of the attack called `name`;
/// for an unknown attack they are a guess.
fn passes(name: &str) -> (f64, f64) {
    let (stem, steps) = match name.rsplit_once('-') {
        Some((stem, size)) => {
            let steps = size.split('x').next().unwrap_or(size).parse::<f64>().ok();
            (if steps.is_some() { stem } else { name }, steps)
        }
        None => (name, None),
    };
    // The last forward pass scores the candidates.
    match stem {
        "fgsm" => (1.0, 1.0),
        "square" => (steps.unwrap_or(5000.0) + 1.0, 0.0),
        "rays" => (steps.unwrap_or(10_000.0) + 1.0, 0.0),
        "fab" | "fab-t" => (steps.unwrap_or(100.0) + 1.0, steps.unwrap_or(100.0)),
        _ if stem.starts_with("apgd") => (1.0, steps.unwrap_or(100.0) + 1.0),
        _ => (1.0, steps.unwrap_or(50.0)),
    }
}

#[cfg(test)]
mod tests {
    use sora::{attack, threat::Norm};

    use super::*;

    #[test]
    fn the_cost_of_attacks_follows_their_names() {
        assert_eq!(passes("fgsm"), (1.0, 1.0));
        assert_eq!(passes("pgd-10"), (1.0, 10.0));
        assert_eq!(passes("pgd-50x10"), (1.0, 50.0));
        assert_eq!(passes("apgd-ce"), (1.0, 101.0));
        assert_eq!(passes("apgd-t-20"), (1.0, 21.0));
        assert_eq!(passes("square-100"), (101.0, 0.0));
        assert_eq!(passes("rays"), (10_001.0, 0.0));
        assert_eq!(passes("fab-t"), (101.0, 100.0));
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
