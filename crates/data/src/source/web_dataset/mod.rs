//! WebDataset shards: tar files in which the members `KEY.jpg` (or `.jpeg`, `.png`) and `KEY.cls`
//! are a sample, its image file and its label as decimal digits.
//!
//! The shards are read through once for the labels and the places of the images; each image is then
//! read at its place on request. A process that trains on a part of every batch therefore reads only
//! that part. The format: <https://github.com/webdataset/webdataset>.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tar::Archive;

use super::encoded::{MAX_FILE, file_digest};
use crate::error::{DataError, Result};
use crate::options::Decoding;
use crate::picture::{Picture, Pictures, decode};
use crate::text::one_line;

/// Longest label in bytes, with white space around it.
const MAX_LABEL: u64 = 32;
/// Labels are below this number: more classes are hardly meant, and each takes memory in a network.
const MAX_CLASSES: u32 = 1 << 20;
const IMAGES: [&str; 3] = ["jpg", "jpeg", "png"];

/// An image file in a shard.
#[derive(Clone, Debug)]
struct Place {
    shard: u32,
    offset: u64,
    length: u64,
}

/// The samples of a split, in the order of the shards.
#[derive(Debug)]
pub(crate) struct Samples {
    shards: Vec<PathBuf>,
    places: Vec<Place>,
}

impl Samples {
    /// Reads the places and the labels of all samples.
    ///
    /// # Errors
    /// [`DataError`] for a file that is not a whole tar file, an image without label, a label that is
    /// no number, or shards without a sample.
    pub(crate) fn open(shards: Vec<PathBuf>) -> Result<(Self, Vec<u32>)> {
        let (mut places, mut labels) = (Vec::new(), Vec::new());
        for (number, path) in shards.iter().enumerate() {
            for (key, sample) in members(path, number as u32)? {
                let wanting = |what: &str, expected: &str| {
                    bad(path, format!("{key} without {what}"), format!("{key}.{expected}"))
                };
                match sample {
                    Sample { image: Some(place), label: Some(label) } => {
                        places.push(place);
                        labels.push(label);
                    }
                    // Other members, such as captions, are no sample.
                    Sample { image: None, label: None } => {}
                    Sample { image: None, .. } => return Err(wanting("an image", "jpg")),
                    Sample { label: None, .. } => return Err(wanting("a label", "cls")),
                }
            }
        }
        match (places.is_empty(), shards.first()) {
            (true, Some(first)) => {
                Err(bad(first, "no sample".into(), "KEY.jpg or KEY.png, and KEY.cls".into()))
            }
            _ => Ok((Self { shards, places }, labels)),
        }
    }

    /// The pictures of these samples.
    pub(crate) fn pictures(self, samples: &[u32], decoding: Decoding) -> Members {
        let places = samples.iter().map(|&i| self.places[i as usize].clone()).collect();
        Members { shards: self.shards, places, decoding }
    }
}

/// What a shard holds under a key.
#[derive(Default)]
struct Sample {
    image: Option<Place>,
    label: Option<u32>,
}

/// The samples of a shard and their keys, in the order in which they begin.
fn members(path: &Path, shard: u32) -> Result<Vec<(String, Sample)>> {
    let mut file = File::open(path).map_err(DataError::io("read", path))?;
    let size = file.metadata().map_err(DataError::io("read", path))?.len();
    let cut = |found: String| bad(path, found, "a whole tar file".into());
    let broken = |e: std::io::Error| cut(one_line(&e.to_string()));
    if !has_end(&mut file, size).map_err(broken)? {
        return Err(cut("no end".into()));
    }
    let mut archive = Archive::new(file);
    let mut samples: Vec<(String, Sample)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for member in archive.entries_with_seek().map_err(broken)? {
        let mut member = member.map_err(broken)?;
        if !member.header().entry_type().is_file() {
            continue;
        }
        let name = one_line(&String::from_utf8_lossy(&member.path_bytes()));
        // The key ends at the first dot of the last name.
        let base = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[base..].find('.').map(|dot| base + dot) else { continue };
        let (key, kind) = (&name[..dot], name[dot + 1..].to_ascii_lowercase());
        let (offset, length) = (member.raw_file_position(), member.size());
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(cut(format!("{name} cut off")));
        }
        let is_image = IMAGES.contains(&&*kind);
        if !is_image && kind != "cls" {
            continue;
        }
        let index = *known.entry(key.to_owned()).or_insert_with(|| {
            samples.push((key.to_owned(), Sample::default()));
            samples.len() - 1
        });
        let sample = &mut samples[index].1;
        if is_image && sample.image.is_none() && length <= MAX_FILE {
            sample.image = Some(Place { shard, offset, length });
        } else if !is_image && sample.label.is_none() {
            let mut text = String::new();
            member.by_ref().take(MAX_LABEL).read_to_string(&mut text).map_err(broken)?;
            sample.label = Some(label(&text).ok_or_else(|| {
                let found = format!("'{}' in {name}", one_line(text.trim()));
                bad(path, found, format!("a label from 0 to {}", MAX_CLASSES - 1))
            })?);
        } else {
            let most = format!("one image of at most {} MiB and one label a key", MAX_FILE >> 20);
            return Err(bad(path, format!("{name} of {length} bytes"), most));
        }
    }
    Ok(samples)
}

/// Whether the file ends with the two empty blocks that end an archive; without them, samples may
/// have been cut off.
fn has_end(file: &mut File, size: u64) -> std::io::Result<bool> {
    let mut end = [0; 1024];
    let start = size.checked_sub(end.len() as u64).filter(|start| start.is_multiple_of(512));
    let Some(start) = start else { return Ok(false) };
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut end)?;
    file.rewind()?;
    Ok(end == [0; 1024])
}

fn label(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|label| *label < MAX_CLASSES)
}

fn bad(path: &Path, found: String, expected: String) -> DataError {
    DataError::bad(path, found, expected, "write the shard again, or remove it")
}

/// Image files in shards, decoded on demand.
#[derive(Debug)]
pub(crate) struct Members {
    shards: Vec<PathBuf>,
    places: Vec<Place>,
    decoding: Decoding,
}

impl Members {
    /// The shard and the bytes of image `i`.
    fn file(&self, i: usize) -> Result<(&Path, Vec<u8>)> {
        let count = self.places.len();
        let missing = || DataError::value("image index", i, format!("below {count}"));
        let place = self.places.get(i).ok_or_else(missing)?;
        let path = self.shards.get(place.shard as usize).ok_or_else(missing)?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(place.offset))?;
            let mut bytes = Vec::new();
            file.take(place.length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        Ok((path, read().map_err(DataError::io("read", path))?))
    }
}

impl Pictures for Members {
    fn picture(&self, i: usize) -> Result<Picture> {
        let (path, bytes) = self.file(i)?;
        let offset = self.places[i].offset;
        decode(&bytes, self.decoding, |found| {
            bad(path, format!("{found} at byte {offset}"), "a whole PNG or JPEG image".into())
        })
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        Ok(file_digest(&self.file(i)?.1, self.decoding))
    }
}

#[cfg(test)]
mod tests;
