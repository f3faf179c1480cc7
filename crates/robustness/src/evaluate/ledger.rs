//! What an evaluation knows so far: for each attack and sample, the rounds it survived. Kept in a
//! file of lines, one a finished batch, so that a kill at any moment costs the batch at hand at
//! most.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    threat::Threat,
};

/// What must be the same for results to be taken over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of this program.
    pub program: String,
    /// A number that changes with the weights.
    pub weights: String,
    /// Data set and split.
    pub data: String,
    /// Norm.
    pub norm: String,
    /// Epsilon, pixel units, to the bit.
    pub epsilon: f32,
    /// Seed.
    pub seed: u64,
}

impl Identity {
    /// The identity of an evaluation by the program `program`, with its version.
    pub fn new(program: String, weights: String, data: String, threat: Threat, seed: u64) -> Self {
        Self {
            program,
            weights,
            data,
            norm: threat.norm.to_string(),
            epsilon: threat.epsilon,
            seed,
        }
    }
}

/// One line of the file: a finished batch.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    attack: String,
    round: usize,
    ids: Vec<u32>,
    /// Those of `ids` that fell.
    fallen: Vec<u32>,
    seconds: f64,
    /// Row, in the file of adversarial examples, of the first of `fallen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row: Option<u64>,
}

/// What is known of a sample under an attack.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Seconds of each round run, its share of the batch.
    seconds: Vec<f32>,
    /// The last round run ended it; its adversarial example, if kept.
    fallen: bool,
    row: Option<u64>,
}

/// What an evaluation knows so far.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<String, HashMap<u32, Record>>,
    file: Option<Files>,
}

#[derive(Debug)]
struct Files {
    path: PathBuf,
    lines: File,
    /// Adversarial examples, rows of f32, and their number.
    examples: Option<(PathBuf, File, u64)>,
}

impl Ledger {
    /// A ledger without a file.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The ledger in the file `path`: what it holds of an evaluation of `identity` is taken over;
    /// anything else is written over. With `width`, the adversarial examples (rows of that many
    /// pixels) are kept beside it, and batches without them are done again.
    ///
    /// # Errors
    /// A file that cannot be written, or that another process works with.
    pub fn open(path: &Path, identity: &Identity, width: Option<usize>) -> Result<Self> {
        let cannot = |e: std::io::Error| Error::io("write", path)(e);
        let mut lines = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(cannot)?;
        // Until this process ends.
        lines.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::InUse(path.to_owned()),
            TryLockError::Error(e) => cannot(e),
        })?;
        let mut ledger = Self::default();
        let examples_path = path.with_extension("adv");
        let stored = width.map_or(0, |width| {
            fs::metadata(&examples_path).map_or(0, |file| file.len() / row_bytes(width))
        });
        let whole = ledger
            .load(path, identity, width.map(|_| stored))
            .map_err(|e| Error::io("read", path)(e))?;
        // A line that a kill cut off goes.
        lines.set_len(whole).and_then(|()| lines.seek(SeekFrom::Start(whole))).map_err(cannot)?;
        if whole == 0 {
            let header = to_line(identity)?;
            lines.write_all(header.as_bytes()).map_err(cannot)?;
        }
        let examples = match width {
            None => None,
            Some(width) => {
                let cannot = |e: std::io::Error| Error::io("write", &examples_path)(e);
                let mut file = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .read(true)
                    .write(true)
                    .open(&examples_path)
                    .map_err(cannot)?;
                let rows = if whole == 0 { 0 } else { stored };
                let length = rows * row_bytes(width);
                file.set_len(length)
                    .and_then(|()| file.seek(SeekFrom::Start(length)))
                    .map_err(cannot)?;
                Some((examples_path, file, rows))
            }
        };
        ledger.file = Some(Files { path: path.to_owned(), lines, examples });
        Ok(ledger)
    }

    /// Takes over the lines of `path`; returns the length of the whole ones, 0 if the file is of
    /// another evaluation. `rows`: adversarial examples there are.
    fn load(
        &mut self,
        path: &Path,
        identity: &Identity,
        rows: Option<u64>,
    ) -> std::io::Result<u64> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(e),
        };
        let mut reader = BufReader::new(file);
        let mut text = Vec::new();
        let mut next = |text: &mut Vec<u8>| -> std::io::Result<Option<u64>> {
            text.clear();
            let length = reader.by_ref().read_until(b'\n', text)?;
            Ok(text.ends_with(b"\n").then_some(length as u64))
        };
        let Some(mut whole) = next(&mut text)? else { return Ok(0) };
        if serde_json::from_slice::<Identity>(&text).ok().as_ref() != Some(identity) {
            return Ok(0);
        }
        while let Some(length) = next(&mut text)? {
            let Ok(line) = serde_json::from_slice::<Line>(&text) else { break };
            let kept = rows.is_none_or(|rows| {
                line.fallen.is_empty()
                    || line.attack == super::evaluator::CLEAN
                    || line.row.is_some_and(|row| row + line.fallen.len() as u64 <= rows)
            });
            if kept {
                self.take(&line);
            }
            whole += length;
        }
        Ok(whole)
    }

    /// Results that were taken over from a file, and the attacks they are of.
    pub fn known(&self) -> (usize, usize) {
        (self.records.values().map(HashMap::len).sum(), self.records.len())
    }

    fn take(&mut self, line: &Line) {
        let share = (line.seconds / line.ids.len().max(1) as f64) as f32;
        let records = self.records.entry(line.attack.clone()).or_default();
        for &id in &line.ids {
            let record = records.entry(id).or_default();
            // A batch recorded twice (by two processes) says the same twice; a gap cannot be filled
            // by a later round.
            if record.seconds.len() == line.round && !record.fallen {
                record.seconds.push(share);
                if let Some(k) = line.fallen.iter().position(|&fallen| fallen == id) {
                    record.fallen = true;
                    record.row = line.row.map(|row| row + k as u64);
                }
            }
        }
    }

    /// Records a finished batch: which of `ids` stand after `round`, and the rows of pixels they
    /// were scored at.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn add(
        &mut self,
        attack: &str,
        round: usize,
        ids: &[u32],
        stands: &[bool],
        seconds: f64,
        points: &[f32],
    ) -> Result<()> {
        let fallen =
            ids.iter().zip(stands).filter(|(_, stands)| !**stands).map(|(&id, _)| id).collect();
        let mut line = Line {
            attack: attack.to_owned(),
            round,
            ids: ids.to_vec(),
            fallen,
            seconds,
            row: None,
        };
        if let Some(files) = &mut self.file {
            if let (Some((path, file, rows)), false) = (&mut files.examples, points.is_empty()) {
                let width = points.len() / ids.len().max(1);
                let bytes: Vec<u8> = points
                    .chunks(width)
                    .zip(stands)
                    .filter(|(_, stands)| !**stands)
                    .flat_map(|(row, _)| row)
                    .flat_map(|v| v.to_le_bytes())
                    .collect();
                file.write_all(&bytes).map_err(|e| Error::io("write", path)(e))?;
                line.row = Some(*rows);
                *rows += line.fallen.len() as u64;
            }
            let text = to_line(&line)?;
            files
                .lines
                .write_all(text.as_bytes())
                .map_err(|e| Error::io("write", &files.path)(e))?;
        }
        self.take(&line);
        Ok(())
    }

    fn record_of(&self, attack: &str, id: u32) -> Option<&Record> {
        self.records.get(attack)?.get(&id)
    }

    /// Whether round `round` has been run, or need not be since the sample fell before.
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

    /// The adversarial example of the sample under `attack` within its first `rounds` rounds.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn example(
        &mut self,
        attack: &str,
        id: u32,
        rounds: usize,
        width: usize,
    ) -> Result<Option<Vec<f32>>> {
        if self.survived(attack, id, rounds) {
            return Ok(None);
        }
        let Some(row) = self.record_of(attack, id).and_then(|record| record.row) else {
            return Ok(None);
        };
        let Some((path, file, _)) = self.file.as_mut().and_then(|files| files.examples.as_mut())
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; width * 4];
        let end = file.stream_position().map_err(|e| Error::io("read", path)(e))?;
        file.seek(SeekFrom::Start(row * row_bytes(width)))
            .and_then(|_| file.read_exact(&mut bytes))
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .map_err(|e| Error::io("read", path)(e))?;
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    }

    /// Removes the files.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(self) -> Result<()> {
        let Some(Files { path, examples, .. }) = self.file else { return Ok(()) };
        for path in examples.map(|(path, ..)| path).into_iter().chain([path]) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn row_bytes(width: usize) -> u64 {
    width.max(1) as u64 * 4
}

fn to_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map(|json| json + "\n")
        .map_err(|source| Error::Json { what: "the evaluation's state", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threat::Norm;

    fn identity(seed: u64) -> Identity {
        Identity::new(
            "p".into(),
            "w".into(),
            "d".into(),
            Threat { norm: Norm::Linf, epsilon: 8.0 / 255.0 },
            seed,
        )
    }

    #[test]
    fn a_file_cut_anywhere_gives_back_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.jsonl");
        let mut ledger = Ledger::open(&path, &identity(0), None).unwrap();
        ledger.add("clean", 0, &[4, 5, 6], &[true, true, false], 1.0, &[]).unwrap();
        ledger.add("pgd", 0, &[4, 5], &[true, false], 3.0, &[0.5; 4]).unwrap();
        ledger.add("pgd", 1, &[4], &[false], 1.0, &[0.5; 2]).unwrap();
        let whole = fs::read(&path).unwrap();
        drop(ledger);
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let ledger = Ledger::open(&path, &identity(0), None).unwrap();
            assert!(
                Ledger::open(&path, &identity(0), None).unwrap_err().to_string().contains("in use")
            );
            let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
            assert_eq!(ledger.knows("clean", 6, 0), lines > 1, "{cut}");
            assert_eq!(ledger.fell_in("pgd", 5), (lines > 2).then_some(0), "{cut}");
            assert_eq!(ledger.fell_in("pgd", 4), (lines > 3).then_some(1), "{cut}");
            if lines > 0 {
                let kept = fs::read(&path).unwrap();
                assert!(whole.starts_with(&kept) && kept.ends_with(b"\n"));
            }
        }
        let ledger = Ledger::open(&path, &identity(0), None).unwrap();
        // With one round only, sample 4 stands; its second round counts no seconds then.
        assert!(ledger.survived("pgd", 4, 1) && !ledger.survived("pgd", 4, 2));
        assert_eq!(
            (
                ledger.seconds("pgd", 1, [4, 5].into_iter()),
                ledger.seconds("pgd", 2, [4].into_iter())
            ),
            (3.0, 2.5)
        );
        drop(ledger);
        // Another seed starts anew.
        assert!(!Ledger::open(&path, &identity(1), None).unwrap().knows("clean", 6, 0));
    }

    #[test]
    fn examples_come_back_and_batches_without_them_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.jsonl");
        let mut plain = Ledger::open(&path, &identity(0), None).unwrap();
        plain.add("pgd", 0, &[1, 2], &[true, false], 1.0, &[0.0; 4]).unwrap();
        drop(plain);
        let mut kept = Ledger::open(&path, &identity(0), Some(2)).unwrap();
        assert!(!kept.knows("pgd", 2, 0));
        kept.add("pgd", 0, &[1, 2, 3], &[false, true, false], 1.0, &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
            .unwrap();
        drop(kept);
        let mut again = Ledger::open(&path, &identity(0), Some(2)).unwrap();
        assert_eq!(again.example("pgd", 3, 1, 2).unwrap(), Some(vec![0.5, 0.6]));
        assert_eq!(again.example("pgd", 1, 1, 2).unwrap(), Some(vec![0.1, 0.2]));
        assert_eq!(again.example("pgd", 2, 1, 2).unwrap(), None);
        again.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
