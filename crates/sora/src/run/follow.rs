//! Reads the logs of a run that may still be writing them.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The complete lines of a `.jsonl` file.
///
/// A last line without its line feed is still being written and is read by a later poll. A file
/// that was cut off (by a resumed run, or a rollback) is read again from the start. A line that
/// cannot be parsed is skipped and counted.
#[derive(Debug)]
pub struct Follower<T> {
    path: PathBuf,
    /// Number of bytes read.
    offset: u64,
    /// The newest line that was read, which shows whether the file is still the same.
    last: Vec<u8>,
    lines: Vec<T>,
    damaged: u64,
}

impl<T: DeserializeOwned> Follower<T> {
    /// Follows `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, last: Vec::new(), lines: Vec::new(), damaged: 0 }
    }

    /// The lines so far.
    pub fn lines(&self) -> &[T] {
        &self.lines
    }

    /// Number of lines that could not be parsed.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Reads the lines that were written since the last call.
    ///
    /// # Errors
    /// [`Error`] for a file that exists but cannot be read.
    pub fn poll(&mut self) -> Result<()> {
        let new = match self.read_new() {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            other => other.map_err(|e| Error::read(&self.path, e))?,
        };
        let Some(new) = new else {
            *self = Self::new(std::mem::take(&mut self.path));
            return Ok(());
        };
        let whole = new.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (whole, _) = new.split_at(whole);
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(line) => self.lines.push(line),
                Err(_) => self.damaged += 1,
            }
            self.last = line.to_vec();
        }
        self.offset += whole.len() as u64;
        Ok(())
    }

    /// The bytes after `offset`. If the file is no longer the one that was read, all lines are
    /// forgotten and reading starts again from the begin.
    fn read_new(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut file = File::open(&self.path)?;
        let mut known = vec![0; self.last.len()];
        file.seek(SeekFrom::Start(self.offset - self.last.len() as u64))?;
        let same = match file.read_exact(&mut known) {
            Ok(()) => known == self.last,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => false,
            Err(e) => return Err(e),
        };
        if !same {
            *self = Self::new(std::mem::take(&mut self.path));
            file.seek(SeekFrom::Start(0))?;
        }
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        Ok(Some(new))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn half_written_lines_wait_damaged_ones_are_counted_and_a_cut_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Follower::<u64>::new(path.clone());
        let mut sees = |text: &str| {
            fs::write(&path, text).unwrap();
            log.poll().unwrap();
            (log.lines().to_vec(), log.damaged())
        };
        assert_eq!(sees("1\n23"), (vec![1], 0));
        assert_eq!(sees("1\n234\n"), (vec![1, 234], 0));
        assert_eq!(sees("1\n234\n{\"x\n5\n"), (vec![1, 234, 5], 1));
        assert_eq!(sees("1\n"), (vec![1], 0), "cut off");
        assert_eq!(sees("1\n7\n8\n"), (vec![1, 7, 8], 0));
        assert_eq!(sees("1\n7\n9\n10\n"), (vec![1, 7, 9, 10], 0), "cut off and grown again");
        assert_eq!(sees(""), (vec![], 0));
        fs::remove_file(&path).unwrap();
        log.poll().unwrap();
        assert!(log.lines().is_empty());
    }
}
