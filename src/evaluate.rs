//! The evaluator: accuracy under attacks, by its own forward pass on clipped images.
//!
//! A sample that is misclassified clean counts as broken (delta = 0 lies in every ball); an attack is run on what still stands, restart by
//! restart; what it returns is projected on the ball and on [0, 1] and scored again here. Everything runs in eval mode, in f32.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    attack::{self, Attack, AttackContext, Entry},
    data::Split,
    error::{Error, Result},
    loss,
    metrics::Accuracy,
    model::Model,
    nn::{Precision, to_vec},
    noise::Noise,
    threat::{Norm, Threat, clamp_to_box},
    ui::Progress,
};

/// Settings of an evaluation.
#[derive(Clone, Debug)]
pub struct EvalConfig {
    /// Names, in order: `clean`, `fgsm`, `pgd-10`, ...
    pub attacks: Vec<String>,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Seed of the random starts.
    pub seed: u64,
    /// Images at a time; it does not change the draws.
    pub batch: usize,
    /// Whether to show progress.
    pub progress: bool,
}

/// Result of one attack.
#[derive(Clone, Debug, Serialize)]
pub struct AttackResult {
    /// Robust accuracy and its 95 % Wilson interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Images that stand.
    pub correct: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Wall-clock seconds per image attacked.
    pub seconds_per_image: f64,
}

/// Results in the order of the attacks, as a JSON object.
#[derive(Clone, Debug, Default)]
pub struct Results(pub Vec<(String, AttackResult)>);

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, result) in &self.0 {
            map.serialize_entry(name, result)?;
        }
        map.end()
    }
}

/// Report of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Data set.
    pub dataset: String,
    /// Split of it.
    pub split: String,
    /// Images evaluated.
    pub n: u64,
    /// Epsilon in pixel units.
    pub epsilon: f32,
    /// Norm.
    pub norm: Norm,
    /// Seed.
    pub seed: u64,
    /// Per attack.
    pub results: Results,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
}

/// Images `[len, C, H, W]` in [0, 1] and labels `[len]` of the samples `indices` of `split`.
pub fn gather(split: &Split, indices: &[usize], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let [c, h, w] = split.shape();
    let pixels = indices.iter().flat_map(|&i| split.image(i)).map(|&byte| f32::from(byte) / 255.0).collect::<Vec<_>>();
    let labels = indices.iter().map(|&i| split.label(i) as i32).collect::<Vec<_>>();
    let x = Tensor::from_data(TensorData::new(pixels, [indices.len(), c, h, w]), device);
    let labels = Tensor::from_data(TensorData::new(labels, [indices.len()]), device);
    (x, labels)
}

/// Evaluates `model` on every sample of `split`.
///
/// # Errors
/// An unknown attack, an empty split, or a device that fails.
pub fn evaluate(model: &Model, split: &Split, config: &EvalConfig) -> Result<(Results, Vec<String>)> {
    if split.is_empty() {
        return Err(Error::input("nothing to evaluate: the split holds no image"));
    }
    let in_f32 = (model.precision() != Precision::F32).then(|| model.in_f32());
    let model = in_f32.as_ref().unwrap_or(model);
    let entries = config.attacks.iter().map(|name| attack::entry(name, config.threat.norm)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let all: Vec<usize> = (0..split.len()).collect();
    let clean = standing(&all, config.batch, |indices| {
        let (x, labels) = gather(split, indices, model.device());
        score(model, x, labels)
    })?;
    let clean_seconds = started.elapsed().as_secs_f64();

    let mut results = Results::default();
    for (name, entry) in config.attacks.iter().zip(&entries) {
        let (left, seconds, attacked) = match entry {
            Entry::Clean => (clean.clone(), clean_seconds, split.len()),
            Entry::Attack(attack) => {
                let started = Instant::now();
                let left = under_attack(model, split, &clean, name, attack.as_ref(), config)?;
                (left, started.elapsed().as_secs_f64(), clean.len())
            }
        };
        let correct = left.len() as u64;
        let result = AttackResult {
            accuracy: Accuracy::of(correct, split.len() as u64),
            correct,
            seconds,
            seconds_per_image: seconds / attacked.max(1) as f64,
        };
        results.0.push((name.clone(), result));
    }
    let warnings = sanity(&results, config.threat);
    Ok((results, warnings))
}

/// Those of `candidates` that survive every restart of `attack`.
fn under_attack(
    model: &Model,
    split: &Split,
    candidates: &[usize],
    name: &str,
    attack: &dyn Attack,
    config: &EvalConfig,
) -> Result<Vec<usize>> {
    let mut left = candidates.to_vec();
    let batches = left.len().div_ceil(config.batch) as u64;
    let mut progress = config.progress.then(|| Progress::new(name, 0, batches * attack.restarts()));
    for restart in 0..attack.restarts() {
        left = standing(&left, config.batch, |indices| {
            let (x, labels) = gather(split, indices, model.device());
            let ids = indices.iter().map(|&i| split.ids()[i]).collect();
            let noise = Noise::evaluation(config.seed, attack_id(name), restart, ids, model.device());
            let mut cx = AttackContext { model, threat: config.threat, noise };
            let candidate = attack.run(&mut cx, x.clone(), labels.clone());
            let delta = clamp_to_box(&x, config.threat.project(candidate - x.clone()));
            let still = score(model, x + delta, labels)?;
            if let Some(progress) = &mut progress {
                progress.advance(1, || format!("restart {}/{}", restart + 1, attack.restarts()));
            }
            Ok(still)
        })?;
    }
    Ok(left)
}

/// Runs `work` on batches of `indices` and keeps those for which it says true.
fn standing(indices: &[usize], batch: usize, mut work: impl FnMut(&[usize]) -> Result<Vec<bool>>) -> Result<Vec<usize>> {
    let mut left = Vec::with_capacity(indices.len());
    for chunk in indices.chunks(batch.max(1)) {
        let stands = work(chunk)?;
        left.extend(chunk.iter().zip(stands).filter(|(_, stands)| *stands).map(|(&i, _)| i));
    }
    Ok(left)
}

/// Whether each sample is classified as its label.
fn score(model: &Model, x: Tensor<4>, labels: Tensor<1, Int>) -> Result<Vec<bool>> {
    let correct = loss::correct(model.logits(x), labels);
    Ok(to_vec(&correct)?.into_iter().map(|v| v > 0.5).collect())
}

/// A number that tells attacks apart in the random streams: FNV-1a of the name.
fn attack_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Figures that cannot all be right.
fn sanity(results: &Results, threat: Threat) -> Vec<String> {
    let accuracy = |wanted: &str| results.0.iter().find(|(name, _)| name == wanted).map(|(_, r)| r.accuracy.accuracy);
    let strongest = results.0.iter().filter(|(name, _)| name.starts_with("pgd")).map(|(_, r)| r.accuracy.accuracy).reduce(f64::min);
    let mut warnings = Vec::new();
    if let (Some(fgsm), Some(pgd)) = (accuracy("fgsm"), strongest)
        && threat.epsilon > 0.0
        && pgd > fgsm + 0.002
    {
        warnings.push(format!(
            "pgd leaves more standing ({pgd:.4}) than fgsm ({fgsm:.4}): the gradient misleads the stronger attack (masked gradients); do not trust these figures as robustness"
        ));
    }
    if let (Some(fgsm), Some(pgd)) = (accuracy("fgsm"), strongest)
        && fgsm >= 0.2
        && pgd < 0.5 * fgsm
    {
        warnings.push(format!(
            "pgd accuracy ({pgd:.4}) is less than half of fgsm accuracy ({fgsm:.4}): the sign of catastrophic overfitting; only the stronger attack counts"
        ));
    }
    warnings
}
