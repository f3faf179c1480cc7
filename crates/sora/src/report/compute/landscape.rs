//! The loss around an image, over the plane of the network's own direction of attack and a random
//! one.
//!
//! The first direction is that of the single-step attack at the image (the sign of the gradient in
//! l-inf, the normalised gradient in l2), the second is drawn once from the seed (signs in l-inf, a
//! unit vector in l2), both of length epsilon. A network that has overfitted catastrophically shows
//! a ridge between the image and its single-step example (Kim et al. 2021, arXiv 2010.01799).

use burn::tensor::{Int, Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

use super::probe::{ascent, images};
use crate::{
    data::Split,
    error::{Error, Result},
    loss::cross_entropy_per_sample,
    model::Model,
    nn::to_vec,
    noise::{Draw, Noise},
    perturbation::l2_norm,
    threat::{Norm, Threat},
};

/// What to look at, and how closely.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LandscapeConfig {
    /// Image of the test split, from 0.
    pub index: usize,
    /// Points along each direction, 3 to 201.
    pub grid: usize,
    /// How far to look, in epsilons; above 0.
    pub span: f32,
    /// Seed of the random direction.
    pub seed: u64,
}

/// Loss over a plane through an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Landscape {
    /// Which weights.
    pub weights: String,
    /// Image of the test split.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// Distances along both directions, in epsilons, from -span to span.
    pub at: Vec<f32>,
    /// Cross-entropy (nats), `[grid, grid]`: a row for each distance along the random direction.
    pub loss: Vec<f32>,
    /// Log-probability of the true class less the largest of the others, `[grid, grid]`: below 0
    /// the answer is wrong.
    pub margin: Vec<f32>,
}

impl LandscapeConfig {
    /// Refuses what cannot be drawn.
    ///
    /// # Errors
    /// The first wrong value.
    pub fn check(&self) -> Result<()> {
        if !(3..=201).contains(&self.grid) {
            return Err(Error::input(format!("--grid {}: expected 3 to 201 points", self.grid)));
        }
        if !(self.span > 0.0 && self.span <= 100.0) {
            return Err(Error::input(format!(
                "--span {}: expected a number of epsilons above 0, at most 100",
                self.span
            )));
        }
        Ok(())
    }
}

/// Computes the loss of `model`, in eval mode, around an image of `split`.
///
/// # Errors
/// An image that is not there, a wrong setting, or a device that fails.
pub fn landscape(
    model: &Model,
    split: &Split,
    threat: Threat,
    config: &LandscapeConfig,
    weights: &str,
) -> Result<Landscape> {
    config.check()?;
    let device = model.device();
    let (x, label) = images(split, &[config.index], device)?;
    let towards = ascent(model, threat, x.clone(), &label) * threat.epsilon;
    let ids = vec![split.ids().get(config.index).copied().unwrap_or_default()];
    let mut noise = Noise::evaluation(config.seed, 0, 0, ids, device);
    let aside = match threat.norm {
        Norm::Linf => noise.sign(Draw::Sign, x.dims()),
        Norm::L2 => {
            let direction: Tensor<4> = noise.normal(Draw::Dir, x.dims());
            direction.clone() / l2_norm(direction).clamp_min(f32::MIN_POSITIVE)
        }
    } * threat.epsilon;

    let last = (config.grid - 1) as f32;
    let at: Vec<f32> =
        (0..config.grid).map(|i| (2.0 * i as f32 / last - 1.0) * config.span).collect();
    let classes = model.config.shape.classes;
    let label_index = to_vec(&label.clone().float())?.first().map_or(0, |v| *v as usize);
    let (mut losses, mut margins) = (Vec::new(), Vec::new());
    for b in &at {
        let row = Tensor::cat(
            at.iter().map(|a| x.clone() + towards.clone() * *a + aside.clone() * *b).collect(),
            0,
        )
        .clamp(0.0, 1.0);
        let labels: Tensor<1, Int> = label.clone().repeat_dim(0, config.grid);
        let logits = model.logits(row);
        losses.extend(to_vec(&cross_entropy_per_sample(logits.clone(), labels))?);
        let log_probabilities = to_vec(&log_softmax(logits, 1))?;
        margins.extend(log_probabilities.chunks(classes).map(|values| {
            let others = values
                .iter()
                .enumerate()
                .filter(|(class, _)| *class != label_index)
                .map(|(_, v)| *v);
            values.get(label_index).copied().unwrap_or(f32::NAN)
                - others.fold(f32::NEG_INFINITY, f32::max)
        }));
    }
    Ok(Landscape {
        weights: weights.to_owned(),
        index: config.index,
        label: label_index,
        at,
        loss: losses,
        margin: margins,
    })
}
