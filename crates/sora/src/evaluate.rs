//! The evaluator: accuracy under attacks, by its own forward pass on clipped images.
//!
//! A sample that is misclassified clean counts as broken (delta = 0 lies in every ball). An attack
//! runs on what still stands, round by round (a restart, a target class), in full batches of
//! survivors; what it returns is projected on the ball and on [0, 1] and scored again here.
//! Everything runs in eval mode, in f32. What is found goes to a ledger batch by batch, so that an
//! evaluation that was killed goes on where it was.

mod adversarial;
mod ledger;
pub mod sweep;

use std::time::Instant;

use serde::{Serialize, Serializer, ser::SerializeMap};

pub use adversarial::Saved;
pub use ledger::{Identity, Ledger};

use crate::{
    attack::{self, AttackContext, Batch, Classifier, Entry, Part, rows, stands},
    data::Split,
    diagnose::sanity,
    error::{Error, Result},
    metrics::Accuracy,
    threat::{Norm, Threat},
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
    /// Images at a time; it does not change the results.
    pub batch: usize,
    /// Whether to show progress.
    pub progress: bool,
}

/// Result of one attack or ensemble.
#[derive(Clone, Debug, Serialize)]
pub struct AttackResult {
    /// Robust accuracy and its 95 % Wilson interval.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Images that stand.
    pub correct: u64,
    /// Images attacked: those classified correctly clean.
    pub attacked: u64,
    /// Wall-clock seconds, summed over the sittings of a resumed evaluation.
    pub seconds: f64,
    /// Wall-clock seconds per image attacked.
    pub seconds_per_image: f64,
    /// The attacks of an ensemble, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartResult>,
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
    /// What was done differently than an attack's definition says, and why.
    pub notes: Vec<String>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Per attack.
    pub results: Results,
    /// What was done differently than an attack's definition says.
    pub notes: Vec<String>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
}

/// Rows of pixels in [0, 1] of the samples `indices` of `split`.
///
/// # Errors
/// An image that cannot be decoded.
pub fn pixels(split: &Split, indices: &[usize]) -> Result<Vec<f32>> {
    Ok(split.unit_pixels(indices)?)
}

/// Evaluates `model` on every sample of `split`.
///
/// # Errors
/// An unknown attack, an empty split, or a device that fails.
pub fn evaluate(
    model: &dyn Classifier,
    split: &Split,
    config: &EvalConfig,
) -> Result<(Results, Vec<String>)> {
    let entries = config
        .attacks
        .iter()
        .map(|name| attack::entry(name, config.threat.norm))
        .collect::<Result<Vec<_>>>()?;
    let outcome =
        Evaluator::new(model, split, config.clone(), Ledger::in_memory())?.run(&entries)?;
    Ok((outcome.results, outcome.warnings))
}

/// An evaluation of one model on one split under one threat.
#[derive(Debug)]
pub struct Evaluator<'a> {
    model: &'a dyn Classifier,
    split: &'a Split,
    config: EvalConfig,
    ledger: Ledger,
}

impl<'a> Evaluator<'a> {
    /// `config.attacks` is not looked at: [`run`](Self::run) takes the attacks. What `ledger` holds
    /// is not done again.
    ///
    /// # Errors
    /// An empty split.
    pub fn new(
        model: &'a dyn Classifier,
        split: &'a Split,
        config: EvalConfig,
        ledger: Ledger,
    ) -> Result<Self> {
        if split.is_empty() {
            return Err(Error::input("nothing to evaluate: the split holds no image"));
        }
        let (shape, found) = (model.shape(), split.shape());
        if found != [shape.channels, shape.height, shape.width]
            || split.num_classes() > shape.classes
        {
            return Err(Error::input(format!(
                "the network takes images of {}x{}x{} in {} classes, the split has {}x{}x{} in {}",
                shape.channels,
                shape.height,
                shape.width,
                shape.classes,
                found[0],
                found[1],
                found[2],
                split.num_classes()
            )));
        }
        Ok(Self { model, split, config, ledger })
    }

    /// Runs `entries` in order, each on all images that are classified correctly clean.
    ///
    /// # Errors
    /// A device that fails, or a ledger that cannot be written.
    pub fn run(&mut self, entries: &[Entry]) -> Result<Outcome> {
        let _memory = crate::nn::shrinking();
        let all: Vec<usize> = (0..self.split.len()).collect();
        let clean = self.clean(&all)?;
        let n = self.split.len() as u64;
        let mut results = Results::default();
        let mut notes = Vec::new();
        for entry in entries {
            let mut left = clean.clone();
            let mut parts = Vec::new();
            for part in &entry.parts {
                let attacked = left.len() as u64;
                let before = left;
                left = self.survivors(part, &before)?;
                let seconds = self.ledger.seconds(
                    &part.key,
                    part.attack.rounds(self.model.shape().classes),
                    before.iter().map(|&i| self.id(i)),
                );
                parts.push(PartResult {
                    attack: part.name.clone(),
                    attacked,
                    correct: left.len() as u64,
                    seconds,
                });
                notes.extend(part.attack.note(self.model.shape()));
            }
            let (seconds, attacked) = if parts.is_empty() {
                (self.ledger.seconds(CLEAN, 1, all.iter().map(|&i| self.id(i))), n)
            } else {
                (parts.iter().fold(0.0, |sum, part| sum + part.seconds), clean.len() as u64)
            };
            if parts.len() < 2 {
                parts.clear();
            }
            let correct = left.len() as u64;
            let accuracy = Accuracy::of(correct, n);
            let seconds_per_image = seconds / attacked.max(1) as f64;
            results.0.push((
                entry.name.clone(),
                AttackResult { accuracy, correct, attacked, seconds, seconds_per_image, parts },
            ));
        }
        notes.sort();
        notes.dedup();
        let warnings = sanity::of_results(&results, self.config.threat, n);
        Ok(Outcome { results, notes, warnings })
    }

    /// The round (from 0) in which each image of `positions` fell to the attack called `key`;
    /// `None` if it stands.
    pub fn fell_in(&self, key: &str, positions: &[usize]) -> Vec<Option<usize>> {
        positions.iter().map(|&i| self.ledger.fell_in(key, self.id(i))).collect()
    }

    /// Positions of the images that are classified correctly clean.
    ///
    /// # Errors
    /// A device that fails, or a ledger that cannot be written.
    pub fn clean_correct(&mut self) -> Result<Vec<usize>> {
        self.clean(&(0..self.split.len()).collect::<Vec<_>>())
    }

    /// Ends the evaluation: what was kept for going on is removed.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn finish(self) -> Result<()> {
        self.ledger.remove()
    }

    fn id(&self, position: usize) -> u32 {
        self.split.ids()[position]
    }

    fn ids(&self, positions: &[usize]) -> Vec<u32> {
        positions.iter().map(|&i| self.id(i)).collect()
    }

    fn labels(&self, positions: &[usize]) -> Vec<usize> {
        positions.iter().map(|&i| self.split.label(i) as usize).collect()
    }

    /// Those of `all` that are classified correctly as they are.
    fn clean(&mut self, all: &[usize]) -> Result<Vec<usize>> {
        let pending: Vec<usize> =
            all.iter().copied().filter(|&i| !self.ledger.knows(CLEAN, self.id(i), 0)).collect();
        for chunk in pending.chunks(self.config.batch.max(1)) {
            let started = Instant::now();
            let x = pixels(self.split, chunk)?;
            let stands = self.score(&x, &self.labels(chunk))?;
            self.ledger.record(
                CLEAN,
                0,
                &self.ids(chunk),
                &stands,
                started.elapsed().as_secs_f64(),
                &[],
            )?;
        }
        Ok(all.iter().copied().filter(|&i| self.ledger.survived(CLEAN, self.id(i), 1)).collect())
    }

    /// Those of `standing` that survive every round of `part`.
    fn survivors(&mut self, part: &Part, standing: &[usize]) -> Result<Vec<usize>> {
        let rounds = part.attack.rounds(self.model.shape().classes);
        let label = part.name.as_str();
        let mut progress =
            self.config.progress.then(|| Progress::new(label, 0, (standing.len() * rounds) as u64));
        let mut shown = 0;
        for round in 0..rounds {
            let left: Vec<usize> = standing
                .iter()
                .copied()
                .filter(|&i| self.ledger.survived(&part.key, self.id(i), round))
                .collect();
            let pending: Vec<usize> = left
                .iter()
                .copied()
                .filter(|&i| !self.ledger.knows(&part.key, self.id(i), round))
                .collect();
            let known = left.iter().filter(|&&i| self.ledger.knows(&part.key, self.id(i), round));
            let mut fallen =
                known.filter(|&&i| !self.ledger.survived(&part.key, self.id(i), round + 1)).count();
            // Image-rounds behind us: rounds done, images that fell before (with the rounds they
            // are spared), images known in this round.
            let mut behind = (standing.len() - left.len()) * rounds
                + left.len() * round
                + (left.len() - pending.len());
            let n = self.split.len();
            for chunk in pending.chunks(self.config.batch.max(1)) {
                let mut show = |part: f64, fooled: usize| {
                    if let Some(progress) = &mut progress {
                        let done = behind as u64 + (part * chunk.len() as f64) as u64;
                        let message = || {
                            let standing = left.len().saturating_sub(fallen + fooled);
                            format!(
                                "round {}/{rounds}, accuracy at most {:.1} %",
                                round + 1,
                                100.0 * standing as f64 / n as f64
                            )
                        };
                        progress.advance(done.saturating_sub(shown), message);
                        shown = shown.max(done);
                    }
                };
                let fell =
                    self.batch(part, round, chunk, &mut |tick| show(tick.done, tick.fooled))?;
                fallen += fell;
                behind += chunk.len();
            }
        }
        Ok(standing
            .iter()
            .copied()
            .filter(|&i| self.ledger.survived(&part.key, self.id(i), rounds))
            .collect())
    }

    /// Runs a round of `part` on the images `chunk` and records who stands; returns how many fell.
    fn batch(
        &mut self,
        part: &Part,
        round: usize,
        chunk: &[usize],
        tick: &mut (dyn FnMut(attack::Tick) + Send),
    ) -> Result<usize> {
        let started = Instant::now();
        let (x, labels, ids) = (pixels(self.split, chunk)?, self.labels(chunk), self.ids(chunk));
        let threat = self.config.threat;
        let mut cx =
            AttackContext::new(self.model, threat, self.config.seed, &part.key, round, tick);
        let width = cx.pixels();
        let images = Batch { x: &x, labels: &labels, ids: &ids };
        // In the thread pool, like a training step: what an attack does in parallel then wakes no
        // thread but the others.
        let mut candidates = rayon::scope(|_| part.attack.run(&mut cx, &images))?;
        if candidates.len() != x.len() {
            return Err(Error::work(format!(
                "attack {} returned {} values for {}",
                part.name,
                candidates.len(),
                x.len()
            )));
        }
        rows::for_each(&mut candidates, width, |i, row| {
            rows::project(threat, rows::row(&x, width, i), row)
        });
        let stands = self.score(&candidates, &labels)?;
        self.ledger.record(
            &part.key,
            round,
            &ids,
            &stands,
            started.elapsed().as_secs_f64(),
            &candidates,
        )?;
        Ok(stands.iter().filter(|stands| !**stands).count())
    }

    /// Whether each image is classified as its label.
    fn score(&self, x: &[f32], labels: &[usize]) -> Result<Vec<bool>> {
        let classes = self.model.shape().classes;
        let logits = self.model.logits(x)?;
        Ok(labels
            .iter()
            .enumerate()
            .map(|(i, &label)| stands(rows::row(&logits, classes, i), label))
            .collect())
    }
}

/// What the ledger calls the clean pass.
const CLEAN: &str = "clean";
