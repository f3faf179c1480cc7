//! IDX files of the MNIST family, gzipped or not.
//!
//! An IDX file (<http://yann.lecun.com/exdb/mnist/>) holds two zero bytes, a type byte (8: unsigned
//! bytes), the number of dimensions, each dimension as a big-endian `u32`, then the values.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::files::{is_damage, read_exactly};
use super::parts::Parts;
use crate::error::{DataError, Fix, Result};
use crate::info::Info;
use crate::split::Split;
use crate::text::shown_all;

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Reads the four files from `data_dir/NAME`, or from the folder of the Debian package that holds
/// the set.
pub(crate) fn open(info: &Info, data_dir: &Path) -> Result<Parts> {
    let [train_images, train_labels, test_images, test_labels] =
        locate(info, &info.folders(data_dir))?;
    let fix = info.get_again();
    let read = |images: &Path, labels: &Path, n: usize| {
        let shape = [info.channels, info.height, info.width];
        let pixels = read_bytes(images, &[n, info.height, info.width], &fix)?;
        let labels = read_labels(labels, n, info.num_classes, &fix)?;
        Split::new(pixels, labels, shape, info.num_classes)
    };
    Ok(Parts {
        train: read(&train_images, &train_labels, info.train)?,
        test: read(&test_images, &test_labels, info.test)?,
    })
}

/// Finds the four files in the first folder that has all of them.
fn locate(info: &Info, folders: &[PathBuf]) -> Result<[PathBuf; 4]> {
    let mut missing = FILES[0];
    let mut most = 0;
    for folder in folders {
        let found = FILES.map(|name| {
            [format!("{name}.gz"), name.to_owned()]
                .into_iter()
                .map(|f| folder.join(f))
                .find(|path| path.is_file())
        });
        let have = found.iter().flatten().count();
        if have > most {
            most = have;
            missing = FILES
                .iter()
                .zip(&found)
                .find(|(_, f)| f.is_none())
                .map_or(missing, |(name, _)| name);
        }
        if let [Some(a), Some(b), Some(c), Some(d)] = found {
            return Ok([a, b, c, d]);
        }
    }
    Err(DataError::Missing {
        name: info.name.clone(),
        file: format!("{missing}.gz"),
        looked: shown_all(folders),
        get: info.get(),
    })
}

fn read_labels(path: &Path, n: usize, classes: usize, fix: &Fix) -> Result<Vec<u32>> {
    let bytes = read_bytes(path, &[n], fix)?;
    if let Some((i, label)) = bytes.iter().enumerate().find(|(_, l)| usize::from(**l) >= classes) {
        return Err(DataError::bad(
            path,
            format!("label {label} at item {i}"),
            format!("0 to {}", classes - 1),
            fix,
        ));
    }
    Ok(bytes.into_iter().map(u32::from).collect())
}

/// Reads the bytes of an IDX file of unsigned bytes whose dimensions must be `dims`. It allocates
/// memory for `dims` only, whatever the header says.
fn read_bytes(path: &Path, dims: &[usize], fix: &Fix) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let gzipped = file.fill_buf().map_err(DataError::io("read", path))?.starts_with(&[0x1f, 0x8b]);
    if gzipped {
        parse(GzDecoder::new(file), path, dims, fix)
    } else {
        parse(file, path, dims, fix)
    }
}

fn parse(mut data: impl Read, path: &Path, dims: &[usize], fix: &Fix) -> Result<Vec<u8>> {
    let bad = |found: String, expected: String| DataError::bad(path, found, expected, fix);
    let broken = |e: io::Error| {
        if is_damage(&e) {
            bad(format!("a broken gzip stream ({e})"), "a whole IDX file".into())
        } else {
            DataError::io("read", path)(e)
        }
    };
    let want: usize = dims.iter().product();
    let header_len = 4 + 4 * dims.len();
    let mut header = Vec::with_capacity(header_len);
    data.by_ref().take(header_len as u64).read_to_end(&mut header).map_err(broken)?;
    let words: Vec<u32> =
        header.as_chunks::<4>().0.iter().map(|four| u32::from_be_bytes(*four)).collect();
    let magic = 0x0800 + dims.len() as u32;
    match words.first() {
        Some(&m) if m != magic => {
            return Err(bad(
                format!("magic number {m:#010x}"),
                format!("{magic:#010x} (an IDX file)"),
            ));
        }
        _ if words.len() < dims.len() + 1 => {
            return Err(bad(
                format!("only {} bytes", header.len()),
                format!("an IDX header of {header_len} bytes"),
            ));
        }
        _ => {}
    }
    let text = |dims: &[String]| dims.join(" x ");
    let found: Vec<String> = words.iter().skip(1).map(u32::to_string).collect();
    let expected: Vec<String> = dims.iter().map(usize::to_string).collect();
    if found != expected {
        let what = if dims.len() == 1 { "labels" } else { "pixels" };
        return Err(bad(
            format!("a header for {} {what}", text(&found)),
            format!("{} {what}", text(&expected)),
        ));
    }
    read_exactly(&mut data, want)
        .map_err(broken)?
        .map_err(|found| bad(found, format!("{want} bytes ({})", text(&expected))))
}

#[cfg(test)]
mod tests;
