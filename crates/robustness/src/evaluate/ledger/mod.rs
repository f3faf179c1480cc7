//! The results of an evaluation so far: for each attack and sample, the rounds that the sample
//! survived.

mod known;

use std::{collections::HashMap, path::Path};

use super::{
    Identity,
    state::{Line, State, StateOptions},
};
use crate::error::{Error, Result};

/// The result of a sample under an attack.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Seconds of each round that was run; a batch's seconds are shared among its samples.
    seconds: Vec<f32>,
    /// Queries of each round run, its share of the batch, where they are counted.
    queries: Vec<Option<f64>>,
    /// Whether the sample fell in the last round that was run; its adversarial example, if kept, is
    /// of that round.
    fallen: bool,
    row: Option<u64>,
}

/// What a batch took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spent {
    pub seconds: f64,
    /// Images that the network answered, where it counts them.
    pub queries: Option<u64>,
}

/// The results of an evaluation so far, in memory or also in a file, so that a kill at any moment
/// loses at most the current batch.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<String, HashMap<u32, Record>>,
    /// The attacks that this evaluation asked for, each with the number of rounds.
    asked: HashMap<String, usize>,
    state: Option<State>,
    /// The reason why the file is no longer written.
    lost: Option<Error>,
    told: bool,
}

impl Ledger {
    /// A ledger without a file.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Opens the ledger in the file `path` and reads the results of the evaluation `identity` in
    /// it.
    ///
    /// # Errors
    /// [`Error`] for a file that cannot be written, that another process uses, that holds the state
    /// of another evaluation (unless [`start`](StateOptions::start) discards it), or that is not a
    /// state of an evaluation; such a file is never changed.
    ///
    /// The file goes with the ledger if no batch was finished by then.
    pub fn open(path: &Path, identity: &Identity, options: StateOptions) -> Result<Self> {
        let (state, lines) = State::open(path, identity, options)?;
        let mut ledger = Self::default();
        lines.iter().for_each(|line| ledger.take(line));
        ledger.state = Some(state);
        Ok(ledger)
    }

    /// Opens the ledger `STEM.jsonl` in the folder `dir`, or `STEM-2.jsonl` and so on while other
    /// processes use the names before it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_in(
        dir: &Path,
        stem: &str,
        identity: &Identity,
        options: StateOptions,
    ) -> Result<Self> {
        const MOST: usize = 16;
        let mut found = Self::open(&dir.join(format!("{stem}.jsonl")), identity, options);
        for number in 2..=MOST {
            if !matches!(found, Err(Error::InUse(_))) {
                break;
            }
            found = Self::open(&dir.join(format!("{stem}-{number}.jsonl")), identity, options);
        }
        found
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.state.as_ref().map(State::path)
    }

    /// Why no lock keeps a second process from the file: some file systems have none.
    pub fn unlocked(&self) -> Option<&std::io::Error> {
        self.state.as_ref()?.unlocked()
    }

    /// Number of results in the ledger, and number of attacks that they belong to.
    pub fn known(&self) -> (usize, usize) {
        (self.records.values().map(HashMap::len).sum(), self.records.len())
    }

    fn take(&mut self, line: &Line) {
        let images = line.ids.len().max(1) as f64;
        let share = (line.seconds / images) as f32;
        let queries = line.queries.map(|queries| queries as f64 / images);
        let records = self.records.entry(line.attack.clone()).or_default();
        for &id in &line.ids {
            let record = records.entry(id).or_default();
            // A batch that two processes recorded is the same in both records, and a later round
            // cannot fill a gap.
            if record.seconds.len() == line.round && !record.fallen {
                record.seconds.push(share);
                record.queries.push(queries);
                if let Some(k) = line.fallen.iter().position(|&fallen| fallen == id) {
                    record.fallen = true;
                    record.row = line.row.map(|row| row + k as u64);
                }
            }
        }
    }

    /// Notes that this evaluation asks for `rounds` rounds of `attack`, known or not.
    pub(super) fn ask(&mut self, attack: &str, rounds: usize) {
        let asked = self.asked.entry(attack.to_owned()).or_default();
        *asked = rounds.max(*asked);
    }

    /// Records a finished batch: which of `ids` stand after `round`, and the rows of pixels at
    /// which they were scored. A file that cannot be written is given up, so that the work can
    /// continue; see [`news`](Self::news).
    pub(super) fn add(
        &mut self,
        attack: &str,
        round: usize,
        ids: &[u32],
        stands: &[bool],
        spent: Spent,
        points: &[f32],
    ) {
        let fallen =
            ids.iter().zip(stands).filter(|(_, stands)| !**stands).map(|(&id, _)| id).collect();
        let mut line = Line {
            attack: attack.to_owned(),
            round,
            ids: ids.to_vec(),
            fallen,
            seconds: spent.seconds,
            queries: spent.queries,
            row: None,
            examples: String::new(),
            sum: String::new(),
        };
        let written =
            self.state.as_mut().map_or(Ok(()), |state| state.write(&mut line, stands, points));
        self.take(&line);
        if let Err(error) = written {
            self.state = None;
            (self.lost, self.told) = (Some(error), false);
        }
    }

    /// The reason why the file was given up, returned once, by the first call after that.
    pub(super) fn news(&mut self) -> Option<&Error> {
        let told = std::mem::replace(&mut self.told, true);
        self.lost.as_ref().filter(|_| !told)
    }

    fn record_of(&self, attack: &str, id: u32) -> Option<&Record> {
        self.records.get(attack)?.get(&id)
    }

    /// Whether round `round` has been run, or is not needed because the sample fell before.
    pub(super) fn knows(&self, attack: &str, id: u32, round: usize) -> bool {
        self.record_of(attack, id)
            .is_some_and(|record| record.fallen || record.seconds.len() > round)
    }

    /// Whether the sample stands after the first `rounds` rounds, as far as they were run.
    pub(super) fn survived(&self, attack: &str, id: u32, rounds: usize) -> bool {
        self.record_of(attack, id)
            .is_none_or(|record| !record.fallen || record.seconds.len() > rounds)
    }

    /// The round in which the sample fell.
    pub(super) fn fell_in(&self, attack: &str, id: u32) -> Option<usize> {
        self.record_of(attack, id)
            .filter(|record| record.fallen)
            .map(|record| record.seconds.len().saturating_sub(1))
    }

    /// Seconds that the first `rounds` rounds took for the samples `ids`.
    pub(super) fn seconds(
        &self,
        attack: &str,
        rounds: usize,
        ids: impl Iterator<Item = u32>,
    ) -> f64 {
        ids.filter_map(|id| self.record_of(attack, id))
            .flat_map(|record| record.seconds.iter().take(rounds))
            .fold(0.0, |sum, &s| sum + f64::from(s))
    }

    /// Queries of the first `rounds` rounds for the samples `ids`; `None` where some of them were
    /// not counted.
    pub(super) fn queries(
        &self,
        attack: &str,
        rounds: usize,
        ids: impl Iterator<Item = u32>,
    ) -> Option<u64> {
        let counts = ids
            .filter_map(|id| self.record_of(attack, id))
            .flat_map(|record| record.queries.iter().take(rounds));
        let sum = counts.copied().try_fold(0.0, |sum, count| Some(sum + count?))?;
        Some(sum.round() as u64)
    }

    /// The adversarial example of the sample under `attack` within its first `rounds` rounds.
    ///
    /// # Errors
    /// [`Error`] for a file that cannot be read, or that could not be written.
    pub(super) fn example(
        &mut self,
        attack: &str,
        id: u32,
        rounds: usize,
    ) -> Result<Option<Vec<f32>>> {
        if self.survived(attack, id, rounds) {
            return Ok(None);
        }
        let row = self.record_of(attack, id).and_then(|record| record.row);
        match (&mut self.state, row) {
            (Some(state), Some(row)) => state.example(row).map(Some),
            (None, _) if self.lost.is_some() => Err(Error::ExamplesLost),
            _ => Ok(None),
        }
    }

    /// Whether there are results that this evaluation did not ask for: another one was cut off.
    fn serves_others(&self) -> bool {
        let rounds = |records: &HashMap<u32, Record>| {
            records.values().map(|record| record.seconds.len()).max().unwrap_or(0)
        };
        // With those of other processes, so that all of them decide alike.
        let known = self.records.iter().map(|(attack, records)| (attack, rounds(records)));
        let held = self.state.iter().flat_map(State::held);
        known
            .chain(held)
            .any(|(attack, rounds)| self.asked.get(attack).is_none_or(|&asked| rounds > asked))
    }

    /// Ends the evaluation: removes the files, or leaves them to another one that was cut off.
    pub(super) fn finish(self) -> Result<()> {
        let others = self.serves_others();
        match self.state {
            Some(state) if others => state.leave(),
            Some(state) => state.remove(),
            None => Ok(()),
        }
    }

    /// Removes the files.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.state.map_or(Ok(()), State::remove)
    }
}

#[cfg(test)]
mod tests;
