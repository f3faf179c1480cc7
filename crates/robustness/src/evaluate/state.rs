//! The file of a ledger: a header with the identity, then a line for each finished batch with its
//! digest. Beside it, where they are kept, a file of adversarial examples.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use same_file::Handle;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Identity,
    examples::{self, Examples},
};
use crate::error::{Error, Result};

/// The beginning of the first line of every state.
const MARK: &[u8] = b"{\"sora_evaluation\":1,";

/// How often a state is opened that others remove before it is locked.
const TRIES: usize = 100;

/// Options of opening a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Whether an existing state is resumed.
    pub start: ExistingState,
    /// Number of pixels of the adversarial examples to keep; batches without examples are run
    /// again. `None` keeps none.
    pub examples: Option<usize>,
}

/// The treatment of a state that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingState {
    /// The evaluation resumes.
    Resume,
    /// The state is discarded, even if it belongs to another evaluation.
    Fresh,
}

/// One line of the file: a finished batch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub attack: String,
    pub round: usize,
    pub ids: Vec<u32>,
    /// The samples of `ids` that fell.
    pub fallen: Vec<u32>,
    pub seconds: f64,
    /// Images that the network answered, where it counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
    /// Row, in the file of adversarial examples, of the first of `fallen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Digest of the adversarial examples of `fallen`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub examples: String,
    /// Digest of the line without this field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sum: String,
}

impl Line {
    /// The text of the line with its digest.
    fn sealed(&mut self) -> Result<String> {
        self.sum.clear();
        self.sum = digest(to_line(self)?.as_bytes());
        to_line(self)
    }

    /// Whether the line is as it was written.
    fn is_whole(&mut self) -> Result<bool> {
        let sum = std::mem::take(&mut self.sum);
        Ok(sum == digest(to_line(self)?.as_bytes()))
    }
}

/// The first half of the SHA-256 of `bytes`, enough against damage.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    sora_evaluation: u32,
    identity: Identity,
}

/// The open files, the first of them locked until this process ends or closes it.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    lines: File,
    examples: Option<Examples>,
    /// Digest of the evaluation's identity.
    digest: String,
    /// The attacks that the file held results of when it was opened, each with the number of rounds.
    held: HashMap<String, usize>,
    /// Where the last line of one of these attacks ends.
    lasting: u64,
    /// Where the last of their adversarial examples ends, in rows.
    lasting_rows: u64,
    /// Whether the file holds what can be gone on from. One that does not goes with this value: a
    /// failed evaluation leaves nothing that is of no use.
    worth: bool,
    /// Why the file has no lock, where the file system refuses it.
    unlocked: Option<io::Error>,
}

impl State {
    /// Opens the state of the evaluation `identity` and reads its lines.
    pub fn open(
        path: &Path,
        identity: &Identity,
        options: StateOptions,
    ) -> Result<(Self, Vec<Line>)> {
        let cannot = |e: io::Error| Error::io("write", path)(e);
        let mut tries = 0..TRIES;
        let (lines, unlocked) = loop {
            let file = open_or_create(path).map_err(cannot)?;
            if let Some(locked) = lock(file, path)? {
                break locked;
            }
            tries.next().ok_or_else(|| Error::InUse(path.to_owned()))?;
        };
        // Until all of it is open, a file that was there stays.
        let worth = lines.metadata().map_err(cannot)?.len() > 0;
        let mut state = Self {
            path: path.to_owned(),
            lines,
            examples: None,
            digest: identity.digest(),
            held: HashMap::new(),
            lasting: 0,
            lasting_rows: 0,
            worth,
            unlocked,
        };
        let (mut found, whole) = read(&mut state.lines, path, identity, options.start)?;
        (state.held, state.lasting) = (rounds_of(&found), whole);
        let end = |line: &Line| line.row?.checked_add(line.fallen.len() as u64);
        state.lasting_rows = found.iter().filter_map(end).max().unwrap_or(0);
        let worth = !found.is_empty();
        if let Some(width) = options.examples {
            let mut examples = Examples::open(path, width, &state.digest, whole == 0)?;
            found.retain(|line| examples.hold(line));
            state.examples = Some(examples);
        }
        // A line that a kill cut off is removed.
        let lines = &mut state.lines;
        lines.set_len(whole).and_then(|()| lines.seek(SeekFrom::Start(whole))).map_err(cannot)?;
        if whole == 0 {
            let text = to_line(&Header { sora_evaluation: 1, identity: identity.clone() })?;
            lines.write_all(text.as_bytes()).map_err(cannot)?;
        }
        state.worth = worth;
        Ok((state, found))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn unlocked(&self) -> Option<&io::Error> {
        self.unlocked.as_ref()
    }

    /// Writes a finished batch and, if examples are kept, the rows of `points` that do not stand.
    pub fn write(&mut self, line: &mut Line, stands: &[bool], points: &[f32]) -> Result<()> {
        if let (Some(examples), false) = (&mut self.examples, points.is_empty()) {
            let (row, digest) = examples.write(stands, points)?;
            (line.row, line.examples) = (Some(row), digest);
        }
        let text = line.sealed()?;
        self.lines.write_all(text.as_bytes()).map_err(Error::io("write", &self.path))?;
        self.worth = true;
        if self.held.contains_key(&line.attack) {
            self.lasting = self.lines.stream_position().map_err(Error::io("write", &self.path))?;
            self.lasting_rows = self.examples.as_ref().map_or(0, Examples::rows);
        }
        Ok(())
    }

    /// The attacks that the file held results of when it was opened, each with the number of rounds.
    pub fn held(&self) -> impl Iterator<Item = (&String, usize)> {
        self.held.iter().map(|(attack, &rounds)| (attack, rounds))
    }

    /// The adversarial example in `row`.
    pub fn example(&mut self, row: u64) -> Result<Vec<f32>> {
        self.examples.as_mut().map_or(Err(Error::ExamplesLost), |examples| examples.read(row))
    }

    /// Removes the files.
    pub fn remove(mut self) -> Result<()> {
        self.worth = true;
        self.remove_files()
    }

    /// Leaves to other evaluations what they go on from. The results at the end, of attacks that none
    /// of them had begun, are of no use to them and would keep the file for ever.
    pub fn leave(mut self) -> Result<()> {
        if self.held.is_empty() {
            return self.remove();
        }
        self.lines.set_len(self.lasting).map_err(Error::io("write", &self.path))?;
        self.examples.take().map_or(Ok(()), |examples| examples.leave(self.lasting_rows))
    }

    fn remove_files(&mut self) -> Result<()> {
        let same = leads_to(&self.path, &self.lines).map_err(Error::io("read", &self.path))?;
        // The file of another process, since somebody has taken this one away.
        if same == Some(false) {
            return Ok(());
        }
        // An earlier call may have kept examples where this one does not.
        let path = examples::beside(&self.path);
        let own = self.examples.take().is_some() || examples::are_of(&path, &self.digest);
        for path in own.then_some(&path).into_iter().chain([&self.path]) {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn on_full_disk() -> Self {
        let path = PathBuf::from("/dev/full");
        let lines = OpenOptions::new().write(true).open(&path).unwrap();
        let (digest, held) = (String::new(), HashMap::new());
        Self {
            path,
            lines,
            examples: None,
            digest,
            held,
            lasting: 0,
            lasting_rows: 0,
            worth: true,
            unlocked: None,
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !self.worth {
            // A state that stays is taken up, or removed, by the same call.
            self.remove_files().ok();
        }
    }
}

/// Locks `file`, which was opened as `path`; returns it, and why it has no lock where the file system
/// refuses it. `None` where the process that had it has removed it meanwhile: `path` is another
/// file then, or none.
pub(super) fn lock(file: File, path: &Path) -> Result<Option<(File, Option<io::Error>)>> {
    let unlocked = match file.try_lock() {
        Ok(()) => None,
        Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_owned())),
        Err(TryLockError::Error(e)) => Some(e),
    };
    let same = leads_to(path, &file).map_err(Error::io("read", path))?;
    Ok((same == Some(true)).then_some((file, unlocked)))
}

/// Whether `path` is the open `file`; `None` where there is no such file any more.
fn leads_to(path: &Path, file: &File) -> io::Result<Option<bool>> {
    match Handle::from_path(path) {
        Ok(there) => Ok(Some(there == Handle::from_file(file.try_clone()?)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The lines of the evaluation `identity` in `file`, and the length in bytes of the complete lines;
/// 0 where the state begins again.
fn read(
    file: &mut File,
    path: &Path,
    identity: &Identity,
    start: ExistingState,
) -> Result<(Vec<Line>, u64)> {
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    let mut next = |text: &mut Vec<u8>| -> Result<Option<u64>> {
        text.clear();
        let length = reader.by_ref().read_until(b'\n', text).map_err(Error::io("read", path))?;
        Ok(text.ends_with(b"\n").then_some(length as u64))
    };
    let first = next(&mut text)?;
    let begun = first.is_none() && MARK.starts_with(&text);
    if !text.starts_with(MARK) && !begun {
        return Err(Error::NotAState(path.to_owned()));
    }
    let (Some(mut whole), ExistingState::Resume) = (first, start) else {
        return Ok((Vec::new(), 0));
    };
    let header: Header =
        serde_json::from_slice(&text).map_err(|_| Error::NotAState(path.to_owned()))?;
    if let Some(difference) = identity.difference(&header.identity) {
        return Err(Error::OtherEvaluation { path: path.to_owned(), difference });
    }
    let mut lines = Vec::new();
    while let Some(length) = next(&mut text)? {
        let Ok(mut line) = serde_json::from_slice::<Line>(&text) else { break };
        // What follows a damaged line is evaluated again.
        if !line.is_whole()? {
            break;
        }
        lines.push(line);
        whole += length;
    }
    Ok((lines, whole))
}

/// The attacks of `lines`, each with the number of rounds.
fn rounds_of(lines: &[Line]) -> HashMap<String, usize> {
    let mut all: HashMap<String, usize> = HashMap::new();
    for line in lines {
        let rounds = all.entry(line.attack.clone()).or_default();
        *rounds = line.round.saturating_add(1).max(*rounds);
    }
    all
}

pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

fn to_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map(|json| json + "\n")
        .map_err(|source| Error::Json { what: "the evaluation's state", source })
}
