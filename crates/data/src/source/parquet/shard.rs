//! One shard: its labels, and the image file of any row.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parquet::basic::{Compression, Type};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;

use super::file::{Source, broken, byte_range, guarded};
use super::thrift::PageHeader;
use crate::error::{DataError, Result};
use crate::source::encoded::MAX_FILE;
use crate::text::one_line;

/// Number of rows that any shard may have. Each further row needs at least one byte of the file (a
/// row is an image file, of at least 67 bytes before it is compressed).
const FREE_ROWS: i64 = 1 << 16;
/// Bytes of metadata that any shard may have, and the most; in between, an eighth of the file's
/// length.
const FREE_METADATA: u64 = 1 << 20;
const MAX_METADATA: u64 = 16 << 20;
/// Most bytes of a decoded page, and of a page's header.
const MAX_PAGE: i32 = 256 << 20;
const MAX_HEADER: usize = 1 << 20;
/// Most bytes that snappy makes of one byte (copies of 64 bytes from 3).
const SNAPPY: i64 = 24;

const IMAGES: [&str; 4] = ["image.bytes", "img.bytes", "image", "jpg"];
pub(super) const LABELS: [&str; 4] = ["label", "labels", "fine_label", "cls"];

#[derive(Debug)]
pub(super) struct Shard {
    pub path: PathBuf,
    length: u64,
    pub metadata: ParquetMetaData,
    image: usize,
    /// First row of each row group in the split, and the places of its pages.
    pub groups: Vec<(usize, OnceLock<Vec<PageLocation>>)>,
}

impl Shard {
    pub(super) fn open(path: PathBuf, labels: &mut Vec<u32>) -> Result<Self> {
        let length = std::fs::metadata(&path).map_err(DataError::io("read", &path))?.len();
        let source = Source { path: path.clone(), length };
        check_metadata(&source)?;
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
        let most = FREE_ROWS + length.min(1 << 32) as i64;
        let rows = shard.metadata.row_groups().iter().try_fold(0i64, |sum, group| {
            u32::try_from(group.num_rows()).ok().and_then(|n| sum.checked_add(n.into()))
        });
        if rows.is_none_or(|rows| rows > most) {
            let found = rows.map_or("an impossible number of".into(), |rows| rows.to_string());
            return Err(shard.bad(
                format!("{found} rows in a file of {length} bytes"),
                format!("at most {most}"),
            ));
        }
        for group in 0..shard.metadata.num_row_groups() {
            shard.groups.push((labels.len(), OnceLock::new()));
            let rows = usize::try_from(shard.metadata.row_group(group).num_rows()).unwrap_or(0);
            shard.read_labels(group, label, rows, labels)?;
        }
        Ok(shard)
    }

    pub(super) fn bad(&self, found: String, expected: String) -> DataError {
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
            // The Hub marks images without a label with -1.
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

    /// The image file in row `row` of a row group.
    pub(super) fn image(&self, group: usize, row: usize) -> Result<ByteArray> {
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

    /// The places of the data pages of a column chunk, from the pages' headers.
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
        let of_the_group = self.metadata.row_group(group).num_rows();
        let mut pages = Vec::new();
        let mut rows = 0i64;
        let mut at = start;
        let mut buffer = Vec::new();
        while at < end && rows < of_the_group {
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
            if at + size > end || !header.is_plausible(chunk.compression()) {
                return Err(bad("a page that is larger than it can be"));
            }
            match header.rows {
                Some(n) if n >= 0 && rows + i64::from(n) <= of_the_group => {
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
                // A dictionary page must come first.
                None if pages.is_empty() => {}
                None => return Err(bad("a dictionary after data")),
            }
            at += size;
        }
        // The decoder takes all bytes before the first data page for the dictionary page.
        let before = pages.first().map_or(0, |p| p.offset as u64 - start);
        if rows != of_the_group || before > MAX_PAGE as u64 {
            return Err(bad(&format!("pages of {rows} rows")));
        }
        Ok(pages)
    }
}

impl PageHeader {
    /// Whether the decoder may allocate the memory that the header announces: for the bytes of the
    /// page, and for the values of a dictionary, each of which takes at least 4 bytes.
    pub(super) fn is_plausible(&self, compression: Compression) -> bool {
        let (compressed, size) = (i64::from(self.compressed), i64::from(self.uncompressed));
        let most = match compression {
            Compression::UNCOMPRESSED => compressed,
            _ => SNAPPY * compressed + 64,
        };
        (0..=most.min(MAX_PAGE.into())).contains(&size)
            && self.entries.is_none_or(|n| (0..=size / 4).contains(&i64::from(n)))
    }
}

/// Checks the length of the metadata at the end of the file. Their reader takes up to about a
/// hundred bytes of memory for each byte of metadata.
fn check_metadata(source: &Source) -> Result<()> {
    let Source { path, length } = source;
    let mut file = File::open(path).map_err(DataError::io("read", path))?;
    let mut end = [0; 8];
    // The reader refuses a file that is too short or has no such end.
    if *length < 12 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-8))
        .and_then(|_| file.read_exact(&mut end))
        .map_err(DataError::io("read", path))?;
    let found = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    let most = (length / 8).clamp(FREE_METADATA, MAX_METADATA);
    if found > most && &end[4..] == b"PAR1" {
        let expected = format!("at most {most}");
        return Err(DataError::bad(
            path,
            format!("{found} bytes of metadata"),
            expected,
            "get the file again",
        ));
    }
    Ok(())
}
