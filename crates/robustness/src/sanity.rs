//! Checks that detect an evaluation that cannot be trusted. Each check gives a warning that says
//! what it means and what to do.
//!
//! The checks of results follow Carlini et al. 2019 (arXiv 1902.06705) and Croce and Hein 2020
//! (arXiv 2003.01690); the probes query the network itself.

use crate::{
    attack::{
        Attack, AttackBatch, AttackContext, RowKey, largest_other,
        pgd::{Pgd, StepSize},
    },
    classifier::{Access, Classifier, is_broken, predicted, stands},
    error::Result,
    evaluate::Results,
    rows::{self, Rows},
    threat::{Norm, Threat},
};

/// Difference between two accuracies on the same images that noise does not explain.
const TOLERANCE: f64 = 0.002;
/// Largest share of images that may withstand the large epsilon.
const STANDING_AT_LARGE: f64 = 0.1;

/// Finds figures of an evaluation of `n` images that cannot all be right.
pub fn of_results(results: &Results, threat: Threat, n: u64) -> Vec<String> {
    let of = |prefix: &str| {
        let found = results.0.iter().filter(|(name, _)| name.starts_with(prefix));
        found
            .map(|(name, result)| (name.as_str(), result.accuracy.accuracy))
            .min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let mut warnings = Vec::new();
    if threat.epsilon == 0.0 {
        let clean = of("clean");
        for (name, result) in &results.0 {
            if let Some((_, clean)) = clean
                && result.accuracy.accuracy != clean
            {
                warnings.push(format!(
                    "{name} at epsilon 0 ({:.4}) differs from the clean accuracy ({clean:.4}): \
                     the forward pass is random; average several passes before trusting any figure",
                    result.accuracy.accuracy
                ));
            }
        }
        return warnings;
    }
    if let (Some((_, fgsm)), Some((name, pgd))) = (of("fgsm"), of("pgd")) {
        if pgd > fgsm + TOLERANCE {
            warnings.push(format!(
                "{name} leaves more standing ({pgd:.4}) than fgsm ({fgsm:.4}): the gradient \
                 misleads the stronger attack (masked gradients); do not trust these figures as \
                 robustness"
            ));
        }
        if fgsm >= 0.1 && pgd < 0.5 * fgsm {
            warnings.push(format!(
                "{name} accuracy ({pgd:.4}) is less than half of fgsm accuracy ({fgsm:.4}): the \
                 sign of catastrophic overfitting; only the stronger attack counts"
            ));
        }
    }
    let weaker =
        [of("fgsm"), of("pgd"), of("cw")].into_iter().flatten().min_by(|a, b| a.1.total_cmp(&b.1));
    if let (Some((name, weaker)), Some((ensemble, strong))) = (weaker, of("autoattack"))
        && strong > weaker + TOLERANCE
    {
        warnings.push(format!(
            "{ensemble} leaves more standing ({strong:.4}) than {name} ({weaker:.4}): an \
             ensemble should be the stronger one; the loss surface is rugged, take the lower \
             figure and run more restarts"
        ));
    }
    if let (Some((name, cw)), Some((pgd, least))) = (of("cw"), of("pgd"))
        && cw > least + TOLERANCE
    {
        warnings.push(format!(
            "{name} leaves more standing ({cw:.4}) than {pgd} ({least:.4}): it has not found the \
             way; take the lower figure"
        ));
    }
    for (name, result) in &results.0 {
        let white =
            result.parts.iter().take_while(|part| !part.attack.starts_with("square")).count();
        if let (Some(square), true) = (result.parts.get(white), white > 0) {
            let more = (square.attacked - square.correct) as f64 / n as f64;
            if more > TOLERANCE {
                warnings.push(masked_by_square(&format!("within {name}, square"), more));
            }
        }
    }
    let white = [of("fgsm"), of("pgd"), of("cw"), of("apgd"), of("fab")]
        .into_iter()
        .flatten()
        .min_by(|a, b| a.1.total_cmp(&b.1));
    if let (Some((_, white)), Some((name, square))) = (white, of("square"))
        && square < white - TOLERANCE
    {
        warnings.push(masked_by_square(name, white - square));
    }
    warnings
}

fn masked_by_square(who: &str, more: f64) -> String {
    format!(
        "{who}, which sees no gradient, breaks {:.1} % of the images more than the gradient \
         attacks: their gradients are masked; the true robustness is lower than any of these \
         figures, try an attack adapted to the network",
        100.0 * more
    )
}

/// Warnings of logits that are not finite.
fn infinite(logits: &Rows) -> Vec<String> {
    let n = logits.each().count();
    let broken = logits.each().filter(|z| is_broken(z)).count();
    let vanished =
        logits.each().filter(|z| !is_broken(z) && z.iter().any(|v| v.is_infinite())).count();
    let mut warnings = Vec::new();
    if broken > 0 {
        warnings.push(format!(
            "the logits of {broken} of {n} images are not finite numbers: they count as \
             misclassified; look for overflow in the network (a diverged training, a low precision)"
        ));
    }
    if vanished > 0 {
        warnings.push(format!(
            "the logits of {vanished} of {n} images hold -inf (the logarithm of a probability that \
             vanished?): attacks by gradients may see nothing there; evaluate the logits before the \
             logarithm"
        ));
    }
    warnings
}

/// Queries `model` on the images `x` (rows of pixels) of the classes `labels`. The probe checks
/// whether the forward pass is deterministic, the outputs are logits, and the gradients exist, and
/// how the attacks do at epsilon 0 and at an epsilon that no network should withstand. Labels
/// alone, which come as rows with a single 1, are not taken for probabilities.
///
/// # Errors
/// [`Error::Classifier`](crate::Error::Classifier) when the classifier fails.
pub fn probe(
    model: &dyn Classifier,
    x: &[f32],
    labels: &[usize],
    norm: Norm,
    seed: u64,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let (n, shape) = (labels.len(), model.shape());
    let classes = shape.classes;
    if n == 0 {
        return Ok(warnings);
    }
    let x = &Rows::new(x.to_vec(), shape.pixels());
    let logits = Rows::new(model.logits(x)?, classes);
    let row = |i: usize| logits.row(i);

    warnings.extend(infinite(&logits));
    let again = model.logits(x)?;
    if logits.iter().zip(&again).any(|(a, b)| a.to_bits() != b.to_bits()) {
        let most = logits.iter().zip(&again).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        warnings.push(format!(
            "two forward passes of the same images differ (by up to {most:.2e}): the network is \
             random, so an image may fall or stand by luck; use autoattack-rand, which averages \
             gradients, or make the forward pass deterministic"
        ));
    }
    let probabilities = |i: usize| {
        let z = row(i);
        z.iter().all(|v| (-1e-5..=1.0 + 1e-5).contains(v))
            && (z.iter().sum::<f32>() - 1.0).abs() < 1e-4
    };
    if classes > 1 && model.access() > Access::Labels && (0..n).all(probabilities) {
        warnings.push(
            "the outputs are probabilities, not logits: every loss is flattened by a second \
             softmax and gradients fade; evaluate the network without its last softmax"
                .into(),
        );
    }
    if model.access() < Access::Gradients {
        return Ok(warnings);
    }
    let correct: Vec<usize> = (0..n).filter(|&i| stands(row(i), labels[i])).collect();
    warnings.extend(gradients(model, x, labels, &correct)?);
    warnings.extend(epsilons(model, x, labels, &correct, norm, seed)?);
    Ok(warnings)
}

/// Checks whether gradients exist, and whether an attack on the plain cross-entropy in f32 would
/// see them.
fn gradients(
    model: &dyn Classifier,
    x: &Rows,
    labels: &[usize],
    correct: &[usize],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let classes = model.shape().classes;
    if correct.is_empty() || classes < 2 {
        return Ok(warnings);
    }
    let of = correct.len();
    let mut flat = 0;
    let back = model.pull_back(&x.select(correct), &mut |first, logits| {
        let mut cotangent = vec![0.0; logits.len()];
        for ((z, c), &i) in
            logits.chunks(classes).zip(cotangent.chunks_mut(classes)).zip(&correct[first..])
        {
            let y = labels[i];
            let top = z[predicted(z)];
            // Cross-entropy in f32, as a framework computes it.
            let loss = z.iter().map(|v| (v - top).exp()).sum::<f32>().ln() + top - z[y];
            flat += usize::from(loss == 0.0);
            if let Some(m) = largest_other(z, y) {
                (c[m], c[y]) = (1.0, -1.0);
            }
        }
        cotangent
    })?;
    let vanished = |grad: &&[f32]| grad.iter().all(|g| *g == 0.0 || g.is_nan());
    let zero = Rows::new(back.grad, x.width()).each().filter(vanished).count();
    if zero > 0 {
        warnings.push(format!(
            "the input gradient of {zero} of {of} images is exactly zero: something in the \
             network (rounding, a threshold, a detached part) stops it, so gradient attacks find \
             nothing there; trust square more than the others, or attack a smooth stand-in for \
             that part"
        ));
    }
    if flat > 0 {
        warnings.push(format!(
            "the cross-entropy of {flat} of {of} images rounds to zero in f32: attacks that use \
             it unscaled see no gradient there (saturated loss). Those of this program scale it; \
             compare with apgd-dlr, and distrust figures of tools that do not"
        ));
    }
    Ok(warnings)
}

/// Checks that epsilon 0 changes nothing and that a large epsilon breaks nearly all images.
fn epsilons(
    model: &dyn Classifier,
    x: &Rows,
    labels: &[usize],
    correct: &[usize],
    norm: Norm,
    seed: u64,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    // PGD is no attack for l1; what is asked here is asked of the network, not of the norm.
    let norm = if norm == Norm::Linf { norm } else { Norm::L2 };
    let (classes, width) = (model.shape().classes, x.width());
    if correct.is_empty() || classes < 2 {
        return Ok(warnings);
    }
    let of = correct.len();
    let x = x.select(correct);
    let labels = rows::pick(labels, correct);
    let ids: Vec<u32> = (0..of as u32).collect();
    let standing = |epsilon: f32, steps: usize| -> Result<usize> {
        let threat = Threat { norm, epsilon };
        let attack = Pgd {
            steps,
            restarts: 1,
            size: StepSize::Quarter,
            objective: crate::attack::Objective::CrossEntropy,
        };
        let mut tick = |_| {};
        let mut cx = AttackContext::new(model, threat, seed, "sanity", &mut tick);
        let mut points = attack
            .run(&mut cx, &AttackBatch { x: &x, labels: &labels, keys: &RowKey::of(&ids, 0) })?;
        points.for_each(|i, row| rows::project(threat, x.row(i), row));
        let logits = Rows::new(model.logits(&points)?, classes);
        Ok(labels.iter().enumerate().filter(|&(i, &label)| stands(logits.row(i), label)).count())
    };
    let at_zero = standing(0.0, 1)?;
    if at_zero != of {
        warnings.push(format!(
            "{} of {of} images fall at epsilon 0: the answer for the same pixels changes, so the \
             forward pass is random or depends on the batch; no figure here is robustness",
            of - at_zero
        ));
    }
    // 64/255 in l-inf; in l2, the length of a change of every value by that much.
    let (large, said) = match norm {
        Norm::Linf => (64.0 / 255.0, "64/255".to_owned()),
        Norm::L2 | Norm::L1 => {
            let length = 64.0 / 255.0 * (width as f32).sqrt();
            (length, format!("{length:.1} in l2"))
        }
    };
    let at_large = standing(large, 10)?;
    if at_large as f64 > STANDING_AT_LARGE * of as f64 {
        warnings.push(format!(
            "{at_large} of {of} images withstand pgd-10 at epsilon {said}, which hides most of \
             an image: the attack does not work on this network (masked gradients), or the \
             images are nearly black and white, like MNIST; compare with square"
        ));
    }
    Ok(warnings)
}
