//! The evaluator: accuracy under attacks, by its own forward pass on clipped images.
//!
//! A sample that is misclassified without attack counts as broken (delta = 0 lies in every ball).
//! An attack runs on the samples that still stand, round by round (a restart, a target class), in
//! full batches of survivors. The evaluator projects its candidates on the ball and on [0, 1] and
//! scores them again. Everything runs in eval mode, in f32; on request attacks search on a rougher
//! and faster form of the network ([`Evaluator::search_on`]). Results go to a ledger batch by batch,
//! so that an evaluation that was killed continues where it stopped.

mod adversarial;
mod corruptions;
mod evaluator;
mod examples;
mod lanes;
mod ledger;
mod peers;
mod search;
mod state;
pub mod sweep;

use serde::{Serialize, Serializer, ser::SerializeMap};

pub use adversarial::Saved;
pub use corruptions::{CorruptionResult, Corruptions, FamilyResult};
pub use evaluator::Evaluator;
pub use ledger::Ledger;
pub use peers::Peers;
pub use state::{ExistingState, StateOptions};

use crate::{
    identity::Identity,
    stats::Accuracy,
    threat::{Norm, Threat},
};

/// Settings of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvalConfig {
    /// Norm and epsilon.
    pub threat: Threat,
    /// Seed of the random starts.
    pub seed: u64,
    /// Images at a time; the number does not change the results.
    pub batch: usize,
    /// Whether adversarial images are rounded.
    pub pixels: Pixels,
}

impl EvalConfig {
    /// The usual settings under `threat`: seed 0, 256 images at a time, pixels of any value.
    pub fn under(threat: Threat) -> Self {
        Self { threat, seed: 0, batch: 256, pixels: Pixels::Any }
    }
}

/// Which values an adversarial image may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pixels {
    /// Any in [0, 1].
    #[default]
    Any,
    /// Multiples of 1/255, as a file of eight bits a channel holds them: what an attack returns is
    /// rounded, within the ball, before it is scored.
    EightBit,
}

/// Result of one attack or ensemble.
#[derive(Clone, Debug, Serialize)]
pub struct AttackResult {
    /// Robust accuracy and its 95 % Wilson interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Number of images that stand.
    pub correct: u64,
    /// Number of images attacked: those classified correctly without attack.
    pub attacked: u64,
    /// Wall-clock seconds, summed over the sessions of a resumed evaluation.
    pub seconds: f64,
    /// Wall-clock seconds per image attacked.
    pub seconds_per_image: f64,
    /// Images that the network answered, where it counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
    /// The same per image attacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries_per_image: Option<f64>,
    /// The same by class, in the order of the labels.
    pub by_class: Vec<ClassResult>,
    /// The attacks of an ensemble, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartResult>,
}

/// Result of one attack or ensemble on the images of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClassResult {
    /// The class.
    pub class: usize,
    /// Number of images of the class.
    pub n: u64,
    /// Number of images of the class that stand.
    pub correct: u64,
}

/// Result of one attack of an ensemble.
#[derive(Clone, Debug, Serialize)]
pub struct PartResult {
    /// Name.
    pub attack: String,
    /// Images attacked: those that the attacks before left standing.
    pub attacked: u64,
    /// Images that stand after it.
    pub correct: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Images that the network answered, where it counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
}

/// Results in the order of the attacks, as a JSON object.
#[derive(Clone, Debug, Default)]
pub struct Results(pub Vec<(String, AttackResult)>);

impl Results {
    /// The result called `name`.
    pub fn get(&self, name: &str) -> Option<&AttackResult> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, result)| result)
    }
}

impl Serialize for Results {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
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
    /// Everything that decides the results.
    pub identity: Identity,
    /// SHA-256 of the whole split that the images were taken from, where it is known: it decides no
    /// result, and tells whether the split is still what a training began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_sha256: Option<String>,
    /// Per attack.
    pub results: Results,
    /// Accuracy on corrupted images, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corruptions: Option<Corruptions>,
    /// Where an attack departed from its definition, and why.
    pub notes: Vec<String>,
    /// Warnings to read before the figures are trusted.
    pub warnings: Vec<String>,
}

impl Report {
    /// The report of the evaluation `identity`, which has its attacks.
    pub fn new(identity: Identity, outcome: Outcome) -> Self {
        let Outcome { results, notes, warnings } = outcome;
        Self {
            dataset: identity.data.name.clone(),
            split: identity.data.split.clone(),
            n: identity.data.images as u64,
            epsilon: identity.epsilon,
            norm: identity.norm,
            seed: identity.seed,
            identity,
            split_sha256: None,
            results,
            corruptions: None,
            notes,
            warnings,
        }
    }

    /// The same with accuracies on corrupted images, and what is to be known of them.
    #[must_use]
    pub fn on_corrupted(mut self, found: Option<Corruptions>) -> Self {
        self.notes.extend(found.iter().flat_map(|found| &found.notes).map(|&note| note.to_owned()));
        self.corruptions = found;
        self
    }

    /// A name for the report's file that no other evaluation has:
    /// `PROTOCOL-linf-0.0314-3f09ab51c2`.
    pub fn file_stem(&self, protocol: &str) -> String {
        format!("{protocol}-{}-{:.4}-{}", self.norm, self.epsilon, self.identity.short())
    }
}

/// The results of an evaluation, without its identity.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Per attack.
    pub results: Results,
    /// Where an attack departed from its definition, and why.
    pub notes: Vec<String>,
    /// Warnings to read before the figures are trusted.
    pub warnings: Vec<String>,
}
