//! The file of adversarial examples beside a state: a line with the digest of the identity, then
//! rows of f32.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    corruptions::CORRUPTION,
    evaluator::CLEAN,
    state::{Line, digest, open_or_create},
};
use crate::error::{Error, Result};

/// The beginning of every file of adversarial examples; the digest of the identity follows.
const MARK: &str = "sora adversarial examples 1 ";

/// Adversarial examples: rows of f32 behind a line that describes them.
#[derive(Debug)]
pub(super) struct Examples {
    path: PathBuf,
    file: File,
    /// Length of the first line.
    header: u64,
    /// Number of values of a row.
    width: usize,
    rows: u64,
}

impl Examples {
    /// The examples of the state `path`; `anew` says that the state has just begun.
    pub fn open(path: &Path, width: usize, digest: &str, anew: bool) -> Result<Self> {
        let path = beside(path);
        let cannot = |e: io::Error| Error::io("write", &path)(e);
        let mut file = open_or_create(&path).map_err(cannot)?;
        let header = header(digest);
        let mut found = Vec::new();
        Read::take(&mut file, header.len() as u64).read_to_end(&mut found).map_err(cannot)?;
        let known = found.len().min(MARK.len());
        if found[..known] != MARK.as_bytes()[..known] {
            return Err(Error::NotAState(path.clone()));
        }
        let mut examples =
            Self { header: header.len() as u64, width, rows: 0, path: path.clone(), file };
        if found == header && !anew {
            let length = examples.file.metadata().map_err(cannot)?.len();
            examples.rows = (length - examples.header) / examples.row_bytes();
        } else {
            let file = &mut examples.file;
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(&header))
                .map_err(cannot)?;
        }
        let end = examples.place(examples.rows);
        let file = &mut examples.file;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(cannot)?;
        Ok(examples)
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Leaves the first `rows` rows to other evaluations; none at all need no file.
    pub fn leave(self, rows: u64) -> Result<()> {
        match rows.min(self.rows) {
            0 => fs::remove_file(&self.path).map_err(Error::io("remove", &self.path)),
            rows => self.file.set_len(self.place(rows)).map_err(Error::io("write", &self.path)),
        }
    }

    fn row_bytes(&self) -> u64 {
        self.width.max(1) as u64 * 4
    }

    fn place(&self, row: u64) -> u64 {
        self.header + row * self.row_bytes()
    }

    /// Whether the file holds the examples of `line` as they were written.
    pub fn hold(&mut self, line: &Line) -> bool {
        let bare = line.row.is_none() && line.examples.is_empty();
        if line.fallen.is_empty() || (bare && keeps_no_examples(&line.attack)) {
            return true;
        }
        let end = |row: u64| row.checked_add(line.fallen.len() as u64);
        let Some(row) = line.row.filter(|&row| end(row).is_some_and(|end| end <= self.rows)) else {
            return false;
        };
        let bytes = self.bytes(row, line.fallen.len());
        bytes.is_ok_and(|bytes| digest(&bytes) == line.examples)
    }

    /// Writes the rows of `points` that do not stand; returns the row of the first one, and their
    /// digest.
    pub fn write(&mut self, stands: &[bool], points: &[f32]) -> Result<(u64, String)> {
        let fallen = points.chunks(self.width.max(1)).zip(stands).filter(|(_, stands)| !**stands);
        let bytes: Vec<u8> =
            fallen.flat_map(|(row, _)| row).flat_map(|v| v.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(Error::io("write", &self.path))?;
        let first = self.rows;
        self.rows += stands.iter().filter(|stands| !**stands).count() as u64;
        Ok((first, digest(&bytes)))
    }

    /// The adversarial example in `row`.
    pub fn read(&mut self, row: u64) -> Result<Vec<f32>> {
        let bytes = self.bytes(row, 1)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// The bytes of `count` rows; the file is then at its end again.
    fn bytes(&mut self, row: u64, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count * self.width * 4];
        let (start, end) = (self.place(row), self.place(self.rows));
        let file = &mut self.file;
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }
}

/// The file of adversarial examples that belongs to the state `path`.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".adv");
    name.into()
}

/// The first line of the adversarial examples of the evaluation with this digest.
fn header(digest: &str) -> Vec<u8> {
    format!("{MARK}{digest}\n").into_bytes()
}

/// Whether the file `path` holds adversarial examples of the evaluation with this digest.
pub(super) fn are_of(path: &Path, digest: &str) -> bool {
    let header = header(digest);
    let mut found = Vec::new();
    let read = File::open(path)
        .and_then(|file| Read::take(file, header.len() as u64).read_to_end(&mut found));
    read.is_ok() && found == header
}

/// Whether `attack` is the clean pass or a corruption, whose images are made anew and never kept.
fn keeps_no_examples(attack: &str) -> bool {
    attack == CLEAN || attack.starts_with(CORRUPTION)
}
