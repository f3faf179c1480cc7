//! What a reader of the curves should know before the figures are trusted.

use super::{AtCount, AtEpsilon, AtStep, Convergence};
use crate::evaluate::AttackResult;

/// Smallest fall of accuracy that counts as one.
const FALL: f64 = 0.005;
/// Smallest difference between two attacks or radii that counts as one.
const DIFFERENCE: f64 = 0.02;

/// Warnings for a reader of the curves; `trained` is the epsilon of the training.
pub fn warnings(
    epsilons: &[AtEpsilon],
    steps: &[AtStep],
    convergence: Option<&Convergence>,
    trained: f32,
) -> Vec<String> {
    let mut warnings = rises(epsilons);
    warnings.extend(tuned(steps, trained));
    if let Some(Convergence { steps, restarts }) = convergence {
        warnings.extend(fall(steps, 40).map(|(points, last)| {
            format!(
                "PGD accuracy still falls by {points:.1} points from 40 to {last} steps: figures of PGD \
                 with few steps are too high here; use autoattack"
            )
        }));
        warnings.extend(fall(restarts, 5).map(|(points, last)| {
            format!(
                "PGD accuracy still falls by {points:.1} points from 5 to {last} restarts: the loss \
                 surface is rugged; use more restarts or autoattack"
            )
        }));
    }
    warnings
}

fn in_255(value: f32) -> String {
    format!("{:.1}/255", value * 255.0)
}

/// Accuracy under a fixed attack cannot rise with epsilon: the smaller ball lies in the larger. Of
/// each attack the first rise is told.
fn rises(epsilons: &[AtEpsilon]) -> Vec<String> {
    let mut rises: Vec<(&str, f32, f32, f64)> = Vec::new();
    for pair in epsilons.windows(2) {
        for (name, low) in &pair[0].results.0 {
            let high =
                pair[1].results.get(name).map_or(0.0, |high: &AttackResult| high.accuracy.accuracy);
            let rise = high - low.accuracy.accuracy;
            if rise > DIFFERENCE
                && pair[0].epsilon < pair[1].epsilon
                && !rises.iter().any(|(found, ..)| found == name)
            {
                rises.push((name, pair[0].epsilon, pair[1].epsilon, rise));
            }
        }
    }
    let text = |(name, from, to, rise)| {
        format!(
            "{name} accuracy rises by {:.1} points from epsilon {} to {}: the attack is weaker on the \
             larger ball, which means masked gradients or a network that overfits its training epsilon",
            100.0 * rise,
            in_255(from),
            in_255(to)
        )
    };
    rises.into_iter().map(text).collect()
}

/// A smaller single step than that of the training must not leave less standing.
fn tuned(steps: &[AtStep], trained: f32) -> Option<String> {
    let distance = |step: &AtStep| (step.alpha - trained).abs();
    let at = steps.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let smaller = steps.iter().filter(|step| step.alpha < trained);
    let weakest = smaller.min_by(|a, b| a.accuracy.accuracy.total_cmp(&b.accuracy.accuracy))?;
    (weakest.accuracy.accuracy < at.accuracy.accuracy - DIFFERENCE).then(|| {
        format!(
            "single steps of {} leave less standing ({:.4}) than steps of the training size {} ({:.4}): \
             the network is tuned to one step size (epsilon overfitting), as after catastrophic \
             overfitting; only multi-step figures count",
            in_255(weakest.alpha),
            weakest.accuracy.accuracy,
            in_255(at.alpha),
            at.accuracy.accuracy
        )
    })
}

/// By how many points a curve falls from `from` to its last count, where it does.
fn fall(curve: &[AtCount], from: usize) -> Option<(f64, usize)> {
    let at =
        |count: usize| curve.iter().find(|at| at.count == count).map(|at| at.accuracy.accuracy);
    let last = curve.last()?;
    let fall = at(from)? - last.accuracy.accuracy;
    (fall > FALL).then_some((100.0 * fall, last.count))
}
