//! Downloads one file: it resumes after a break, checks the file, and puts it in place only when
//! whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;

use md5::Md5;
use sha2::Sha256;
use ureq::Agent;
use ureq::http::StatusCode;

use super::answer::{header_number, network, range_start, spoken};
use super::digest::digest;
use super::options::{FetchOptions, FetchProgress};
use super::pace::Pace;
use crate::error::{DataError, Result};
use crate::info::{Checksum, Source};
use crate::text::{one_line, shown};

pub(super) struct Download<'a> {
    source: &'a Source,
    /// Most bytes that are accepted where no size is published.
    most: u64,
    url: String,
    target: PathBuf,
    part: PathBuf,
    agent: &'a Agent,
    options: &'a FetchOptions<'a>,
}

/// Why an attempt failed.
enum Failure {
    /// The attempt failed for a reason that may pass; another attempt is worthwhile.
    Again(String),
    /// The attempt was too slow; another is worthwhile, but the bytes of this one do not count as
    /// progress.
    Slow(String),
    /// Another attempt would fail too.
    Final(Box<DataError>),
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Final(Box::new(error))
    }
}

const AGAIN_LATER: &str =
    "check the network and run the command again, it goes on where it stopped";

impl<'a> Download<'a> {
    pub(super) fn new(
        source: &'a Source,
        most: u64,
        folder: &Path,
        agent: &'a Agent,
        options: &'a FetchOptions<'a>,
    ) -> Self {
        let url = match &options.base_url {
            Some(base) => format!("{}/{}", base.trim_end_matches('/'), source.file),
            None => source.url.clone(),
        };
        let target = folder.join(&source.file);
        let part = folder.join(format!("{}.part", source.file));
        Self { source, most, url, target, part, agent, options }
    }

    pub(super) fn run(&self) -> Result<PathBuf> {
        if self.target.is_file() {
            match self.verify(&mut open(&self.target)?)? {
                None => return Ok(self.target.clone()),
                Some(wrong) => {
                    tracing::warn!("{}: {wrong}; downloading it again", shown(&self.target))
                }
            }
        }
        // The lock ends with the file handle, also when the process is killed.
        let mut part = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.part)
            .map_err(DataError::io("write", &self.part))?;
        match part.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    self.error("another fetch is at work on this file", "wait for it to end")
                );
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "no lock on {} ({error}): do not fetch the same set twice at a time",
                    shown(&self.part)
                )
            }
        }
        self.transfer(&mut part)?;
        if let Some(wrong) = self.verify(&mut part)? {
            drop(part);
            fs::remove_file(&self.part).map_err(DataError::io("remove", &self.part))?;
            let fix = "the download was removed; run the command again, and if it stays so the \
                       file at the address has changed";
            return Err(self.error(wrong, fix));
        }
        part.sync_all().map_err(DataError::io("write", &self.part))?;
        drop(part);
        fs::rename(&self.part, &self.target).map_err(DataError::io("rename", &self.part))?;
        Ok(self.target.clone())
    }

    /// Makes attempts until the part file is whole.
    fn transfer(&self, part: &mut File) -> Result<()> {
        let mut fruitless = 0;
        loop {
            let before = length(part, &self.part)?;
            if self.source.size.is_some_and(|size| before == size) {
                return Ok(());
            }
            let reason = match self.attempt(part, before) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(*error),
                Err(Failure::Again(reason)) if length(part, &self.part)? > before => {
                    fruitless = 0;
                    reason
                }
                Err(Failure::Again(reason) | Failure::Slow(reason)) => {
                    fruitless += 1;
                    reason
                }
            };
            if fruitless >= self.options.attempts.max(1) {
                return Err(self.error(reason, AGAIN_LATER));
            }
            tracing::info!("{}: {reason}; trying again", one_line(&self.url));
            thread::sleep(
                self.options.backoff.saturating_mul(1 << fruitless.saturating_sub(1).min(6)),
            );
        }
    }

    /// Makes one request, from byte `start` on.
    fn attempt(&self, part: &mut File, start: u64) -> Result<(), Failure> {
        let mut request = self.agent.get(&self.url);
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::from(
                self.error(format!("not a web address ({error})"), "check the address"),
            ),
            other => Failure::Again(network(&other)),
        })?;
        let status = response.status();
        let headers = response.headers().clone();
        let start = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(&headers) == Some(start) => start,
            // The part file is not a beginning of the server's file, so the download starts afresh.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.cut(part, 0)?;
                return Err(Failure::Again(format!("the server cannot go on from byte {start}")));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Again(spoken(status)));
            }
            _ if status.is_server_error() => return Err(Failure::Again(spoken(status))),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(self
                    .error(spoken(status), "the file has moved: look on the data set's home page")
                    .into());
            }
            _ => {
                return Err(self
                    .error(spoken(status), "look on the data set's home page for terms of access")
                    .into());
            }
        };
        // A server without ranges sends the whole file again.
        self.cut(part, start)?;
        let announced = header_number(&headers, "content-length").map(|n| start + n);
        if let (Some(announced), Some(size)) = (announced, self.source.size)
            && announced != size
        {
            return Err(self.wrong_size(announced, size).into());
        }
        self.check_room(announced.unwrap_or(start))?;
        self.copy(response.into_body().into_reader(), part, start, self.source.size.or(announced))
    }

    fn copy(
        &self,
        mut body: impl Read,
        part: &mut File,
        start: u64,
        total: Option<u64>,
    ) -> Result<(), Failure> {
        let mut done = start;
        let mut pace = Pace::new(self.options);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(Failure::Again(format!(
                        "the connection broke after {done} bytes ({})",
                        one_line(&e.to_string())
                    )));
                }
            };
            if n == 0 {
                break;
            }
            done += n as u64;
            pace.check(n as u64).map_err(Failure::Slow)?;
            if let Err(error) = self.check_room(done) {
                self.cut(part, 0)?;
                return Err(error.into());
            }
            part.write_all(&buffer[..n]).map_err(DataError::io("write", &self.part))?;
            if let Some(progress) = self.options.progress {
                progress(FetchProgress { file: &self.source.file, done, total });
            }
        }
        match total {
            Some(total) if done < total => {
                Err(Failure::Again(format!("the connection broke after {done} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the file may have that many bytes.
    fn check_room(&self, bytes: u64) -> Result<()> {
        let most = self.source.size.unwrap_or(self.most);
        if bytes <= most {
            return Ok(());
        }
        let reason = match self.source.size {
            Some(size) => format!("more than {size} bytes came"),
            None => format!("more than {most} bytes, which no file of this set has"),
        };
        Err(self.error(reason, "the file at the address has changed"))
    }

    /// Keeps the first `length` bytes of the part file and moves to its end.
    fn cut(&self, part: &mut File, length: u64) -> Result<()> {
        part.set_len(length)
            .and_then(|()| part.seek(SeekFrom::End(0)))
            .map(|_| ())
            .map_err(DataError::io("write", &self.part))
    }

    /// Says how the file differs from the published one, or `None` if it does not.
    fn verify(&self, file: &mut File) -> Result<Option<String>> {
        let length = length(file, &self.part)?;
        if let Some(size) = self.source.size.filter(|&size| size != length) {
            return Ok(Some(format!("found {length} bytes, expected {size}")));
        }
        file.seek(SeekFrom::Start(0)).map_err(DataError::io("read", &self.part))?;
        let found = match self.source.checksum {
            Checksum::Sha256(_) => digest::<Sha256>(file),
            Checksum::Md5(_) => digest::<Md5>(file),
        }
        .map_err(DataError::io("read", &self.part))?;
        let expected = &self.source.checksum;
        Ok((found != expected.hex())
            .then(|| format!("found checksum {found}, expected {expected}")))
    }

    fn wrong_size(&self, found: u64, expected: u64) -> DataError {
        self.error(
            format!("the server has {found} bytes, expected {expected}"),
            "the file at the address has changed",
        )
    }

    fn error(&self, reason: impl Into<String>, fix: &str) -> DataError {
        let reason: String = reason.into();
        DataError::Fetch {
            url: one_line(&self.url),
            reason: one_line(&reason),
            fix: fix.to_owned(),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(DataError::io("read", path))
}

fn length(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().map_err(DataError::io("read", path))?.len())
}
