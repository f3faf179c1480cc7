//! The distance of the nearest adversarial image.

use serde::Serialize;

use crate::{
    attack::{Attack, AttackBatch, AttackContext, RowKey},
    error::Result,
    evaluate::Evaluator,
    rows,
    stats::Accuracy,
};

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
    /// [`Error::Access`](crate::Error::Access) where `attack` asks for more than the classifier
    /// answers;
    /// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
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
        let mut cx = AttackContext::new(self.model, threat, seed, &key, &mut tick);
        let mut points = attack.run(
            &mut cx,
            &AttackBatch { x: &x, labels: &labels, keys: &RowKey::of(&ids, round) },
        )?;
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
