//! Epsilon overfitting: accuracy over the radius of the attack, for several weights of a run.
//!
//! Under a single step the radius is also the step size. A network that has overfitted to the
//! epsilon of its training stands at that epsilon and falls below it.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::probe::{ascent, images};
use crate::{
    data::Split,
    error::{Error, Result},
    evaluate::{self, EvalConfig},
    loss,
    model::Model,
    nn::to_vec,
    perturbation::clamp_to_box,
    threat::Threat,
};

/// Accuracies of one set of weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpsilonRow {
    /// Which weights.
    pub weights: String,
    /// Images that stand under a single step of each epsilon.
    pub single: Vec<u64>,
    /// Images that stand under pgd-10 of each of the multi-step epsilons.
    pub multi: Vec<u64>,
}

/// Accuracies of several weights of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpsilonSweep {
    /// Images.
    pub n: u64,
    /// Seed of the random starts.
    pub seed: u64,
    /// Radii of the single step, pixel units.
    pub epsilons: Vec<f32>,
    /// Radii of pgd-10, pixel units.
    pub multi_epsilons: Vec<f32>,
    /// A row for each set of weights, oldest first.
    pub rows: Vec<EpsilonRow>,
}

/// The accuracies of `model`, in eval mode, on all of `split` at the radii of `sweep`.
///
/// # Errors
/// An empty split, or a device that fails.
pub fn epsilon_row(
    model: &Model,
    split: &Split,
    threat: Threat,
    sweep: &EpsilonSweep,
    weights: &str,
    batch: usize,
) -> Result<EpsilonRow> {
    if split.is_empty() {
        return Err(Error::input("nothing to evaluate: the split holds no image"));
    }
    let mut single = vec![0; sweep.epsilons.len()];
    let mut clean_count = 0;
    let all: Vec<usize> = (0..split.len()).collect();
    for indices in all.chunks(batch.max(1)) {
        let (x, labels) = images(split, indices, model.device())?;
        // One gradient serves every radius.
        let direction = ascent(model, threat, x.clone(), &labels);
        let clean = stands(model, x.clone(), &labels)?;
        clean_count += clean.iter().filter(|c| **c).count() as u64;
        for (count, epsilon) in single.iter_mut().zip(&sweep.epsilons) {
            let delta = clamp_to_box(&x, direction.clone() * *epsilon);
            let still = stands(model, x.clone() + delta, &labels)?;
            *count +=
                clean.iter().zip(still).filter(|(clean, still)| **clean && *still).count() as u64;
        }
    }
    let mut multi = Vec::new();
    for epsilon in &sweep.multi_epsilons {
        // Nothing can be changed, so nothing is attacked.
        if *epsilon == 0.0 {
            multi.push(clean_count);
            continue;
        }
        let config =
            EvalConfig { threat: Threat { epsilon: *epsilon, ..threat }, seed: sweep.seed, batch };
        let outcome = evaluate::evaluate(model, split, &["pgd-10"], config)?;
        multi.push(outcome.results.0.first().map_or(0, |(_, result)| result.correct));
    }
    Ok(EpsilonRow { weights: weights.to_owned(), single, multi })
}

fn stands(model: &Model, x: Tensor<4>, labels: &Tensor<1, Int>) -> Result<Vec<bool>> {
    Ok(to_vec(&loss::correct(model.logits(x), labels.clone()))?
        .into_iter()
        .map(|v| v > 0.5)
        .collect())
}
