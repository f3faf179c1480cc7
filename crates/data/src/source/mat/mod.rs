//! SVHN's MATLAB files: `X` of 32 x 32 x 3 x N bytes and `y` of N labels, 1 to 10 (10 is the digit
//! 0).
//!
//! The reader takes only these two arrays of a level-5 MAT-file (MATLAB's "MAT-File Format"). The
//! file has a header of 128 bytes, then elements of a type, a length and data. Type 15 is a zlib
//! stream around another element. Type 14 is an array: flags, dimensions, name and data, each an
//! element padded to 8 bytes. The first index of an array runs fastest.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use byteorder::{LittleEndian, ReadBytesExt};
use flate2::read::ZlibDecoder;

use super::files::{find_file, is_damage, missing};
use super::parts::Parts;
use crate::error::{DataError, Fix, Result};
use crate::info::Info;
use crate::split::Split;
use crate::text::one_line;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

pub(crate) fn open(info: &Info, data_dir: &Path) -> Result<Parts> {
    let read = |at: usize, n: usize| {
        let file = info
            .sources
            .get(at)
            .and_then(|s| find_file(info, data_dir, &s.file))
            .ok_or_else(|| missing(info, data_dir))?;
        let (images, labels) = read(&file, n, &info.get_again())?;
        Split::new(images, labels, [3, SIDE, SIDE], info.num_classes)
    };
    Ok(Parts { train: read(0, info.train)?, test: read(1, info.test)? })
}

/// Why reading an element failed.
enum Failure {
    Io(io::Error),
    /// A description of what was found.
    Found(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn found<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Found(what.into()))
}

/// Reads the images as planes, and the labels, of a file that must hold `n` of each.
fn read(path: &Path, n: usize, fix: &Fix) -> Result<(Vec<u8>, Vec<u32>)> {
    let expected = || {
        format!("a MATLAB 5 file with X of 32 x 32 x 3 x {n} bytes and y of {n} labels, 1 to 10")
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    parse(BufReader::with_capacity(1 << 16, file), n).map_err(|failure| match failure {
        Failure::Io(e) if is_damage(&e) => DataError::bad(
            path,
            format!("a file that is cut off or damaged ({})", one_line(&e.to_string())),
            expected(),
            fix,
        ),
        Failure::Io(e) => DataError::io("read", path)(e),
        Failure::Found(what) => DataError::bad(path, what, expected(), fix),
    })
}

fn parse(mut file: impl Read, n: usize) -> Result<(Vec<u8>, Vec<u32>), Failure> {
    let mut header = [0; 128];
    file.read_exact(&mut header)?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [_, _, b'M', b'I'] => return found("a file in big-endian byte order"),
        [0, 2, b'I', b'M'] => return found("a MATLAB 7.3 (HDF5) file"),
        _ => return found("no MATLAB 5 header"),
    }
    let (mut images, mut labels) = (None, None);
    while images.is_none() || labels.is_none() {
        let Some((kind, length)) = first_tag(&mut file)? else {
            return found(if images.is_none() { "no array X" } else { "no array y" });
        };
        let mut element = file.by_ref().take(u64::from(length));
        match kind {
            COMPRESSED => {
                let mut inner = ZlibDecoder::new(&mut element);
                let (kind, length) =
                    (inner.read_u32::<LittleEndian>()?, inner.read_u32::<LittleEndian>()?);
                if kind != MATRIX {
                    return found(format!("an element of type {kind} where an array was due"));
                }
                matrix(&mut inner.take(u64::from(length)), n, &mut images, &mut labels)?;
            }
            MATRIX => matrix(&mut element, n, &mut images, &mut labels)?,
            _ => {}
        }
        io::copy(&mut element, &mut io::sink())?;
        if element.limit() > 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // Arrays are padded to 8 bytes; zlib streams are not.
        if kind != COMPRESSED {
            skip(&mut file, padding(length))?;
        }
    }
    images.zip(labels).map_or_else(|| found("no arrays"), Ok)
}

/// Reads an array into the field that its name selects; other arrays are skipped.
fn matrix(
    data: &mut impl Read,
    n: usize,
    images: &mut Option<Vec<u8>>,
    labels: &mut Option<Vec<u32>>,
) -> Result<(), Failure> {
    let flags = small(data, UINT32)?;
    let dims: Vec<i64> = small(data, INT32)?
        .as_chunks::<4>()
        .0
        .iter()
        .map(|d| i64::from(i32::from_le_bytes(*d)))
        .collect();
    let name = small(data, INT8)?;
    if flags.get(1).is_some_and(|f| f & 0x08 != 0) {
        return found("an array of complex numbers");
    }
    match &name[..] {
        b"X" if dims == [32, 32, 3, n as i64] => {
            let (kind, length, inline) = tag(data)?;
            if kind != UINT8 || inline.is_some() || length as usize != n * PIXELS {
                return found(format!("X with {length} bytes of type {kind}"));
            }
            *images = Some(planes(data, n)?);
        }
        b"y" if dims == [n as i64, 1] || dims == [1, n as i64] => {
            *labels = Some(read_labels(data, n)?)
        }
        b"X" | b"y" => {
            return found(format!(
                "{} of {}",
                String::from_utf8_lossy(&name),
                dims.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ")
            ));
        }
        _ => {}
    }
    Ok(())
}

/// Reads `n` images in which rows run fastest, then columns, then channels, and transposes them to
/// planes.
fn planes(data: &mut impl Read, n: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(n * PIXELS);
    let mut image = [0; PIXELS];
    for _ in 0..n {
        data.read_exact(&mut image)?;
        for plane in image.as_chunks::<{ SIDE * SIDE }>().0 {
            for y in 0..SIDE {
                out.extend((0..SIDE).map(|x| plane[x * SIDE + y]));
            }
        }
    }
    Ok(out)
}

fn read_labels(data: &mut impl Read, n: usize) -> Result<Vec<u32>, Failure> {
    let (kind, length, inline) = tag(data)?;
    let size = match kind {
        INT8 | UINT8 => 1,
        3 | 4 => 2,
        INT32 | UINT32 => 4,
        DOUBLE => 8,
        other => return found(format!("y with numbers of type {other}")),
    };
    if length as usize != n * size {
        return found(format!("y with {length} bytes of type {kind}"));
    }
    let mut bytes = vec![0; n * size];
    match inline {
        Some(four) => bytes.copy_from_slice(&four[..n * size]),
        None => data.read_exact(&mut bytes)?,
    }
    let value = |number: &[u8]| match *number {
        // A negative number is out of range in either interpretation.
        [a] => f64::from(a),
        [a, b] => f64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => f64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => f64::NAN,
    };
    bytes
        .chunks_exact(size)
        .map(value)
        .enumerate()
        .map(|(i, label)| {
            if (1..=10).any(|k| label == f64::from(k)) {
                Ok(label as u32 % 10)
            } else {
                found(format!("label {label} at item {i} of y"))
            }
        })
        .collect()
}

/// The content of a small element of type `want`, at most 64 bytes; its padding is consumed.
fn small(data: &mut impl Read, want: u32) -> Result<Vec<u8>, Failure> {
    let (kind, length, inline) = tag(data)?;
    if kind != want || length > 64 {
        return found(format!("{length} bytes of type {kind} where type {want} was due"));
    }
    if let Some(four) = inline {
        return Ok(four[..length as usize].to_vec());
    }
    let mut bytes = vec![0; length as usize];
    data.read_exact(&mut bytes)?;
    skip(data, padding(length))?;
    Ok(bytes)
}

/// Type and length of an element; up to 4 bytes of data may follow within the tag.
fn tag(data: &mut impl Read) -> Result<(u32, u32, Option<[u8; 4]>), Failure> {
    let first = data.read_u32::<LittleEndian>()?;
    let second = data.read_u32::<LittleEndian>()?;
    match first >> 16 {
        0 => Ok((first, second, None)),
        length @ 1..=4 => Ok((first & 0xffff, length, Some(second.to_le_bytes()))),
        _ => found("a damaged element"),
    }
}

/// The tag of the next element of the file; `None` at its end.
fn first_tag(file: &mut impl Read) -> Result<Option<(u32, u32)>, Failure> {
    let mut tag = Vec::with_capacity(8);
    file.take(8).read_to_end(&mut tag)?;
    if tag.is_empty() {
        return Ok(None);
    }
    let mut tag = &tag[..];
    Ok(Some((tag.read_u32::<LittleEndian>()?, tag.read_u32::<LittleEndian>()?)))
}

fn padding(length: u32) -> u64 {
    u64::from(length.wrapping_neg() % 8)
}

fn skip(data: &mut impl Read, n: u64) -> io::Result<()> {
    io::copy(&mut data.take(n), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests;
