//! Runs attacks on images and scores the candidates that they return.

use std::{collections::HashSet, ops::Range, time::Instant};

use super::{
    AttackResult, ClassResult, EvalConfig, Ledger, Outcome, PartResult, Peers, Results,
    lanes::Batch, ledger::Spent, search::Near,
};
use crate::{
    attack::{Entry, Part, RowKey, Tick, allowed},
    classifier::{Classifier, Shape},
    error::{Error, Result},
    observer::{EvalEvent, EvalObserver, Progress, Standing},
    rows::Rows,
    samples::Samples,
    sanity,
    stats::Accuracy,
};

/// An evaluation of one classifier on some images under one threat.
#[derive(Debug)]
pub struct Evaluator<'a> {
    pub(super) model: &'a dyn Classifier,
    /// Where attacks search, if not on `model`.
    pub(super) near: Option<Near<'a>>,
    /// What names the classes of saved predictions, if not `model`.
    pub(super) predicts: Option<&'a dyn Classifier>,
    pub(super) samples: &'a dyn Samples,
    pub(super) config: EvalConfig,
    pub(super) ledger: Ledger,
    pub(super) observer: Option<Box<dyn EvalObserver + 'a>>,
    pub(super) peers: Option<&'a dyn Peers>,
}

impl<'a> Evaluator<'a> {
    /// Prepares an evaluation. Rounds that `ledger` already holds are not run again.
    ///
    /// # Errors
    /// [`Error`] without images, or for images that `model` does not take.
    pub fn new(
        model: &'a dyn Classifier,
        samples: &'a dyn Samples,
        config: EvalConfig,
        ledger: Ledger,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::NoImages);
        }
        let (network, images) = (model.shape(), samples.shape());
        if (Shape { classes: network.classes, ..images }) != network
            || images.classes > network.classes
        {
            return Err(Error::Shape { network, images });
        }
        let (near, predicts, observer, peers) = (None, None, None, None);
        Ok(Self { model, near, predicts, samples, config, ledger, observer, peers })
    }

    /// Reports the progress of the work to `observer`.
    #[must_use]
    pub fn observe(mut self, observer: impl EvalObserver + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Shares the images with other processes that make the same calls; each finds the same. Each
    /// needs a ledger of its own, in which it writes down its part.
    #[must_use]
    pub fn share(self, peers: &'a dyn Peers) -> Self {
        Self { peers: Some(peers), ..self }
    }

    /// Runs `entries` in order, each on all images that are classified correctly without attack.
    ///
    /// # Errors
    /// [`Error::Access`] for an attack that asks for more than the classifier answers;
    /// [`Error::Classifier`] when the classifier fails; [`Error::Io`] when the ledger cannot be
    /// written.
    pub fn run(&mut self, entries: &[Entry]) -> Result<Outcome> {
        allowed(entries, self.model.access())?;
        let _sessions = (self.model.session(), self.near.as_ref().map(|near| near.model.session()));
        self.shared(|evaluator, images| evaluator.run_on(images, entries))
    }

    /// Runs `entries` on those of the images `all` that are classified correctly clean.
    fn run_on(&mut self, all: &[usize], entries: &[Entry]) -> Result<Outcome> {
        let clean = self.clean(all)?;
        let n = self.samples.len() as u64;
        let mut results = Results::default();
        let mut notes: Vec<String> = self.near.iter().map(|near| near.note.clone()).collect();
        for entry in entries {
            let mut left = clean.clone();
            let mut parts: Vec<PartResult> = Vec::new();
            for part in &entry.parts {
                let attacked = left.len() as u64;
                let before = left;
                left = self.survivors(part, &before)?;
                let rounds = part.attack.rounds(self.model.shape().classes);
                let Spent { seconds, queries } = self.spent(&part.key, rounds, &before);
                let (attack, correct) = (part.name.clone(), left.len() as u64);
                parts.push(PartResult { attack, attacked, correct, seconds, queries });
                notes.extend(part.attack.note(self.model.shape()));
            }
            let (Spent { seconds, queries }, attacked) = if parts.is_empty() {
                (self.spent(CLEAN, 1, all), n)
            } else {
                let seconds = parts.iter().fold(0.0, |sum, part| sum + part.seconds);
                let queries = parts.iter().map(|part| part.queries).sum();
                (Spent { seconds, queries }, clean.len() as u64)
            };
            if parts.len() < 2 {
                parts.clear();
            }
            let correct = left.len() as u64;
            let accuracy = Accuracy::of(correct, n);
            let seconds_per_image = seconds / attacked.max(1) as f64;
            results.0.push((
                entry.name.clone(),
                AttackResult {
                    accuracy,
                    correct,
                    attacked,
                    seconds,
                    seconds_per_image,
                    queries,
                    queries_per_image: queries.map(|count| count as f64 / attacked.max(1) as f64),
                    by_class: self.by_class(&left),
                    parts,
                },
            ));
        }
        notes.sort();
        notes.dedup();
        let warnings = sanity::of_results(&results, self.config.threat, n);
        Ok(Outcome { results, notes, warnings })
    }

    /// What the first `rounds` rounds of the attack called `key` took on the images `positions`;
    /// queries where the network counts them.
    fn spent(&self, key: &str, rounds: usize, positions: &[usize]) -> Spent {
        let ids = || positions.iter().map(|&i| self.id(i));
        let seconds = self.ledger.seconds(key, rounds, ids());
        let counted = self.model.queries().and_then(|_| self.ledger.queries(key, rounds, ids()));
        Spent { seconds, queries: counted }
    }

    /// What was spent since `started`, when the network had answered `before` images.
    pub(super) fn spent_since(&self, started: Instant, before: Option<u64>) -> Spent {
        let counts = self.model.queries().zip(before);
        let queries = counts.map(|(now, before)| now.saturating_sub(before));
        Spent { seconds: started.elapsed().as_secs_f64(), queries }
    }

    /// Number of images of each class in `standing`.
    fn by_class(&self, standing: &[usize]) -> Vec<ClassResult> {
        let classes = self.samples.classes();
        let mut counts: Vec<_> =
            (0..classes).map(|class| ClassResult { class, n: 0, correct: 0 }).collect();
        for position in 0..self.samples.len() {
            if let Some(count) = counts.get_mut(self.samples.class(position)) {
                count.n += 1;
            }
        }
        for &position in standing {
            if let Some(count) = counts.get_mut(self.samples.class(position)) {
                count.correct += 1;
            }
        }
        counts
    }

    /// The round (from 0) in which each image of `positions` fell to the attack called `key`;
    /// `None` if it stands.
    pub fn fell_in(&self, key: &str, positions: &[usize]) -> Vec<Option<usize>> {
        positions.iter().map(|&i| self.ledger.fell_in(key, self.id(i))).collect()
    }

    /// Positions of the images that are classified correctly without attack.
    ///
    /// # Errors
    /// [`Error::Classifier`] when the classifier fails; [`Error::Io`] when the ledger cannot be
    /// written.
    pub fn clean_correct(&mut self) -> Result<Vec<usize>> {
        self.clean(&(0..self.samples.len()).collect::<Vec<_>>())
    }

    /// Ends the evaluation and removes the files by which it could have been resumed. Files with
    /// results of attacks, or of rounds of them, that were not asked for here stay: another
    /// evaluation was cut off, and goes on from them.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be removed.
    pub fn finish(self) -> Result<()> {
        self.ledger.finish()
    }

    pub(super) fn id(&self, position: usize) -> u32 {
        self.samples.id(position)
    }

    pub(super) fn ids(&self, positions: &[usize]) -> Vec<u32> {
        positions.iter().map(|&i| self.id(i)).collect()
    }

    pub(super) fn labels(&self, positions: &[usize]) -> Vec<usize> {
        positions.iter().map(|&i| self.samples.label(i)).collect()
    }

    /// The images of `all` that are classified correctly without attack.
    fn clean(&mut self, all: &[usize]) -> Result<Vec<usize>> {
        self.ledger.ask(CLEAN, 1);
        let pending: Vec<usize> =
            all.iter().copied().filter(|&i| !self.ledger.knows(CLEAN, self.id(i), 0)).collect();
        for chunk in pending.chunks(self.config.batch.max(1)) {
            let (started, before) = (Instant::now(), self.model.queries());
            let x = self.pixels(chunk)?;
            let stands = self.score(&x, &self.labels(chunk))?;
            let spent = self.spent_since(started, before);
            let ids = self.ids(chunk);
            self.ledger.add(CLEAN, 0, &ids, &stands, spent, &[]);
            if let (Some(error), Some(observer)) = (self.ledger.news(), &mut self.observer) {
                observer.on(&EvalEvent::StateLost { error });
            }
        }
        Ok(all.iter().copied().filter(|&i| self.ledger.survived(CLEAN, self.id(i), 1)).collect())
    }

    /// The images of `standing` that survive every round of `part`.
    fn survivors(&mut self, part: &Part, standing: &[usize]) -> Result<Vec<usize>> {
        let rounds = part.attack.rounds(self.model.shape().classes);
        self.ledger.ask(&part.key, rounds);
        self.observed(&part.name, standing.len() * rounds, |evaluator, progress| {
            let mut first = 0;
            while first < rounds {
                let left = evaluator.left(part, standing, first);
                let together = evaluator.together(left.len(), first).min(rounds - first);
                let run = first..first + together;
                evaluator.rounds(part, run, [standing.len(), rounds], &left, progress)?;
                first += together;
            }
            Ok(())
        })?;
        Ok(self.left(part, standing, rounds))
    }

    /// The images of `standing` that survive the first `rounds` rounds of `part`.
    fn left(&self, part: &Part, standing: &[usize], rounds: usize) -> Vec<usize> {
        let survived = |&i: &usize| self.ledger.survived(&part.key, self.id(i), rounds);
        standing.iter().copied().filter(survived).collect()
    }

    /// How many rounds, from round `first` on, are run at once on `left` images: a few images are
    /// too little work for a processor. Most images that fall do so in the first round, which
    /// therefore runs alone; and where queries are counted, none is made for a round that the one
    /// before may spare.
    fn together(&self, left: usize, first: usize) -> usize {
        match first == 0 || self.model.queries().is_some() {
            true => 1,
            false => (self.config.batch / left.max(1)).max(1),
        }
    }

    /// Runs the rounds `run` of `part` on the images `left`, which survived the rounds before; of
    /// `all` images in all rounds.
    fn rounds(
        &mut self,
        part: &Part,
        run: Range<usize>,
        [all, rounds]: [usize; 2],
        left: &[usize],
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let pairs = run.clone().flat_map(|round| left.iter().map(move |&i| (i, round)));
        let (known, pending): (Vec<_>, Vec<_>) =
            pairs.partition(|&(i, round)| self.ledger.knows(&part.key, self.id(i), round));
        let mut fallen = left.len() - self.left(part, left, run.end).len();
        // Number of finished image-rounds: finished rounds, images that fell before (with the
        // rounds that they are spared), and images known in these rounds.
        let mut behind = (all - left.len()) * rounds + left.len() * run.start + known.len();
        let images = self.samples.len() as u64;
        let lanes = self.search().lanes();
        let batch = self.config.batch.min(pending.len().div_ceil(lanes)).max(1);
        let chunks: Vec<_> = pending.chunks(batch).collect();
        for together in chunks.chunks(lanes) {
            let rows: usize = together.iter().map(|chunk| chunk.len()).sum();
            let mut tick = |tick: Tick| {
                // Of several rounds an image may be fooled in each.
                let fooled = if run.len() == 1 { tick.fooled } else { 0 };
                let standing = left.len().saturating_sub(fallen + fooled) as u64;
                progress.reach(
                    behind as u64 + (tick.done * rows as f64) as u64,
                    Some(Standing { round: run.start, rounds, standing, images }),
                );
            };
            fallen += self.batches(part, together, &mut tick)?;
            if let Some(error) = self.ledger.news() {
                progress.tell(&EvalEvent::StateLost { error });
            }
            behind += rows;
        }
        Ok(())
    }

    /// Runs `work` of `total` units called `what`, and reports its progress to the observer.
    pub(super) fn observed<T>(
        &mut self,
        what: &str,
        total: usize,
        work: impl FnOnce(&mut Self, &mut Progress<'_>) -> Result<T>,
    ) -> Result<T> {
        // The work borrows the evaluator, so the observer is taken out of it meanwhile.
        let mut observer = self.observer.take();
        let seen = observer.as_mut().map(|observer| &mut **observer as &mut dyn EvalObserver);
        let done = work(self, &mut Progress::begin(seen, what, total));
        self.observer = observer;
        done
    }

    pub(super) fn pixels(&self, positions: &[usize]) -> Result<Rows> {
        let width = self.model.shape().pixels();
        let expected = positions.len() * width;
        let found = self.samples.pixels(positions)?;
        if found.len() != expected {
            let (what, found) = ("pixels of images".into(), found.len());
            return Err(Error::Length { what, found, expected });
        }
        Ok(Rows::new(found, width))
    }

    /// Runs `part` on each of `chunks`, pairs of an image and a round, at the same time, and records
    /// which images stand; returns the number that fell.
    fn batches(
        &mut self,
        part: &Part,
        chunks: &[&[(usize, usize)]],
        tick: &mut (dyn FnMut(Tick) + Send),
    ) -> Result<usize> {
        let (started, before) = (Instant::now(), self.model.queries());
        let batches: Vec<Batch> =
            chunks.iter().map(|chunk| self.read(chunk)).collect::<Result<_>>()?;
        let attacked = self.search().attacked_together(part, &batches, tick)?;
        let spent = self.spent_since(started, before);
        let rows: usize = batches.iter().map(|batch| batch.keys.len()).sum();
        let mut fallen = HashSet::new();
        for (Batch { keys, .. }, (candidates, stands)) in batches.iter().zip(attacked) {
            let share = keys.len() as f64 / rows as f64;
            let spent = Spent { seconds: share * spent.seconds, ..spent };
            self.record(part, keys, &stands, spent, &candidates, &mut fallen);
        }
        Ok(fallen.len())
    }

    /// The images of `chunk`, pairs of an image and a round.
    fn read(&self, chunk: &[(usize, usize)]) -> Result<Batch> {
        let positions: Vec<usize> = chunk.iter().map(|&(i, _)| i).collect();
        let keys = chunk.iter().map(|&(i, round)| RowKey { id: self.id(i), round }).collect();
        Ok(Batch { x: self.pixels(&positions)?, labels: self.labels(&positions), keys })
    }

    /// Records the rows `keys`, round by round, and adds the images that fell to `fallen`. What comes
    /// after the round in which an image fell is as if it had not been run.
    fn record(
        &mut self,
        part: &Part,
        keys: &[RowKey],
        stands: &[bool],
        spent: Spent,
        candidates: &Rows,
        fallen: &mut HashSet<u32>,
    ) {
        let mut counts = vec![false; keys.len()];
        for ((key, stands), counts) in keys.iter().zip(stands).zip(&mut counts) {
            *counts = !fallen.contains(&key.id);
            if !stands {
                fallen.insert(key.id);
            }
        }
        let counted = counts.iter().filter(|counts| **counts).count();
        let mut first = 0;
        for round in keys.chunk_by(|a, b| a.round == b.round) {
            let rows: Vec<usize> = (first..first + round.len()).filter(|&i| counts[i]).collect();
            first += round.len();
            if rows.is_empty() {
                continue;
            }
            let ids: Vec<u32> = rows.iter().map(|&i| keys[i].id).collect();
            let stands: Vec<bool> = rows.iter().map(|&i| stands[i]).collect();
            let share = rows.len() as f64 / counted as f64;
            // Where queries are counted, there is one round.
            let spent = Spent { seconds: share * spent.seconds, ..spent };
            let points = candidates.select(&rows);
            self.ledger.add(&part.key, round[0].round, &ids, &stands, spent, &points);
        }
    }
}

/// The name of the clean pass in the ledger.
pub(super) const CLEAN: &str = "clean";
