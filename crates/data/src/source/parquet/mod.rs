//! Hugging Face image sets in Parquet shards: a column `image` of structures with the file's
//! `bytes`, and a column `label`.
//!
//! A row is read at random: where the pages of a row group begin is noted when it is first touched,
//! and then one page (about 1 MB) is read for an image. Page headers are looked at before a page is
//! decoded, because they say how much memory to take. The format:
//! <https://parquet.apache.org/docs/file-format/>; the names of the classes: `ClassLabel` in the
//! key `huggingface` of the file's metadata.

use std::any::Any;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use serde::Deserialize;

use super::encoded::{MAX_FILE, file_digest};
use crate::error::{DataError, Result};
use crate::options::Decoding;
use crate::picture::{Picture, Pictures, decode};
use crate::text::one_line;

/// Most rows of a shard, bytes of a decoded page, and of a page's header.
const MAX_ROWS: i64 = 1 << 24;
const MAX_PAGE: i32 = 256 << 20;
const MAX_HEADER: usize = 1 << 20;

const IMAGES: [&str; 4] = ["image.bytes", "img.bytes", "image", "jpg"];
const LABELS: [&str; 4] = ["label", "labels", "fine_label", "cls"];

/// The shards of a split.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
    names: Option<Vec<String>>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    length: u64,
    metadata: ParquetMetaData,
    image: usize,
    /// First row in the split of each row group, and where its pages begin.
    groups: Vec<(usize, OnceLock<Vec<PageLocation>>)>,
}

impl Shards {
    /// Opens the shards in order and reads all labels.
    pub(crate) fn open(paths: Vec<PathBuf>) -> Result<(Self, Vec<u32>)> {
        let mut labels = Vec::new();
        let mut names = None;
        let mut shards = Vec::with_capacity(paths.len());
        for path in paths {
            let shard = Shard::open(path, &mut labels)?;
            if shards.is_empty() {
                names = class_names(&shard.metadata);
            }
            shards.push(shard);
        }
        if let (Some(names), Some(shard)) = (&names, shards.first())
            && let Some(i) = labels.iter().position(|&l| l as usize >= names.len())
        {
            return Err(shard.bad(
                format!("label {} of row {i} of the split", labels[i]),
                format!("below {}, the number of class names", names.len()),
            ));
        }
        Ok((Self { shards, names }, labels))
    }

    /// Names of the classes, if the files have them.
    pub(crate) fn class_names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// The pictures of these rows of the split.
    pub(crate) fn rows(self, rows: Vec<u32>, decoding: Decoding) -> Rows {
        Rows { shards: self.shards, rows, decoding }
    }
}

/// Rows of shards, decoded on demand.
#[derive(Debug)]
pub(crate) struct Rows {
    shards: Vec<Shard>,
    rows: Vec<u32>,
    decoding: Decoding,
}

impl Rows {
    /// The shard, the row of the split, and the image file in it.
    fn file(&self, i: usize) -> Result<(&Shard, usize, ByteArray)> {
        let missing = || DataError::value("image index", i, format!("below {}", self.rows.len()));
        let row = *self.rows.get(i).ok_or_else(missing)? as usize;
        let first = |shard: &Shard| shard.groups.first().map_or(usize::MAX, |g| g.0);
        let at =
            self.shards.partition_point(|s| first(s) <= row).checked_sub(1).ok_or_else(missing)?;
        let shard = &self.shards[at];
        let group =
            shard.groups.partition_point(|g| g.0 <= row).checked_sub(1).ok_or_else(missing)?;
        Ok((shard, row, shard.image(group, row - shard.groups[group].0)?))
    }
}

impl Pictures for Rows {
    fn picture(&self, i: usize) -> Result<Picture> {
        let (shard, row, bytes) = self.file(i)?;
        decode(bytes.data(), self.decoding, |found| {
            shard.bad(
                format!("{found} in row {row} of the split"),
                "a whole PNG or JPEG image".into(),
            )
        })
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        Ok(file_digest(self.file(i)?.2.data(), self.decoding))
    }
}

impl Shard {
    fn open(path: PathBuf, labels: &mut Vec<u32>) -> Result<Self> {
        let length = std::fs::metadata(&path).map_err(DataError::io("read", &path))?.len();
        let source = Source { path: path.clone(), length };
        let metadata = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&source))
            .map_err(|e| broken(&path, &e))?;
        let mut shard = Self { path, length, metadata, image: 0, groups: vec![] };
        let schema = shard.metadata.file_metadata().schema_descr_ptr();
        let column = |names: &[&str], types: &[Type]| {
            names.iter().find_map(|name| {
                schema.columns().iter().position(|c| {
                    c.path().string() == *name
                        && types.contains(&c.physical_type())
                        && c.max_rep_level() == 0
                })
            })
        };
        let found =
            || schema.columns().iter().map(|c| c.path().string()).collect::<Vec<_>>().join(", ");
        let expected =
            || "columns image.bytes (an image file) and label (a whole number)".to_owned();
        let (Some(image), Some(label)) =
            (column(&IMAGES, &[Type::BYTE_ARRAY]), column(&LABELS, &[Type::INT32, Type::INT64]))
        else {
            return Err(shard.bad(format!("columns {}", one_line(&found())), expected()));
        };
        shard.image = image;
        for group in 0..shard.metadata.num_row_groups() {
            let rows = shard.metadata.row_group(group).num_rows();
            let first = labels.len();
            let total =
                rows.checked_add(first as i64).filter(|&t| (0..=MAX_ROWS * 64).contains(&t));
            if !(0..=MAX_ROWS).contains(&rows) || total.is_none() {
                return Err(
                    shard.bad(format!("a group of {rows} rows"), format!("0 to {MAX_ROWS}"))
                );
            }
            shard.groups.push((first, OnceLock::new()));
            shard.read_labels(group, label, rows as usize, labels)?;
        }
        Ok(shard)
    }

    fn bad(&self, found: String, expected: String) -> DataError {
        DataError::bad(&self.path, found, expected, "get the file again")
    }

    fn source(&self) -> Source {
        Source { path: self.path.clone(), length: self.length }
    }

    fn reader(
        &self,
        group: usize,
        column: usize,
        pages: Vec<PageLocation>,
    ) -> ParquetResult<ColumnReader> {
        let chunk = self.metadata.row_group(group).column(column);
        let rows = usize::try_from(self.metadata.row_group(group).num_rows()).unwrap_or(0);
        let pages = SerializedPageReader::new(Arc::new(self.source()), chunk, rows, Some(pages))?;
        Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
    }

    fn read_labels(
        &self,
        group: usize,
        column: usize,
        rows: usize,
        labels: &mut Vec<u32>,
    ) -> Result<()> {
        let pages = self.pages(group, column)?;
        let mut wide: Vec<i64> = Vec::new();
        let read = guarded(|| {
            let mut levels = Vec::new();
            match self.reader(group, column, pages)? {
                ColumnReader::Int64ColumnReader(mut reader) => {
                    reader.read_records(rows, Some(&mut levels), None, &mut wide)?
                }
                ColumnReader::Int32ColumnReader(mut reader) => {
                    let mut narrow = Vec::new();
                    let read = reader.read_records(rows, Some(&mut levels), None, &mut narrow)?;
                    wide.extend(narrow.into_iter().map(i64::from));
                    read
                }
                _ => (0, 0, 0),
            };
            Ok(())
        });
        read.map_err(|e| broken(&self.path, &e))?;
        if wide.len() != rows {
            return Err(self.bad(
                format!("{} labels in a group of {rows} rows", wide.len()),
                "a label a row".into(),
            ));
        }
        for label in wide {
            // The Hub marks images without a label by -1.
            let label = u32::try_from(label).ok().filter(|&l| l < 1 << 24);
            labels.push(label.ok_or_else(|| {
                self.bad(
                    "a row without a label".into(),
                    "labels from 0 on (the official test split has none)".into(),
                )
            })?);
        }
        Ok(())
    }

    /// The file in a row of a row group.
    fn image(&self, group: usize, row: usize) -> Result<ByteArray> {
        let known = &self.groups[group].1;
        let pages = match known.get() {
            Some(pages) => pages,
            None => {
                let pages = self.pages(group, self.image)?;
                known.get_or_init(|| pages)
            }
        };
        let image = guarded(|| {
            let ColumnReader::ByteArrayColumnReader(mut reader) =
                self.reader(group, self.image, pages.clone())?
            else {
                return Ok(None);
            };
            if reader.skip_records(row)? < row {
                return Ok(None);
            }
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            reader.read_records(1, Some(&mut levels), None, &mut values)?;
            Ok(values.pop())
        });
        let bad = |found: &str| {
            self.bad(format!("{found} in row {row} of row group {group}"), "an image file".into())
        };
        let image: ByteArray =
            image.map_err(|e| broken(&self.path, &e))?.ok_or_else(|| bad("nothing"))?;
        if image.len() as u64 > MAX_FILE {
            return Err(bad("an image file of more than 256 MiB"));
        }
        Ok(image)
    }

    /// Where the data pages of a column chunk begin, from their headers.
    fn pages(&self, group: usize, column: usize) -> Result<Vec<PageLocation>> {
        let bad = |found: &str| {
            self.bad(format!("{found} in row group {group}"), "a whole Parquet file".into())
        };
        let chunk = self.metadata.row_group(group).column(column);
        let (start, end) = byte_range(chunk)
            .filter(|&(_, end)| end <= self.length)
            .ok_or_else(|| bad("a column outside the file"))?;
        let io = || DataError::io("read", &self.path);
        let mut file = File::open(&self.path).map_err(io())?;
        let mut pages = Vec::new();
        let mut rows = 0i64;
        let mut at = start;
        let mut buffer = Vec::new();
        while at < end && rows < self.metadata.row_group(group).num_rows() {
            let mut header = None;
            for room in [8 << 10, MAX_HEADER] {
                buffer.clear();
                file.seek(SeekFrom::Start(at)).map_err(io())?;
                file.by_ref()
                    .take((room as u64).min(end - at))
                    .read_to_end(&mut buffer)
                    .map_err(io())?;
                header = PageHeader::parse(&buffer);
                if header.is_some() {
                    break;
                }
            }
            let header = header.ok_or_else(|| bad("a damaged page header"))?;
            let size = header.length as u64
                + u64::try_from(header.compressed).map_err(|_| bad("a page of negative length"))?;
            if !(0..=MAX_PAGE).contains(&header.uncompressed) || at + size > end {
                return Err(bad("a page that is larger than it can be"));
            }
            match header.rows {
                Some(n) if n >= 0 && rows + i64::from(n) <= MAX_ROWS => {
                    let compressed_page_size = i32::try_from(size)
                        .map_err(|_| bad("a page that is larger than it can be"))?;
                    pages.push(PageLocation {
                        offset: at as i64,
                        compressed_page_size,
                        first_row_index: rows,
                    });
                    rows += i64::from(n);
                }
                Some(_) => return Err(bad("a page of impossible length")),
                // A dictionary, which must come first.
                None if pages.is_empty() => {}
                None => return Err(bad("a dictionary after data")),
            }
            at += size;
        }
        // Whatever lies before the first data page is taken for the dictionary page.
        let before = pages.first().map_or(0, |p| p.offset as u64 - start);
        if rows != self.metadata.row_group(group).num_rows() || before > MAX_PAGE as u64 {
            return Err(bad(&format!("pages of {rows} rows")));
        }
        Ok(pages)
    }
}

/// First byte and end of a column chunk.
fn byte_range(chunk: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let start = match chunk.dictionary_page_offset() {
        // Some writers say 0 for none.
        Some(offset) if offset > 0 => offset,
        _ => chunk.data_page_offset(),
    };
    let start = u64::try_from(start).ok()?;
    Some((start, start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?))
}

/// Third-party decoders may panic on damaged files; a panic is an error of the file here.
fn guarded<T>(work: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    let text = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast::<&str>().map_or("a defect of the decoder".into(), |text| (*text).into())
        }
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(text)?.map_err(|e| e.to_string())
}

fn broken(path: &Path, error: &str) -> DataError {
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

/// The class names that the Hub writes into the metadata.
fn class_names(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Hub {
        info: DatasetInfo,
    }
    #[derive(Deserialize)]
    struct DatasetInfo {
        features: std::collections::BTreeMap<String, serde_json::Value>,
    }
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|e| e.key == "huggingface")?.value.as_deref()?;
    let hub: Hub = serde_json::from_str(text).ok()?;
    let names =
        LABELS.iter().find_map(|label| hub.info.features.get(*label)?.get("names")?.as_array())?;
    let names: Vec<String> =
        names.iter().map(|n| n.as_str().map(one_line)).collect::<Option<_>>()?;
    (names.len() >= 2).then_some(names)
}

/// A file that is opened anew for each read, so that threads do not move one another's position.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    length: u64,
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

/// What is needed of a page header: a structure in Thrift's compact protocol.
struct PageHeader {
    /// Bytes of the header.
    length: usize,
    compressed: i32,
    uncompressed: i32,
    /// Rows of a data page (without repetition: values); none for a dictionary.
    rows: Option<i32>,
}

impl PageHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut thrift = Thrift { bytes, at: 0 };
        let (mut compressed, mut uncompressed, mut rows) = (None, None, None);
        let mut field = 0;
        while let Some(kind) = thrift.field(&mut field)? {
            match (field, kind) {
                (2, 5) => uncompressed = Some(thrift.int()?),
                (3, 5) => compressed = Some(thrift.int()?),
                // The data page headers of both versions begin with the number of values.
                (5 | 8, 12) => {
                    let mut inner = 0;
                    while let Some(kind) = thrift.field(&mut inner)? {
                        match (inner, kind) {
                            (1, 5) => rows = Some(thrift.int()?),
                            _ => thrift.skip(kind, 0)?,
                        }
                    }
                    rows?;
                }
                _ => thrift.skip(kind, 0)?,
            }
        }
        Some(Self { length: thrift.at, compressed: compressed?, uncompressed: uncompressed?, rows })
    }
}

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn int(&mut self) -> Option<i32> {
        let raw = self.varint()?;
        i32::try_from((raw >> 1) as i64 ^ -((raw & 1) as i64)).ok()
    }

    /// The next field's type, `Some(None)` at the structure's end; `id` is that of the last field.
    fn field(&mut self, id: &mut i32) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.int()?,
            delta => id.checked_add(i32::from(delta))?,
        };
        Some(Some(head & 0xf))
    }

    fn advance(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|&at| at <= self.bytes.len())?;
        Some(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > 8 {
            return None;
        }
        match kind {
            // Booleans are in the type.
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let n = usize::try_from(self.varint()?).ok()?;
                self.advance(n)
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            // Page headers have no lists, sets or maps.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
