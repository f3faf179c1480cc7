//! The results of an evaluation so far: for each attack and sample, the rounds that the sample
//! survived.

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

    /// Removes the files.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.state.map_or(Ok(()), State::remove)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        evaluate::state::ExistingState,
        identity::tests::{identity, others},
    };

    fn spent(seconds: f64) -> Spent {
        Spent { seconds, queries: Some(3) }
    }

    const RESUME: StateOptions = StateOptions { start: ExistingState::Resume, examples: None };
    const FRESH: StateOptions = StateOptions { start: ExistingState::Fresh, examples: None };
    const PAIRS: StateOptions = StateOptions { start: ExistingState::Resume, examples: Some(2) };

    #[test]
    fn a_file_cut_anywhere_gives_back_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.jsonl");
        let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
        ledger.add("clean", 0, &[4, 5, 6], &[true, true, false], spent(1.0), &[]);
        ledger.add("pgd", 0, &[4, 5], &[true, false], spent(3.0), &[0.5; 4]);
        ledger.add("pgd", 1, &[4], &[false], spent(1.0), &[0.5; 2]);
        let whole = fs::read(&path).unwrap();
        drop(ledger);
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
            let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
            assert_eq!(ledger.knows("clean", 6, 0), lines > 1, "{cut}");
            assert_eq!(ledger.fell_in("pgd", 5), (lines > 2).then_some(0), "{cut}");
            assert_eq!(ledger.fell_in("pgd", 4), (lines > 3).then_some(1), "{cut}");
            let kept = fs::read(&path).unwrap();
            assert!(kept.ends_with(b"\n") && (lines == 0 || whole.starts_with(&kept)));
        }
        let ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
        // With one round only, sample 4 stands; its second round counts no seconds then.
        assert!(ledger.survived("pgd", 4, 1) && !ledger.survived("pgd", 4, 2));
        assert_eq!(
            (
                ledger.seconds("pgd", 1, [4, 5].into_iter()),
                ledger.seconds("pgd", 2, [4].into_iter())
            ),
            (3.0, 2.5)
        );
        let queries = |rounds, ids: &[u32]| ledger.queries("pgd", rounds, ids.iter().copied());
        assert_eq!((queries(1, &[4, 5]), queries(2, &[4, 5])), (Some(3), Some(6)));
    }

    #[test]
    fn queries_that_were_not_counted_are_not_told() {
        let mut ledger = Ledger::in_memory();
        ledger.add("square", 0, &[1, 2], &[true, true], spent(1.0), &[]);
        assert_eq!(ledger.queries("square", 1, [1, 2].into_iter()), Some(3));
        let uncounted = Spent { seconds: 1.0, queries: None };
        ledger.add("square", 0, &[3], &[true], uncounted, &[]);
        assert_eq!(ledger.queries("square", 1, [1, 2, 3].into_iter()), None);
    }

    #[test]
    fn nothing_of_another_evaluation_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        for (what, other) in others() {
            let path = dir.path().join(what);
            let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
            ledger.add("clean", 0, &[1], &[true], spent(1.0), &[]);
            drop(ledger);
            let before = fs::read(&path).unwrap();
            let error = Ledger::open(&path, &other, RESUME).unwrap_err();
            assert!(matches!(error, Error::OtherEvaluation { .. }), "{what}: {error}");
            assert_eq!(fs::read(&path).unwrap(), before, "{what}");
            // The evaluation itself can still resume, and another one may replace the file if its
            // options say so.
            assert!(
                Ledger::open(&path, &identity(), RESUME).unwrap().knows("clean", 1, 0),
                "{what}"
            );
            assert_eq!(Ledger::open(&path, &other, FRESH).unwrap().known(), (0, 0), "{what}");
        }
    }

    #[test]
    fn a_file_that_is_no_state_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        for text in ["important\n", "important", "{\"a\": 1}\n", "{", "\n"] {
            for options in [RESUME, FRESH, PAIRS] {
                fs::write(&path, text).unwrap();
                let opened = Ledger::open(&path, &identity(), options);
                // A single byte of a state's beginning may be a state that a kill cut off.
                if text == "{" {
                    continue;
                }
                assert!(matches!(opened, Err(Error::NotAState(_))), "{text:?}");
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
        }
        // Beside the state, too.
        let (state, examples) = (dir.path().join("s"), dir.path().join("s.adv"));
        fs::write(&examples, "mine").unwrap();
        let opened = Ledger::open(&state, &identity(), PAIRS);
        assert!(matches!(opened, Err(Error::NotAState(_))));
        assert_eq!(fs::read_to_string(&examples).unwrap(), "mine");
    }

    #[test]
    fn two_evaluations_at_once_have_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ledger::open_in(dir.path(), "state", &identity(), RESUME);
        let (one, two) = (open().unwrap(), open().unwrap());
        assert_ne!(one.path(), two.path());
        let held = one.path().unwrap().to_owned();
        assert!(matches!(Ledger::open(&held, &identity(), FRESH), Err(Error::InUse(_))));
        one.remove().unwrap();
        two.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn examples_come_back_and_batches_without_them_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.jsonl");
        let mut plain = Ledger::open(&path, &identity(), RESUME).unwrap();
        plain.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.0; 4]);
        drop(plain);
        let mut kept = Ledger::open(&path, &identity(), PAIRS).unwrap();
        assert!(!kept.knows("pgd", 2, 0));
        let points = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        kept.add("pgd", 0, &[1, 2, 3], &[false, true, false], spent(1.0), &points);
        drop(kept);
        let mut again = Ledger::open(&path, &identity(), PAIRS).unwrap();
        assert_eq!(again.example("pgd", 3, 1).unwrap(), Some(vec![0.5, 0.6]));
        assert_eq!(again.example("pgd", 1, 1).unwrap(), Some(vec![0.1, 0.2]));
        assert_eq!(again.example("pgd", 2, 1).unwrap(), None);
        again.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Bits all over the state and its examples: the evaluation is refused, or what is known is
    /// what was written.
    #[test]
    fn a_flipped_bit_is_noticed_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("s.jsonl"), dir.path().join("s.jsonl.adv"));
        let mut ledger = Ledger::open(&path, &identity(), PAIRS).unwrap();
        ledger.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.1, 0.2, 0.3, 0.4]);
        ledger.add("pgd", 1, &[1], &[false], spent(0.5), &[0.5, 0.6]);
        let files = [path.clone(), beside].map(|path| (fs::read(&path).unwrap(), path));
        drop(ledger);
        let mut refused = 0;
        for (whole, damaged) in &files {
            for bit in (0..whole.len() * 8).step_by(7) {
                for (bytes, path) in &files {
                    fs::write(path, bytes).unwrap();
                }
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(damaged, bytes).unwrap();
                let Ok(mut ledger) = Ledger::open(&path, &identity(), PAIRS) else {
                    refused += 1;
                    continue;
                };
                for (id, round, example) in [(2, 0, [0.3, 0.4]), (1, 1, [0.5, 0.6])] {
                    if ledger.knows("pgd", id, round) {
                        assert_eq!(ledger.fell_in("pgd", id), Some(round), "bit {bit}");
                        let found = ledger.example("pgd", id, 2).unwrap();
                        assert_eq!(found, Some(example.to_vec()), "bit {bit}");
                    }
                }
            }
        }
        assert!(refused > 20, "damaged headers are refused");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_costs_the_state_and_not_the_work() {
        let mut ledger = Ledger::in_memory();
        ledger.state = Some(State::on_full_disk());
        ledger.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.5; 4]);
        assert!(matches!(ledger.news(), Some(Error::Io { .. })));
        assert_eq!(ledger.fell_in("pgd", 2), Some(0));
        assert!(matches!(ledger.example("pgd", 2, 1), Err(Error::ExamplesLost)));
        // The failure is reported once.
        ledger.add("pgd", 1, &[1], &[true], spent(1.0), &[0.5; 2]);
        assert!(ledger.knows("pgd", 1, 1));
    }
}
