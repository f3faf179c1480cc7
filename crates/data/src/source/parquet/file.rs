//! Shard files for the decoder: it reads them at any place, and its failures become errors of the
//! file.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::DataError;
use crate::text::one_line;

/// First byte of a column chunk, and the byte after its last.
pub(super) fn byte_range(chunk: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let start = match chunk.dictionary_page_offset() {
        // Some writers store 0 where there is none.
        Some(offset) if offset > 0 => offset,
        _ => chunk.data_page_offset(),
    };
    let start = u64::try_from(start).ok()?;
    Some((start, start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?))
}

thread_local! {
    /// Whether this thread runs a decoder whose panics are errors of the file.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Makes guarded panics silent: their error says what was wrong, and a reader of standard error
/// would take what a panic prints for a defect of the program. All others are printed as before.
fn silence_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
}

/// Third-party decoders may panic on damaged files; this function turns a panic into an error of
/// the file.
pub(super) fn guarded<T>(work: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    let text = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast::<&str>().map_or("a defect of the decoder".into(), |text| (*text).into())
        }
    };
    silence_guarded_panics();
    let outer = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    done.map_err(text)?.map_err(|e| e.to_string())
}

pub(super) fn broken(path: &Path, error: &str) -> DataError {
    let hint = if error.contains("feature") || error.contains("Disabled") {
        "; only snappy and no compression are read"
    } else {
        ""
    };
    DataError::bad(
        path,
        format!("what is no whole Parquet file ({}{hint})", one_line(error)),
        "a Parquet shard",
        "get the file again",
    )
}

/// A file that is opened anew for each read, so that threads do not move one another's position.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub length: u64,
}

impl Source {
    fn at(&self, start: u64) -> ParquetResult<File> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(self.at(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes from {start} in a file of {}",
                self.length
            )));
        }
        let mut bytes = vec![0; length];
        self.at(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// In a process of its own, whose standard error is read.
    #[test]
    fn a_panic_of_the_decoder_is_an_error_and_prints_nothing() {
        const CHILD: &str = "SORA_TEST_GUARDED";
        if std::env::var_os(CHILD).is_some() {
            let found = guarded::<()>(|| panic!("of the decoder"));
            assert_eq!(found, Err("of the decoder".into()));
            assert!(panic::catch_unwind(|| panic!("of another")).is_err());
            return;
        }
        let name =
            "source::parquet::file::tests::a_panic_of_the_decoder_is_an_error_and_prints_nothing";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("of another") && !said.contains("of the decoder"), "{said}");
    }
}
